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
"""Which prompts with a result are outlined again: all, or those with an outdated one."""

KINDS: dict[Only, tuple[PromptKind, ...]] = {
    "rectangles": (PromptKind.BOX, PromptKind.BOX_POINTS),
    "points": (PromptKind.POINT, PromptKind.POINTS),
    "outlines": (PromptKind.OUTLINE, PromptKind.OUTLINE_POINTS),
}
"""Kinds of prompts by the words that users have for what is drawn."""


@dataclass(frozen=True)
class BatchRequest:
    """The options of ``batch``, under the names that they have on the command line.

    Attributes:
        images: names (with wildcards * and ?) or entry ids; empty is all.
        prompts: classes of the annotations that are prompts, outlines too; empty is rectangles and
            points of any class.
        only: use only this kind of prompt.
        keep: whether earlier results are kept beside the new ones.
        find: class of annotations that are examples: similar objects are searched for in each
            image, and no prompts are outlined; None is no search.
        min_score: lowest predicted IoU of what is found.
        redo: prompts with a result that are outlined again; None is none of them.
        dry_run: whether only to print what would be done, and change nothing.
        limit: largest number of prompts to answer; None is all.
        mpp: pixel size of slides that state none, µm/px.
        remap: (old, new) path prefixes, for slides that were moved.
        report: file for the report; None is no report.
        export: folder for the outlines as GeoJSON; None is none.
        write: whether the results are written into the project.
        workers: number of worker processes; 0 is this process alone.
        dask: address of the scheduler of a dask cluster.
        keep_rows: whether the outcome keeps a row per prompt, with its outline, which takes memory;
            a report needs that.
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
        """Check that the options fit together if the prompts are answered elsewhere."""
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
    """Fields of :class:`BatchRequest` that take Python's own values as they are."""

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
