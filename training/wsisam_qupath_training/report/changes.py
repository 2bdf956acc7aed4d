"""An object that training changed, with the answers before and after."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Change:
    """One object, answered by the model before and the model after training.

    Attributes:
        dataset, image: names of the dataset and the image.
        object_id: name of the object in its image; QuPath's id for objects of QuPath.
        label: the question, in words.
        before, after: Dice before and after training, percent.
        jpeg: picture of the truth and both answers, side by side.
    """

    dataset: str
    image: str
    object_id: str
    label: str
    before: float
    after: float
    jpeg: bytes
