"""An object that training changed: what was answered before and after."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Change:
    """One object, answered by both models.

    Attributes:
        dataset, image: of the image.
        object_id: names the object in its image; of QuPath's objects, their id.
        label: what was asked, in words.
        before, after: Dice, percent.
        jpeg: the truth and both answers, side by side.
    """

    dataset: str
    image: str
    object_id: str
    label: str
    before: float
    after: float
    jpeg: bytes
