"""The ``batch`` command: options in, a project with detections out."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from datetime import datetime, timezone
from functools import partial

from rich.console import Console

from ...errors import OutputError
from ...inference.executors import DaskExecutor, Executor, LocalExecutor, ProcessExecutor
from ...inference.loading import choose
from ...model.bases import find_base
from ...model.shipped import load_chosen_adapter
from ...model.weights import locate_weights
from ...prompts import Plane, PromptKind
from ...qupath.files.classes import as_spelled
from ...qupath.files.entries import ImageEntry, Project
from ...qupath.files.reading import read_project
from ...qupath.jvm.process import QuPathProcess
from ...report.display import Display, print_outcomes
from ...report.outcome import ImageOutcome
from ...report.progress import points_warning, stderr_console
from ...report.writing import ReportHeader, check_report_path, write_report
from ...slide import Slide
from ...version import VERSION
from ..access import check_closed, choose_images, lock_for_writing
from .config import BatchConfig
from .dry_run import measure_pace, print_plan
from .geojson_folder import GeoJsonFolder
from .opening import SlideOpener
from .request import BatchRequest
from .run import Batch
from .selection import PromptFilter


def run_batch(request: BatchRequest) -> bool:
    """Do what the request says.

    Returns:
        Whether no image failed, nor the report.

    Raises:
        WsiSamError: nothing could start.
    """
    console = stderr_console()
    started_at, started = datetime.now(timezone.utc).astimezone(), time.perf_counter()
    project = read_project(request.project, remap=request.remap)
    if request.report is not None:
        check_report_path(request.report, project=project)
    entries = choose_images(project, request.images)
    config = _make_config(request, project)
    check_closed(project, partial(console.print, markup=False))
    with QuPathProcess() as process:
        opener = SlideOpener(process, project, request.mpp)
        if request.dry_run:
            return _plan(request, config, process, opener, entries, console)
        with lock_for_writing(project, what="batch"):
            outcomes = _run(request, config, process, opener, entries, console)
        seconds = time.perf_counter() - started
        print_outcomes(console, outcomes, seconds)
        _warn_of_points(outcomes, config, console)
        if request.report is not None:
            header = _header(request, config, started_at, seconds)
            by_id = {entry.id: entry for entry in entries}
            open_again = partial(_open_again, opener, by_id)
            try:
                with console.status("Drawing the report"):
                    write_report(request.report, outcomes, header, open_again)
            except OutputError as exc:  # the project has its outlines all the same
                console.print(f"There is no report. {exc}", markup=False)
                return False
            console.print(f"{request.report}: the report.", markup=False)
    return _is_complete(outcomes)


def _make_config(request: BatchRequest, project: Project) -> BatchConfig:
    """All that can be wrong with the options is found here, before any work."""
    base = find_base(request.base)
    adapter = load_chosen_adapter(request.model.adapter, base)
    choose(request.device, request.backend)
    locate_weights(base, path=request.weights)
    return BatchConfig(
        project=project,
        prompt_filter=PromptFilter(
            frozenset(map(as_spelled, request.prompts)),
            request.only,
            request.points_as,
            request.class_name and as_spelled(request.class_name),
            request.keep,
            request.redo,
        ),
        options=request.options,
        base=base,
        adapter=adapter,
        object_type=request.object_type,
        write=request.write,
        export=_export(request, project),
        limit=request.limit,
        plan_only=request.dry_run,
    )


def _export(request: BatchRequest, project: Project) -> GeoJsonFolder | None:
    if request.export is None or request.dry_run:
        return None
    return GeoJsonFolder(request.export, project.images)


def _run(
    request: BatchRequest,
    config: BatchConfig,
    process: QuPathProcess,
    opener: SlideOpener,
    entries: Sequence[ImageEntry],
    console: Console,
) -> list[ImageOutcome]:
    with ExitStack() as executors, Display(console, len(entries)) as display:
        make_local = _make_once(executors, partial(_make_local_executor, request))
        shared = _make_shared_executor(request)
        if shared is not None:
            executors.callback(shared.close)
        batch = Batch(config, process, opener, shared or make_local(), make_local, display)
        return batch.run(entries)


def _make_local_executor(request: BatchRequest) -> Executor:
    return LocalExecutor(request.model, request.options, request.object_type)


def _make_shared_executor(request: BatchRequest) -> Executor | None:
    parts = (request.model, request.options, request.object_type)
    if request.dask:
        return DaskExecutor(*parts, request.dask)
    if request.workers:
        return ProcessExecutor(*parts, request.workers)
    return None


def _make_once(executors: ExitStack, make: Callable[[], Executor]) -> Callable[[], Executor]:
    """Makes an engine when it is first asked for, and closes it with the stack."""
    made: list[Executor] = []

    def executor() -> Executor:
        if not made:
            made.append(make())
            executors.callback(made[0].close)
        return made[0]

    return executor


class _Silent:
    """Watches a dry run, which takes no time."""

    def on_prompts_found(self, tasks: int) -> None:
        """See :class:`.BatchObserver`."""

    def on_prompts_done(self, count: int) -> None:
        """See :class:`.BatchObserver`."""

    def on_notice(self, words: str) -> None:
        """See :class:`.BatchObserver`."""

    def on_image_end(self, outcome: ImageOutcome) -> None:
        """See :class:`.BatchObserver`."""


def _plan(
    request: BatchRequest,
    config: BatchConfig,
    process: QuPathProcess,
    opener: SlideOpener,
    entries: Sequence[ImageEntry],
    console: Console,
) -> bool:
    executor = _make_local_executor(request)
    with console.status("Looking at the images"):
        batch = Batch(config, process, opener, executor, lambda: executor, _Silent())
        outcomes = batch.run(entries)
        needed = any(one.plan.prompts for one in outcomes)
        pace = measure_pace(request.model) if needed else None
    print_plan(Console(highlight=False), outcomes, pace)
    _warn_of_points(outcomes, config, console)
    return _is_complete(outcomes)


def _warn_of_points(
    outcomes: Sequence[ImageOutcome], config: BatchConfig, console: Console
) -> None:
    with_points = (PromptKind.POINTS, PromptKind.BOX_POINTS, PromptKind.OUTLINE_POINTS)
    clicked = sum(one.plan.kinds.get(kind, 0) for one in outcomes for kind in with_points)
    if warning := points_warning(clicked, config.base, config.adapter):
        console.print(warning, markup=False)


def _is_complete(outcomes: Sequence[ImageOutcome]) -> bool:
    return all(one.state != "failed" for one in outcomes)


def _open_again(
    opener: SlideOpener, entries: dict[str, ImageEntry], outcome: ImageOutcome, plane: Plane
) -> Slide:
    return opener.open(entries[outcome.id], plane)


def _header(
    request: BatchRequest, config: BatchConfig, started: datetime, seconds: float
) -> ReportHeader:
    device, backend = choose(request.device, request.backend)
    options = {
        "object size, µm": request.object_size,
        "simplify, µm": request.simplify,
        "smallest part, µm²": request.min_area,
        "results": request.object_type,
        "prompts": ", ".join(request.prompts) or "rectangles and points of any class",
        "only": request.only,
        "class": request.class_name,
    }
    return ReportHeader(
        project=config.project.folder.name,
        version=VERSION,
        base=config.base.name,
        adapter=config.adapter.name if config.adapter else None,
        device=device,
        backend=backend,
        options={name: value for name, value in options.items() if value is not None},
        started=started,
        seconds=seconds,
    )
