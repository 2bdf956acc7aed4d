"""Choose the images and objects that an evaluation measures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np

from wsisam_qupath.errors import PromptError

from ..dataset import AnnotatedImage, Truth
from ..splits import group_by_part, read_groups

Wanted: TypeAlias = Literal["test", "val", "train", "all"]
WANTED: tuple[Wanted, ...] = ("test", "val", "train", "all")


@dataclass(frozen=True)
class SelectedObjects:
    """An image, and those of its objects that models are asked about."""

    image: AnnotatedImage
    truths: tuple[Truth, ...]


def select_part(
    images: Sequence[AnnotatedImage], part: Wanted
) -> tuple[tuple[AnnotatedImage, ...], str | None]:
    """Select the images of one part of the split, and write a remark for the user.

    Raises:
        PromptError: a patient is in two parts, or the part is empty.
    """
    if part == "all":
        return tuple(images), None
    found = group_by_part(images)[part]
    if any(image.truths for image in found):
        return found, None
    if part == "test":
        return tuple(images), (
            "The data has no test part: all of it is measured. If a model was trained on it, the "
            "numbers say nothing about other patients. Give the table of its split."
        )
    raise PromptError(f"No object is in the {part} part of the split. Choose another part, or all.")


def put_slide_classes(images: Sequence[AnnotatedImage], table: Path) -> tuple[AnnotatedImage, ...]:
    """Give all objects of a slide the class that a table names for the slide.

    Raises:
        PromptError: the table cannot be read, or names none of the images.
    """
    class_of = read_groups(table, "classes")
    if not any(image.name in class_of for image in images):
        raise PromptError(
            f"{table} names none of the images. It needs a line for each slide: its name without "
            "the ending, then its class."
        )
    return tuple(
        replace(image, truths=tuple(replace(t, class_name=name) for t in image.truths))
        if (name := class_of.get(image.name))
        else image
        for image in images
    )


def limit_objects(
    images: Sequence[AnnotatedImage], limit: int | None, seed: int
) -> tuple[SelectedObjects, ...]:
    """Keep at most so many objects per dataset, spread evenly over its images."""
    chosen = tuple(SelectedObjects(image, image.truths) for image in images if image.truths)
    if limit is None:
        return chosen
    kept: list[SelectedObjects] = []
    for dataset in dict.fromkeys(one.image.dataset for one in chosen):
        kept += _limit_dataset([one for one in chosen if one.image.dataset == dataset], limit, seed)
    return tuple(kept)


def _limit_dataset(
    chosen: Sequence[SelectedObjects], limit: int, seed: int
) -> list[SelectedObjects]:
    rng = np.random.default_rng(seed)
    turns = [
        (turn, place, int(which), int(index))
        for place, which in enumerate(rng.permutation(len(chosen)))
        for turn, index in enumerate(rng.permutation(len(chosen[which].truths)))
    ]
    kept = {(which, index) for _, _, which, index in sorted(turns)[:limit]}
    own = [
        SelectedObjects(one.image, tuple(t for n, t in enumerate(one.truths) if (which, n) in kept))
        for which, one in enumerate(chosen)
    ]
    return [one for one in own if one.truths]
