"""Which objects are measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from wsisam_qupath.errors import PromptError

from ..fields import Field, Truth
from ..splits import parts_of

Wanted: TypeAlias = Literal["test", "val", "train", "all"]
WANTED: tuple[Wanted, ...] = ("test", "val", "train", "all")


@dataclass(frozen=True)
class Chosen:
    """A field, and those of its objects that are asked about."""

    field: Field
    truths: tuple[Truth, ...]


def fields_of_part(fields: Sequence[Field], part: Wanted) -> tuple[tuple[Field, ...], str | None]:
    """The fields of one part of the split, and a remark for the user.

    Raises:
        PromptError: a patient is in two parts, or the part is empty.
    """
    if part == "all":
        return tuple(fields), None
    found = parts_of(fields)[part]
    if any(field.truths for field in found):
        return found, None
    if part == "test":
        return tuple(fields), (
            "The data has no test part: all of it is measured. If a model was trained on it, the "
            "numbers say nothing about other patients. Name the split with --split."
        )
    raise PromptError(f"No object is in the {part} part of the split. Use --part all.")


def limited(fields: Sequence[Field], limit: int | None, seed: int) -> tuple[Chosen, ...]:
    """At most so many objects of each dataset, as evenly from its images as they have them."""
    chosen = tuple(Chosen(field, field.truths) for field in fields if field.truths)
    if limit is None:
        return chosen
    kept: list[Chosen] = []
    for dataset in dict.fromkeys(one.field.dataset for one in chosen):
        kept += _limited([one for one in chosen if one.field.dataset == dataset], limit, seed)
    return tuple(kept)


def _limited(chosen: Sequence[Chosen], limit: int, seed: int) -> list[Chosen]:
    rng = np.random.default_rng(seed)
    turns = [
        (turn, place, int(which), int(index))
        for place, which in enumerate(rng.permutation(len(chosen)))
        for turn, index in enumerate(rng.permutation(len(chosen[which].truths)))
    ]
    kept = {(which, index) for _, _, which, index in sorted(turns)[:limit]}
    own = [
        Chosen(one.field, tuple(t for n, t in enumerate(one.truths) if (which, n) in kept))
        for which, one in enumerate(chosen)
    ]
    return [one for one in own if one.truths]
