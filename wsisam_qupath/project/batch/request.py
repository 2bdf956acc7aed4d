"""What a user asks a batch to do."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias

from typing_extensions import TypedDict

from ...errors import OptionError
from ...options import MIN_SCORE, ModelSpec, OutlineOptions
from ...prompts import PromptKind
from ...slide.calibration import override

Only: TypeAlias = Literal["rectangles", "points", "outlines"]

Redo: TypeAlias = Literal["all", "outdated"]
"""Which prompts that have a result are outlined again: all, or those of which it is outdated."""

KINDS: dict[Only, tuple[PromptKind, ...]] = {
    "rectangles": (PromptKind.BOX, PromptKind.BOX_POINTS),
    "points": (PromptKind.POINT, PromptKind.POINTS),
    "outlines": (PromptKind.OUTLINE, PromptKind.OUTLINE_POINTS),
}
"""All kinds of prompts, by the user's words for what is drawn."""


@dataclass(frozen=True)
class BatchRequest:
    """A project, and what is to be done with it.

    Attributes:
        images: names (with * and ?) or entry ids; empty is all.
        prompts: classes of the annotations that are prompts, outlines too; empty is rectangles and
            points of any class.
        only: use only this kind of prompt.
        keep: keep earlier results beside the new ones.
        find: class of annotations that are examples: more of them is looked for in each image, in
            place of outlining prompts; None is no search.
        min_score: lowest predicted IoU of what is found.
        redo: outline prompts that have a result already, too; None is none of them.
        dry_run: print what would be done, and change nothing.
        limit: stop after this many prompts.
        mpp: µm/px of slides that state none.
        remap: (old, new) path prefixes, for slides that were moved.
        report: file for the report; None is no report.
        export: folder for the outlines as GeoJSON; None is none.
        write: whether the results are written into the project.
        workers: number of worker processes; 0 is this process alone.
        dask: address of the scheduler of a dask cluster.
        keep_rows: whether the outcome keeps what became of each prompt, with its outline, which
            takes memory; a report needs that.
        from_folder: results of ``segment --table`` to write into the project; nothing is answered.
        to_table: CSV to write the prompts that need a result to; nothing is answered, and the
            project stays as it is.

    Raises:
        OptionError: a value is out of its range, or two do not go together.
    """

    project: Path
    model: ModelSpec = field(default_factory=ModelSpec)
    options: OutlineOptions = field(default_factory=OutlineOptions)
    images: tuple[str, ...] = ()
    prompts: tuple[str, ...] = ()
    only: Only | None = None
    keep: bool = False
    find: str | None = None
    min_score: float = MIN_SCORE
    redo: Redo | None = None
    dry_run: bool = False
    limit: int | None = None
    mpp: float | None = None
    remap: tuple[tuple[str, str], ...] = ()
    report: Path | None = None
    export: Path | None = None
    write: bool = True
    workers: int = 0
    dask: str | None = None
    keep_rows: bool = True
    from_folder: Path | None = None
    to_table: Path | None = None

    def __post_init__(self) -> None:
        if self.mpp is not None:
            override(self.mpp)
        if self.workers and self.dask:
            raise OptionError("workers", "cannot be combined with dask: give one of both.")
        if self.report is not None and not self.keep_rows:
            raise OptionError("keep_rows", "a report needs them: keep them, or name no report.")
        self._check_elsewhere()
        self._check_find()
        if not self.write and self.export is None and self.report is None:
            raise OptionError(
                "write",
                "nothing would be written at all: name a folder to export outlines to, or a file "
                "for a report.",
            )

    def _check_elsewhere(self) -> None:
        """Check that nothing is to be answered here where that happens elsewhere."""
        name = "from_folder" if self.from_folder is not None else "to_table"
        if self.from_folder is None and self.to_table is None:
            return
        others = {
            "workers": self.workers,
            "dask": self.dask,
            "dry_run": self.dry_run,
            "find": self.find,
            "to_table": self.from_folder is not None and self.to_table,
        }
        if self.to_table is not None:
            others |= {"report": self.report, "export": self.export}
        for other, value in others.items():
            if value:
                raise OptionError(name, f"cannot be combined with {other}: give one of both.")

    def _check_find(self) -> None:
        if self.find is None:
            return
        if not self.find.strip() or self.find.endswith("*"):
            raise OptionError("find", "name the class of the examples, which does not end in '*'.")
        given = {"prompts": self.prompts, "only": self.only, "keep": self.keep, "limit": self.limit}
        for name, value in given.items():
            if value:
                raise OptionError(name, "is for prompts, and a search has none: leave it out.")


class ProjectChoices(TypedDict, total=False):
    """Fields of :class:`BatchRequest` for which Python's own values serve as they are."""

    model: ModelSpec
    options: OutlineOptions
    images: tuple[str, ...]
    prompts: tuple[str, ...]
    only: Only | None
    keep: bool
    find: str | None
    min_score: float
    redo: Redo | None
    dry_run: bool
    limit: int | None
    mpp: float | None
    remap: tuple[tuple[str, str], ...]
    write: bool
    workers: int
    dask: str | None
    keep_rows: bool
