"""The ``batch`` command: options in, a project with detections out."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from datetime import datetime, timezone
from functools import partial

from rich.console import Console

from ..console import stderr_console
from ..errors import OutputError
from ..loading import choose
from ..model.bases import find_base
from ..model.shipped import chosen_adapter
from ..model.weights import locate_weights
from ..project.access import check_closed, choose_images, writing
from ..project.classes import as_spelled
from ..project.entries import ImageEntry, Project
from ..project.reading import read_project
from ..prompts import Plane, PromptKind
from ..qupath.process import QuPathProcess
from ..segment_command import points_warning
from ..slide import Slide
from ..version import VERSION
from .display import Display, print_outcomes
from .dry_run import measure_pace, print_plan
from .engines import DaskEngine, Engine, LocalEngine, ProcessEngine
from .export import GeoJsonFolder
from .opening import SlideOpener
from .outcome import ImageOutcome
from .report import ReportHeader, check_report_path, write_report
from .request import BatchRequest
from .run import Batch
from .selection import Rules
from .setting import Setting


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
    setting = _setting(request, project)
    check_closed(project, partial(console.print, markup=False))
    with QuPathProcess() as process:
        opener = SlideOpener(process, project, request.mpp)
        if request.dry_run:
            return _plan(request, setting, process, opener, entries, console)
        with writing(project, what="batch"):
            outcomes = _run(request, setting, process, opener, entries, console)
        seconds = time.perf_counter() - started
        print_outcomes(console, outcomes, seconds)
        _warn_of_points(outcomes, setting, console)
        if request.report is not None:
            header = _header(request, setting, started_at, seconds)
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


def _setting(request: BatchRequest, project: Project) -> Setting:
    """All that can be wrong with the options is found here, before any work."""
    base = find_base(request.base)
    adapter = chosen_adapter(request.model.adapter, base)
    choose(request.device, request.backend)
    locate_weights(base, path=request.weights)
    return Setting(
        project=project,
        rules=Rules(
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
    setting: Setting,
    process: QuPathProcess,
    opener: SlideOpener,
    entries: Sequence[ImageEntry],
    console: Console,
) -> list[ImageOutcome]:
    with ExitStack() as engines, Display(console, len(entries)) as display:
        make_local = _once(engines, partial(_local_engine, request))
        shared = _shared_engine(request)
        if shared is not None:
            engines.callback(shared.close)
        batch = Batch(setting, process, opener, shared or make_local(), make_local, display)
        return batch.run(entries)


def _local_engine(request: BatchRequest) -> Engine:
    return LocalEngine(request.model, request.options, request.object_type)


def _shared_engine(request: BatchRequest) -> Engine | None:
    parts = (request.model, request.options, request.object_type)
    if request.dask:
        return DaskEngine(*parts, request.dask)
    if request.workers:
        return ProcessEngine(*parts, request.workers)
    return None


def _once(engines: ExitStack, make: Callable[[], Engine]) -> Callable[[], Engine]:
    """Makes an engine when it is first asked for, and closes it with the stack."""
    made: list[Engine] = []

    def engine() -> Engine:
        if not made:
            made.append(make())
            engines.callback(made[0].close)
        return made[0]

    return engine


class _Silent:
    """Watches a dry run, which takes no time."""

    def found(self, tasks: int) -> None:
        """See :class:`.Watcher`."""

    def answered(self, count: int) -> None:
        """See :class:`.Watcher`."""

    def noticed(self, words: str) -> None:
        """See :class:`.Watcher`."""

    def ended(self, outcome: ImageOutcome) -> None:
        """See :class:`.Watcher`."""


def _plan(
    request: BatchRequest,
    setting: Setting,
    process: QuPathProcess,
    opener: SlideOpener,
    entries: Sequence[ImageEntry],
    console: Console,
) -> bool:
    engine = _local_engine(request)
    with console.status("Looking at the images"):
        batch = Batch(setting, process, opener, engine, lambda: engine, _Silent())
        outcomes = batch.run(entries)
        needed = any(one.plan.prompts for one in outcomes)
        pace = measure_pace(request.model) if needed else None
    print_plan(Console(highlight=False), outcomes, pace)
    _warn_of_points(outcomes, setting, console)
    return _is_complete(outcomes)


def _warn_of_points(outcomes: Sequence[ImageOutcome], setting: Setting, console: Console) -> None:
    with_points = (PromptKind.POINTS, PromptKind.BOX_POINTS, PromptKind.OUTLINE_POINTS)
    clicked = sum(one.plan.kinds.get(kind, 0) for one in outcomes for kind in with_points)
    if warning := points_warning(clicked, setting.base, setting.adapter):
        console.print(warning, markup=False)


def _is_complete(outcomes: Sequence[ImageOutcome]) -> bool:
    return all(one.state != "failed" for one in outcomes)


def _open_again(
    opener: SlideOpener, entries: dict[str, ImageEntry], outcome: ImageOutcome, plane: Plane
) -> Slide:
    return opener.open(entries[outcome.id], plane)


def _header(
    request: BatchRequest, setting: Setting, started: datetime, seconds: float
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
        project=setting.project.folder.name,
        version=VERSION,
        base=setting.base.name,
        adapter=setting.adapter.name if setting.adapter else None,
        device=device,
        backend=backend,
        options={name: value for name, value in options.items() if value is not None},
        started=started,
        seconds=seconds,
    )
