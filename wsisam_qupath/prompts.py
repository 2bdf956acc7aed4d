"""What a user points at: one :class:`Prompt` is one object to outline. Level-0 px throughout."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import TypeAlias

import numpy as np
import shapely
from shapely.geometry import MultiPolygon, Polygon

from .errors import PromptError
from .geometry import Box, FloatArray, bounding_box

Point: TypeAlias = tuple[float, float]
"""(x, y), level-0 px."""


class PromptKind(str, Enum):
    """What a prompt is made of. An adapter says for each kind which weights answer it."""

    BOX = "box"
    POINTS = "points"
    BOX_POINTS = "box+points"
    OUTLINE = "outline"
    OUTLINE_POINTS = "outline+points"


@dataclass(frozen=True)
class Plane:
    """Where an object lies in a stack, as QuPath writes it: channel (-1 is all), z and t."""

    c: int = -1
    z: int = 0
    t: int = 0


@dataclass(frozen=True)
class PathClass:
    """A QuPath classification: "Tumor", or "Tumor: Positive" for a derived class.

    ``color`` is RGB, 0 to 255, or None where the file stated none.
    """

    name: str
    color: tuple[int, int, int] | None = None


@dataclass(frozen=True)
class Prompt:
    """One object to outline. At least one of box, outline and positive points is there.

    Attributes:
        id: names the prompt; QuPath's object id, where there is one.
        l0_box: a rectangle round the object.
        l0_outline: a coarse outline to refine, valid; its bounding box is used as the box too.
        l0_positives, l0_negatives: points inside and outside of the object, in the order of the
            clicks.
        path_class, plane: carried over to the result.

    Raises:
        PromptError: nothing says where the object is.
    """

    id: str
    l0_box: Box | None = None
    l0_outline: Polygon | MultiPolygon | None = None
    l0_positives: tuple[Point, ...] = ()
    l0_negatives: tuple[Point, ...] = ()
    path_class: PathClass | None = None
    plane: Plane = field(default_factory=Plane)

    def __post_init__(self) -> None:
        if self.l0_box is None and self.l0_outline is None and not self.l0_positives:
            raise PromptError(
                f"Prompt {self.id} has no box, outline or positive point: negative points alone "
                "do not say where the object is."
            )

    @property
    def kind(self) -> PromptKind:
        clicked = bool(self.l0_positives or self.l0_negatives)
        if self.l0_outline is not None:
            return PromptKind.OUTLINE_POINTS if clicked else PromptKind.OUTLINE
        if self.l0_box is not None:
            return PromptKind.BOX_POINTS if clicked else PromptKind.BOX
        return PromptKind.POINTS

    @property
    def l0_extent(self) -> Box | None:
        """The box that bounds the object: its own, or its outline's; None for bare points."""
        if self.l0_box is not None:
            return self.l0_box
        if self.l0_outline is not None:
            return Box(*shapely.bounds(self.l0_outline).tolist())
        return None

    @property
    def l0_points(self) -> FloatArray:
        """Positives, then negatives: N x 2 (x, y)."""
        return np.array(self.l0_positives + self.l0_negatives, dtype=np.float64).reshape(-1, 2)

    @property
    def l0_bounds(self) -> Box:
        """The box round everything that says where the object is (negatives do not)."""
        extent = self.l0_extent
        corners = [extent.corners()] if extent else []
        if self.l0_positives:
            corners.append(np.array(self.l0_positives, dtype=np.float64))
        return bounding_box(np.concatenate(corners))
