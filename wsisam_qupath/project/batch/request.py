"""What a user asks a batch for; the names are those of the options."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from ...errors import OptionError
from ...geojson.provenance import ObjectType
from ...inference.options import SegmentOptions
from ...inference.tasks import ModelRequest
from ...prompts import PromptKind
from ...prompts.grouping import PointsAs
from ...slide.calibration import override

Only: TypeAlias = Literal["rectangles", "points", "outlines"]

KINDS: dict[Only, tuple[PromptKind, ...]] = {
    "rectangles": (PromptKind.BOX, PromptKind.BOX_POINTS),
    "points": (PromptKind.POINTS,),
    "outlines": (PromptKind.OUTLINE, PromptKind.OUTLINE_POINTS),
}
"""All kinds of prompts, by the user's words for what is drawn."""


@dataclass(frozen=True)
class BatchRequest(ModelRequest):
    """A project and what is to be done with it.

    Attributes:
        images: names (with * and ?) or entry ids; empty is all.
        prompts: classes whose annotations are prompts, outlines too; empty is rectangles and
            points of any class.
        only: one kind of prompt.
        class_name: of the results; None is the prompt's own.
        keep: leave earlier results where they are, beside the new ones.
        redo: answer again what was answered.
        limit: stop after so many prompts.
        mpp: µm/px of slides that state none.
        remap: (old, new) beginnings of paths, for slides that moved.
        write: whether the project gets the results.
        export: folder for GeoJSON.
        workers: processes that share the work; 0 is this one alone.
        dask: address of a scheduler.

    Raises:
        OptionError: values that do not go together, or are out of their range.
    """

    project: Path
    images: tuple[str, ...] = ()
    prompts: tuple[str, ...] = ()
    only: Only | None = None
    object_type: ObjectType = "detection"
    class_name: str | None = None
    keep: bool = False
    redo: bool = False
    dry_run: bool = False
    limit: int | None = None
    mpp: float | None = None
    remap: tuple[tuple[str, str], ...] = ()
    report: Path | None = None
    export: Path | None = None
    write: bool = True
    points_as: PointsAs = "together"
    object_size: float | None = None
    simplify: float = 0.25
    min_area: float = 10.0
    workers: int = 0
    dask: str | None = None

    def __post_init__(self) -> None:
        if self.mpp is not None:
            override(self.mpp)
        if self.workers and self.dask:
            raise OptionError("--workers and --dask exclude each other: give one of them.")
        if not self.write and self.export is None and self.report is None:
            raise OptionError(
                "--no-write without --export and --report would leave nothing: name a folder with "
                "--export, or a file with --report."
            )
        name = self.class_name
        if name is not None and (
            not all(map(str.strip, name.split(":"))) or "\n" in name or "\r" in name
        ):
            raise OptionError(
                "--class is no name that QuPath takes: give one line of text, with a word on each "
                "side of a colon."
            )

    @property
    def options(self) -> SegmentOptions:
        """The engine's options, checked."""
        return SegmentOptions(self.object_size, self.simplify, self.min_area)
