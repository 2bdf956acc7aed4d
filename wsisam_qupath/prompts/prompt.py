"""Prompts: each :class:`Prompt` marks one object to outline. Level-0 px throughout."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import TypeAlias

import numpy as np
from shapely.geometry import MultiPolygon, Polygon

from ..errors import PromptError
from ..geometry import Box, FloatArray, find_bounding_box

Point: TypeAlias = tuple[float, float]
"""A point (x, y), level-0 px."""


class PromptKind(str, Enum):
    """Kinds of prompts. An adapter says for each kind which of its decoders answers it."""

    BOX = "box"
    POINT = "point"
    """A single point inside the object: the kind that says least of its size."""
    POINTS = "points"
    BOX_POINTS = "box+points"
    OUTLINE = "outline"
    OUTLINE_POINTS = "outline+points"

    @property
    def has_points(self) -> bool:
        """Whether points belong to it, alone or with a box or an outline."""
        return self not in (PromptKind.BOX, PromptKind.OUTLINE)


@dataclass(frozen=True, slots=True)
class Plane:
    """Position of an object in a stack, as QuPath writes it: channel (-1 is all), z and t."""

    c: int = -1
    z: int = 0
    t: int = 0


@dataclass(frozen=True, slots=True)
class PathClass:
    """A QuPath classification: "Tumor", or "Tumor: Positive" for a derived class.

    ``color`` is RGB, 0 to 255, or None where the file stated none.
    """

    name: str
    color: tuple[int, int, int] | None = None

    @property
    def is_ignored(self) -> bool:
        """Whether QuPath ignores objects of this class: the last part of its name ends in ``*``."""
        return self.name.endswith("*")


@dataclass(frozen=True, slots=True)
class Prompt:
    """One object to outline, marked by a box, outline, earlier result or positive points.

    Attributes:
        id: names the prompt; QuPath's object id, where there is one.
        l0_box: rectangle around the object, level-0 px.
        l0_outline: a coarse outline to refine, valid; its bounding box is used as the box too.
        l0_earlier: an earlier answer that the points correct, valid. They may lie outside of it, so
            its bounding box says nothing; nor does the kind of the prompt.
        l0_positives, l0_negatives: points inside and outside of the object, in the order of the
            clicks.
        l0_background: areas that are no part of any object; they are cut out of the answer.
        path_class, plane: carried over to the result.
        sources: ids of the features that mark the object, its own first.

    Raises:
        PromptError: nothing says where the object is.
    """

    id: str
    l0_box: Box | None = None
    l0_outline: Polygon | MultiPolygon | None = None
    l0_earlier: Polygon | MultiPolygon | None = None
    l0_positives: tuple[Point, ...] = ()
    l0_negatives: tuple[Point, ...] = ()
    l0_background: Polygon | MultiPolygon | None = None
    path_class: PathClass | None = None
    plane: Plane = field(default_factory=Plane)
    sources: tuple[str, ...] = field(default=(), compare=False)

    def __post_init__(self) -> None:
        areas = (self.l0_box, self.l0_outline, self.l0_earlier)
        if not self.l0_positives and all(area is None for area in areas):
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
        is_bare = self.l0_earlier is None and not self.l0_negatives
        is_single = is_bare and len(self.l0_positives) == 1
        return PromptKind.POINT if is_single else PromptKind.POINTS

    @property
    def class_name(self) -> str | None:
        """The name of its class; None without one."""
        return self.path_class.name if self.path_class else None

    @property
    def l0_extent(self) -> Box | None:
        """The box that bounds the object: its own, or its outline's; None for bare points."""
        if self.l0_box is not None:
            return self.l0_box
        return None if self.l0_outline is None else Box.around(self.l0_outline)

    @property
    def l0_earlier_box(self) -> Box | None:
        """The bounding box of the earlier result."""
        return None if self.l0_earlier is None else Box.around(self.l0_earlier)

    @property
    def l0_points(self) -> FloatArray:
        """Positives, then negatives: N x 2 (x, y)."""
        return np.array(self.l0_positives + self.l0_negatives, dtype=np.float64).reshape(-1, 2)

    @property
    def l0_bounds(self) -> Box:
        """The bounding box of everything that marks the object (negative points do not)."""
        boxes = (self.l0_extent, self.l0_earlier_box)
        corners = [box.corners() for box in boxes if box is not None]
        if self.l0_positives:
            corners.append(np.array(self.l0_positives, dtype=np.float64))
        return find_bounding_box(np.concatenate(corners))


@dataclass(frozen=True, slots=True)
class Skipped:
    """A part of the input that cannot be a prompt.

    Attributes:
        id: QuPath's object id, or "feature 3" (counted from 1) where the file gave none.
        reason: a few words for the user, to be read after the id.
    """

    id: str
    reason: str


@dataclass(frozen=True)
class PromptSet:
    """The prompts of an input, in its order, and the parts of it that were skipped."""

    prompts: tuple[Prompt, ...] = ()
    skipped: tuple[Skipped, ...] = ()

    def __iter__(self) -> Iterator[Prompt]:
        return iter(self.prompts)

    def __len__(self) -> int:
        return len(self.prompts)


def require_usable(prompt_set: PromptSet, source: str = "The input") -> PromptSet:
    """Return the set, unless everything in it was skipped.

    Args:
        source: where the prompts come from; begins the message.

    Raises:
        PromptError: something was there, and all of it was skipped.
    """
    if prompt_set.skipped and not prompt_set.prompts:
        first = prompt_set.skipped[0]
        raise PromptError(
            f"{source} holds nothing to segment: {len(prompt_set.skipped)} skipped, first "
            f"{first.id} ({first.reason}). Draw rectangles, points or closed outlines on the "
            "tissue and export them as GeoJSON."
        )
    return prompt_set


def require_all_usable(prompt_set: PromptSet) -> PromptSet:
    """Return the set, unless a part of it was skipped.

    Raises:
        PromptError: some part was skipped.
    """
    for skipped in prompt_set.skipped:
        raise PromptError(f"A prompt cannot be used: {skipped.reason}.")
    return prompt_set


def group_by_plane(prompts: Iterable[Prompt]) -> dict[Plane, list[Prompt]]:
    """Group prompts by their z-slice and time point, whatever their channel."""
    by_plane: dict[Plane, list[Prompt]] = {}
    for prompt in prompts:
        by_plane.setdefault(Plane(z=prompt.plane.z, t=prompt.plane.t), []).append(prompt)
    return by_plane


def clip_to_slide(prompt_set: PromptSet, l0_box: Box) -> PromptSet:
    """Drop what lies outside of the slide: whole prompts, and single points of the others.

    Boxes and outlines that reach over the edge stay as they are.

    Args:
        l0_box: extent of the slide, level-0 px.
    """
    kept: list[Prompt] = []
    skipped = list(prompt_set.skipped)
    for prompt in prompt_set.prompts:
        inside = _clip_prompt(prompt, l0_box)
        if inside is None:
            skipped.append(Skipped(prompt.id, "it lies outside of the slide"))
            continue
        kept.append(inside)
        lost = len(prompt.l0_points) - len(inside.l0_points)
        if lost:
            reason = f"{lost} of its {len(prompt.l0_points)} points outside of the slide left out"
            skipped.append(Skipped(prompt.id, reason))
    return PromptSet(tuple(kept), tuple(skipped))


def _clip_prompt(prompt: Prompt, l0_box: Box) -> Prompt | None:
    extent = prompt.l0_extent or prompt.l0_earlier_box
    if extent is not None:
        shared = extent.intersection(l0_box)
        if shared.width <= 0 or shared.height <= 0:
            return None
    positives = tuple(p for p in prompt.l0_positives if l0_box.contains(*p))
    if extent is None and not positives:
        return None
    negatives = tuple(p for p in prompt.l0_negatives if l0_box.contains(*p))
    if positives == prompt.l0_positives and negatives == prompt.l0_negatives:
        return prompt
    return replace(prompt, l0_positives=positives, l0_negatives=negatives)
