"""Outline the prompts of a whole project: the ``batch`` command and its Python function."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from functools import partial
from pathlib import Path

from rich.console import Console
from typing_extensions import Unpack

from ... import __version__
from ...errors import OutputError
from ...inference.executors import DaskExecutor, Executor, LocalExecutor, ProcessExecutor
from ...inference.loading import ResolvedModel, resolve
from ...prompts import Plane
from ...qupath.files.classes import spell_class
from ...qupath.files.entries import ImageEntry, Project
from ...qupath.files.reading import read_project
from ...qupath.jvm.process import QuPathProcess
from ...report.display import Display, print_outcomes
from ...report.outcome import ImageOutcome
from ...report.progress import (
    Progress,
    count_noun,
    show_progress,
    stderr_console,
)
from ...report.writing import ReportHeader, check_report_path, write_report
from ...slide import Slide
from ..access import check_closed, choose_images
from ..lock import project_lock
from .config import BatchConfig
from .dry_run import measure_pace, print_plan
from .geojson_folder import GeoJsonFolder
from .opening import SlideOpener
from .request import BatchRequest, ProjectChoices
from .run import Batch
from .searching import FindChoice
from .selection import PromptFilter
from .stored_results import StoredResults
from .table_writer import TableWriter

_PLAIN_PROMPTS = "rectangles and points of any class"


@dataclass(frozen=True)
class BatchOutcome:
    """The outcome of a batch on a whole project.

    Attributes:
        images: one outcome per image, in the order of the project.
        is_complete: whether no image failed and the report, if any, was written.
    """

    images: tuple[ImageOutcome, ...]
    is_complete: bool


def segment_project(
    project: str | os.PathLike[str],
    *,
    report: str | os.PathLike[str] | None = None,
    export: str | os.PathLike[str] | None = None,
    **choices: Unpack[ProjectChoices],
) -> BatchOutcome:
    """Outline the prompts of a QuPath project and write the outlines into it.

    Needs QuPath. Close the project there first. Each image is backed up, then saved completely or
    not at all; what was done goes on where it stopped.

    Args:
        project: the ``.qpproj`` file, or its folder.
        report: file for a report with one row per prompt (.html, .csv or .json).
        export: folder for the outlines as GeoJSON.
        choices: see :class:`.BatchRequest`.

    Raises:
        WsiSamError: nothing was started, since something is wrong with the project or an option.
    """
    request = BatchRequest(
        Path(project),
        report=None if report is None else Path(report),
        export=None if export is None else Path(export),
        **choices,
    )
    return run_batch(request)


def run_batch(request: BatchRequest) -> BatchOutcome:
    """Outline the prompts of a project, and show progress on stderr.

    Raises:
        WsiSamError: nothing was started.
    """
    console, timer = stderr_console(), _Timer()
    if request.dask or request.from_folder is not None:
        request = replace(request, model=request.model.on_any_machine)
    project = read_project(request.project, remap=request.remap)
    if request.report is not None:
        check_report_path(request.report, project=project)
    entries = choose_images(project, request.images)
    model = resolve(request.model)
    config = _make_config(request, project, model)
    check_closed(project, partial(console.print, markup=False))
    with QuPathProcess() as process:
        opener = SlideOpener(process, project, request.mpp)
        work = _ProjectWork(request, model, config, process, opener, entries, console)
        if request.to_table is not None:
            return work.write_table(request.to_table)
        if request.dry_run:
            return work.print_plan()
        with project_lock(project, what="batch"), work.open_batch() as batch:
            outcomes = batch.run(entries)
        print_outcomes(console, outcomes, timer.seconds)
        config.warn_of_points(outcomes, partial(console.print, markup=False))
        is_reported = work.write_report(outcomes, timer)
        return BatchOutcome(tuple(outcomes), is_reported and _is_complete(outcomes))


def _make_config(request: BatchRequest, project: Project, model: ResolvedModel) -> BatchConfig:
    options = request.options
    return BatchConfig(
        project=project,
        prompt_filter=PromptFilter(
            frozenset(map(spell_class, request.prompts)),
            request.only,
            options.points_as,
            options.class_name and spell_class(options.class_name),
            request.keep,
            request.redo,
            options.object_type,
        ),
        options=options,
        model=model,
        write=request.write,
        export=_export(request, project),
        limit=request.limit,
        plan_only=request.dry_run or request.to_table is not None,
        stored=_find_stored(request, project),
        table=None if request.to_table is None else TableWriter(request.to_table, project.images),
        find=_make_find_choice(request),
        keep_rows=request.keep_rows,
    )


def _find_stored(request: BatchRequest, project: Project) -> StoredResults | None:
    if request.from_folder is None:
        return None
    return StoredResults(request.from_folder, project.images, request.options.object_type)


def _make_find_choice(request: BatchRequest) -> FindChoice | None:
    if request.find is None:
        return None
    result_class = request.options.class_name and spell_class(request.options.class_name)
    return FindChoice(spell_class(request.find), result_class, request.min_score, request.redo)


def _export(request: BatchRequest, project: Project) -> GeoJsonFolder | None:
    if request.export is None or request.dry_run:
        return None
    return GeoJsonFolder(request.export, project.images)


def _make_shared_executor(request: BatchRequest) -> Executor | None:
    if request.dask:
        return DaskExecutor(request.model, request.options, request.dask)
    if request.workers:
        return ProcessExecutor(request.model, request.options, request.workers)
    return None


def _make_once(executors: ExitStack, make: Callable[[], Executor]) -> Callable[[], Executor]:
    """Wrap a factory to make its engine on the first call only; the stack closes it."""
    made: list[Executor] = []

    def executor() -> Executor:
        if not made:
            made.append(make())
            executors.callback(made[0].close)
        return made[0]

    return executor


class _Planner:
    """Observes a dry run: how many images were looked at, and what was noticed."""

    def __init__(self, progress: Progress, console: Console | None) -> None:
        self._progress, self._console = progress, console

    def on_prompts_found(self, tasks: int) -> None:
        """See :class:`.BatchObserver`."""

    def on_prompts_done(self, count: int) -> None:
        """See :class:`.BatchObserver`."""

    def on_notice(self, words: str) -> None:
        """See :class:`.BatchObserver`."""
        if self._console is not None:
            self._console.print(words, markup=False)

    def on_image_end(self, outcome: ImageOutcome) -> None:  # noqa: ARG002
        """See :class:`.BatchObserver`."""
        self._progress.advance()


class _Timer:
    """A timer that starts when it is made."""

    def __init__(self) -> None:
        self.started_at, self._started = (
            datetime.now(timezone.utc).astimezone(),
            time.perf_counter(),
        )

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self._started


@dataclass(frozen=True)
class _ProjectWork:
    """What can be done with an open project."""

    request: BatchRequest
    model: ResolvedModel
    config: BatchConfig
    process: QuPathProcess
    opener: SlideOpener
    entries: Sequence[ImageEntry]
    console: Console

    @contextmanager
    def open_batch(self) -> Iterator[Batch]:
        """Open a batch that answers prompts here, in several processes, or on a cluster."""
        with ExitStack() as executors, Display(self.console, len(self.entries)) as display:
            make_local = _make_once(
                executors, partial(LocalExecutor, self.model, self.config.options)
            )
            shared = _make_shared_executor(self.request)
            if shared is not None:
                executors.callback(shared.close)
            yield Batch(
                self.config, self.process, self.opener, shared or make_local(), make_local, display
            )

    def write_table(self, path: Path) -> BatchOutcome:
        """Write the prompts of the project as a table of slides."""
        outcomes = self._look_at(tells_notices=True)
        assert self.config.table is not None
        count = self.config.table.close()
        for one in outcomes:
            if one.state == "failed":
                self.console.print(f"{one.name} failed: {one.reason}", markup=False)
        self.console.print(f"{path}: {count_noun(count, 'slide')} with prompts.", markup=False)
        return BatchOutcome(tuple(outcomes), _is_complete(outcomes))

    def print_plan(self) -> BatchOutcome:
        """Print what there is to do and about how long it takes."""
        outcomes = self._look_at(tells_notices=False)
        with show_progress(self.console, "Measuring how fast the model is here"):
            needed = any(one.plan.prompts for one in outcomes)
            pace = measure_pace(self.model) if needed else None
        print_plan(Console(highlight=False), outcomes, pace)
        self.config.warn_of_points(outcomes, partial(self.console.print, markup=False))
        return BatchOutcome(tuple(outcomes), _is_complete(outcomes))

    def write_report(self, outcomes: Sequence[ImageOutcome], timer: _Timer) -> bool:
        """Write the report if one is wanted; returns False if that failed."""
        path = self.request.report
        if path is None:
            return True
        header = _header(self.request, self.model, self.config, timer.started_at, timer.seconds)
        by_id = {entry.id: entry for entry in self.entries}
        open_again = partial(_open_again, self.opener, by_id)
        try:
            total = sum(one.count("outlined") + one.count("empty") for one in outcomes)
            with show_progress(self.console, "Drawing the report", total) as progress:
                write_report(path, outcomes, header, open_again, progress.advance)
        except OutputError as exc:  # the outlines are in the project all the same
            self.console.print(f"The report was not written. {exc}", markup=False)
            return False
        self.console.print(f"{path}: the report.", markup=False)
        return True

    def _look_at(self, *, tells_notices: bool) -> list[ImageOutcome]:
        """Look at all images and answer nothing."""
        executor = LocalExecutor(self.model, self.config.options)
        with show_progress(self.console, "Looking at images", len(self.entries)) as progress:
            planner = _Planner(progress, self.console if tells_notices else None)
            batch = Batch(
                self.config, self.process, self.opener, executor, lambda: executor, planner
            )
            return batch.run(self.entries)


def _is_complete(outcomes: Sequence[ImageOutcome]) -> bool:
    return all(one.state != "failed" for one in outcomes)


def _open_again(
    opener: SlideOpener, entries: dict[str, ImageEntry], outcome: ImageOutcome, plane: Plane
) -> Slide:
    return opener.open(entries[outcome.id], plane)


def _header(
    request: BatchRequest,
    model: ResolvedModel,
    config: BatchConfig,
    started: datetime,
    seconds: float,
) -> ReportHeader:
    outline = request.options
    options = {
        "object size, µm": outline.object_size_um,
        "simplify, µm": outline.simplify_um,
        "smallest part, µm²": outline.min_area_um2,
        "results": outline.object_type,
        "prompts": None if request.find else ", ".join(request.prompts) or _PLAIN_PROMPTS,
        "find": request.find,
        "only": request.only,
        "class": outline.class_name,
    }
    return ReportHeader(
        project=config.project.folder.name,
        version=__version__,
        base=model.base.name,
        adapter=model.adapter.name if model.adapter else None,
        device=model.device,
        backend=model.backend,
        options={name: value for name, value in options.items() if value is not None},
        started=started,
        seconds=seconds,
    )
