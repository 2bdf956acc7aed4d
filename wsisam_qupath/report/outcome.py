"""What a batch did: one row per prompt, one outcome per image."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, TypeAlias

from shapely.geometry import MultiPolygon, Polygon, shape

from ..geojson import Feature
from ..geojson.properties import read_path_class, read_plane
from ..geometry import Box, Mpp, unite_boxes
from ..prompts import PathClass, Plane, Prompt, PromptKind

PromptState: TypeAlias = Literal["outlined", "empty", "answered", "reviewed", "skipped"]
"""Outcome of a prompt. ``outlined``: there is a new outline. ``empty``: the model sees nothing
there. ``answered``: an earlier run did it. ``reviewed``: a person took the outline over, so it is
left alone. ``skipped``: no prompt could be made of it."""

Classes: TypeAlias = dict[str, tuple[int, int, int] | None]
"""Colors of classes, RGB, by their names; None lets QuPath choose."""

ImageState: TypeAlias = Literal["done", "nothing to do", "failed"]


@dataclass(frozen=True)
class PromptRow:
    """The outcome of one prompt.

    Attributes:
        prompt_id: QuPath's id of the annotation, if it has one of its own.
        reason: a few words for the user if there is no outline; else empty.
        prompt: None for what was skipped, or found by a search.
        feature: outline as it was written; None if there is no new one.
        is_outdated: whether the result is from an older version of this program, or an encoder of
            another precision, that answers differently.
    """

    prompt_id: str
    state: PromptState
    reason: str = ""
    prompt: Prompt | None = None
    feature: Feature | None = None
    is_outdated: bool = False

    @property
    def path_class(self) -> PathClass | None:
        """The class of the outline as it was written; without an outline, that of the prompt."""
        if self.feature is not None:
            return read_path_class(self.feature["properties"].get("classification"))
        return self.prompt.path_class if self.prompt else None

    @property
    def plane(self) -> Plane:
        """The plane of the prompt in a stack; without a prompt, that of the outline."""
        if self.prompt is not None:
            return self.prompt.plane
        return (
            Plane() if self.feature is None else read_plane(self.feature["geometry"].get("plane"))
        )

    @property
    def l0_outline(self) -> Polygon | MultiPolygon | None:
        """The outline as it was written, level-0 px."""
        return None if self.feature is None else shape(self.feature["geometry"])

    @property
    def l0_bounds(self) -> Box | None:
        """The bounding box of prompt and outline, level-0 px; None if there is neither."""
        boxes = [self.prompt.l0_bounds] if self.prompt else []
        if self.feature is not None:
            boxes.append(Box.around(self.l0_outline))
        return unite_boxes(boxes) if boxes else None


@dataclass(frozen=True)
class Plan:
    """What has to be done for an image.

    Attributes:
        kinds: number of prompts to answer, by kind; those in the journal are left out.
        encodes: number of distinct patches that they are first asked on.
        outlines_left: number of areas that are no prompts, since refining was not asked for.
        beyond_limit: number of prompts that wait for another run, since the user set a limit.
    """

    kinds: Mapping[PromptKind, int] = field(default_factory=dict)
    encodes: int = 0
    outlines_left: int = 0
    beyond_limit: int = 0

    @property
    def prompts(self) -> int:
        return sum(self.kinds.values())

    @property
    def clicked_prompts(self) -> int:
        """How many of the prompts have points."""
        return sum(count for kind, count in self.kinds.items() if kind.has_points)


@dataclass(frozen=True)
class KeptResult:
    """A result not written since QuPath shows its image, with what is needed to add it.

    Attributes:
        feature: feature as :func:`.geojson.to_feature` makes it.
        parent_id: id of the annotation that it goes below.
        replaces: ids of earlier results that are removed when it is added.
    """

    feature: Feature
    parent_id: str
    replaces: tuple[str, ...] = ()


@dataclass(frozen=True)
class ImageOutcome:
    """The outcome of one image.

    Attributes:
        id, name: id and name of the project's entry.
        rows: one row per prompt, except those that are only counted.
        slide: file that was read; None if no reader of ours opens it.
        mpp: pixel size of its level 0; None if it was never opened.
        reason: what is wrong and how to fix it, or how the image was read if that is worth knowing;
            else empty.
        backup: copy of the earlier ``data.qpdata``; None if nothing was written.
        plan: work that the image asked for; none if it could not be read.
        helped_by: name of an option that solves it; see :class:`.WsiSamError`.
        counted: number of prompts that have no row any more, by their state.
        outdated_counted: number of these with an outdated result.
    """

    id: str
    name: str
    state: ImageState
    reason: str = ""
    rows: tuple[PromptRow, ...] = ()
    slide: Path | None = None
    mpp: Mpp | None = None
    seconds: float = 0.0
    backup: Path | None = None
    plan: Plan = field(default_factory=Plan)
    helped_by: str | None = None
    counted: Mapping[PromptState, int] = field(default_factory=dict)
    outdated_counted: int = 0

    def count(self, state: PromptState) -> int:
        """Count the prompts with this state."""
        return Counter(row.state for row in self.rows)[state] + self.counted.get(state, 0)

    def count_outdated(self) -> int:
        """Count the prompts with an outdated result."""
        return sum(row.is_outdated for row in self.rows) + self.outdated_counted

    def list_classes(self) -> Classes:
        """List the classes of the new outlines."""
        classes = (row.path_class for row in self.rows if row.feature is not None)
        return {one.name: one.color for one in classes if one is not None}

    def count_rows(self) -> ImageOutcome:
        """Replace rows by counts, except skipped prompts, which have no outline."""
        counted = [row for row in self.rows if row.state != "skipped"]
        return replace(
            self,
            rows=tuple(row for row in self.rows if row.state == "skipped"),
            counted=Counter(row.state for row in counted),
            outdated_counted=sum(row.is_outdated for row in counted),
        )
