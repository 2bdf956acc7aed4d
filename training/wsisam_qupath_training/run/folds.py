"""Cross-validation where there are few patients: each is held out once, and all are trained on."""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass, replace

from ..dataset import AnnotatedImage, Dataset
from ..settings import Recipe

_MOST_FOLDS = 3
"""Each is a training of its own, and takes as long."""


@dataclass(frozen=True)
class Fold:
    """Images that one of the models is not trained on, but validated on.

    Attributes:
        held_out: their datasets and names.
    """

    held_out: frozenset[tuple[str, str]]

    def select(self, images: Sequence[AnnotatedImage]) -> list[int]:
        """Indices of the held-out ones."""
        return [n for n, one in enumerate(images) if (one.dataset, one.name) in self.held_out]


def make_folds(dataset: Dataset, recipe: Recipe, without: Container[str]) -> tuple[Fold, ...]:
    """Divide the images to train and to validate on into folds; never a patient.

    Images of a single patient are divided too, as there is nothing better.

    Args:
        without: datasets that are not trained on, by name.

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
    tunes_encoder = any(settings.tunes_encoder for settings in recipe.decoders.values())
    if not wants or dataset.has_own_split or tunes_encoder:
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
    """The dataset with its part to validate on among that to train on."""
    images = tuple(
        replace(one, part="train") if one.part == "val" else one for one in dataset.images
    )
    return replace(dataset, images=images)
