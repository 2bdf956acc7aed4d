"""Trainings on some of the annotated objects: how many, which ones, and for how long."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from wsisam_qupath.report.progress import count_noun

from ..recipes import count_steps
from ..settings import DecoderSettings, Recipe

ObjectName: TypeAlias = tuple[int, str]
"""Index of an image, and the id of an object in it."""

_SIZES = (1, 3, 10, 30, 100, 300, 1000, 3000)

_LEAST_MORE = 1.5
"""All objects are at least so many times the largest size; otherwise both would say the same."""


@dataclass(frozen=True)
class FewObjects:
    """The objects and views of one training of a learning curve.

    Attributes:
        objects: names of the objects to train on.
        rows: views that show one of the objects, and the places of the objects in each; see
            :class:`.ChosenObjects`.
        recipe: recipe with a schedule for so many objects.
    """

    objects: tuple[ObjectName, ...]
    rows: Mapping[int, Sequence[int]]
    recipe: Recipe


def choose_sizes(n_objects: int) -> tuple[int, ...]:
    """Choose the numbers of objects that a learning curve trains on, below all of them."""
    return tuple(size for size in _SIZES if size * _LEAST_MORE <= n_objects)


def name_sizes(sizes: Sequence[int]) -> str:
    """Write numbers of objects in words: "1, 3, 10 objects"."""
    return ", ".join([*map(str, sizes[:-1]), count_noun(sizes[-1], "object")])


def order_objects(shown: Collection[ObjectName], seed: int) -> list[ObjectName]:
    """Order the objects by turns over the images, at random within each image."""
    rng = np.random.default_rng(seed)
    by_image: defaultdict[int, list[str]] = defaultdict(list)
    for image, name in sorted(shown):
        by_image[image].append(name)
    images = rng.permutation(sorted(by_image)).tolist()
    turns = [
        (turn, place, image, by_image[image][index])
        for place, image in enumerate(images)
        for turn, index in enumerate(rng.permutation(len(by_image[image])).tolist())
    ]
    return [(image, name) for _, _, image, name in sorted(turns)]


def choose_few(
    views: Sequence[tuple[int, Sequence[str]]], size: int, n_objects: int, recipe: Recipe
) -> FewObjects:
    """Choose the first objects of the order, and the views that show them.

    Args:
        views: image and object ids of each view.
        n_objects: number of objects that the recipe is for.
    """
    shown = {(image, name) for image, names in views for name in names}
    objects = tuple(order_objects(shown, recipe.seed)[:size])
    chosen = set(objects)
    rows = {
        view: [row for row, name in enumerate(names) if (image, name) in chosen]
        for view, (image, names) in enumerate(views)
    }
    kept = {view: own for view, own in rows.items() if own}
    return FewObjects(objects, kept, fit_to_objects(recipe, size, n_objects))


def fit_to_objects(recipe: Recipe, size: int, n_objects: int) -> Recipe:
    """Shorten the recipe as for a user who has annotated so many objects.

    Args:
        n_objects: number of objects that the recipe is for.
    """
    share = min(1.0, count_steps(size) / count_steps(n_objects))

    def shorten_decoder(settings: DecoderSettings) -> DecoderSettings:
        shorter = {
            "steps": max(1, round(share * settings.steps)),
            "warm_up_steps": round(share * settings.warm_up_steps),
        }
        return settings.model_copy(update=shorter)

    decoders = {name: shorten_decoder(settings) for name, settings in recipe.decoders.items()}
    every = max(1, round(share * recipe.validate_every))
    return recipe.model_copy(update={"decoders": decoders, "validate_every": every})
