"""Cross-validation for few patients: each is held out once, and all are trained on."""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass, replace

from ..dataset import AnnotatedImage, Dataset
from ..settings import Recipe

_MOST_FOLDS = 3
"""Largest number of folds; each is a training of its own, and takes as long."""


@dataclass(frozen=True)
class Fold:
    """Images that one of the models is validated on instead of trained on.

    Attributes:
        held_out: dataset and name of each of these images.
    """

    held_out: frozenset[tuple[str, str]]

    def select(self, images: Sequence[AnnotatedImage]) -> list[int]:
        """Select the indices of the held-out images."""
        return [n for n, one in enumerate(images) if (one.dataset, one.name) in self.held_out]


def make_folds(dataset: Dataset, recipe: Recipe, without: Container[str]) -> tuple[Fold, ...]:
    """Divide the training and validation images into folds; a patient is never split.

    Images of a single patient are divided too, as there is nothing better.

    Args:
        without: names of datasets that are not trained on.

    Returns:
        Nothing where the recipe wants none, where the data or a table say the parts, where nothing
        is to be validated on, and where there is one image.
    """
    images = [
        one
        for one in dataset.images
        if one.truths and one.part != "test" and one.dataset not in without
    ]
    groups = list(dict.fromkeys((one.dataset, one.group) for one in images))
    wants = recipe.cross_validated_below > len(groups)
    if not wants or dataset.has_own_split or recipe.brings_encoder:
        return ()
    by_patient = len(groups) > 1
    keys = [(one.dataset, one.group if by_patient else one.name) for one in images]
    units = list(dict.fromkeys(keys))
    count = min(len(units), _MOST_FOLDS)
    if count < 2:
        return ()
    fold_of = {unit: number % count for number, unit in enumerate(units)}
    return tuple(
        Fold(
            frozenset(
                (one.dataset, one.name)
                for one, key in zip(images, keys, strict=True)
                if fold_of[key] == number
            )
        )
        for number in range(count)
    )


def train_on_all(dataset: Dataset) -> Dataset:
    """Move the images of the validation part into the training part."""
    images = tuple(
        replace(one, part="train") if one.part == "val" else one for one in dataset.images
    )
    return replace(dataset, images=images)
