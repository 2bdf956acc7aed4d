"""Runs ``segment --table``: each slide of a table by itself, so that any job can be run again."""

from __future__ import annotations

import time
import traceback
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import as_completed
from contextlib import closing
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path

from rich.console import Console

from ..errors import OptionError, OutputError, WsiSamError
from ..files import compute_sha256
from ..inference.workers import WorkerProcesses, assign_devices
from ..options import PROGRESS_STYLE, ModelSpec, OutlineOptions
from ..project.slide_table.rows import Shard, TableRow, read_rows
from ..project.slide_table.status import (
    EmptyResult,
    SlideFiles,
    SlideStatus,
    SlideTakenError,
    now,
    read_states,
    write_summary,
)
from ..report.progress import MessageConsole, count_noun, duration, show_progress, stderr_console
from .inputs_outputs import open_for_reading
from .segment_run import LoadedModel, Outcome, SegmentRequest, describe_inputs, outline_slide


@dataclass(frozen=True)
class TableRequest:
    """What ``segment --table`` is asked to do.

    Attributes:
        table: CSV; see :func:`.read_rows`.
        folder: for the results, a file or more per slide.
        shard: the part of the table that is done here; None is all of it.
        workers: processes that share the work; 0 is this process alone.
        summarize: only sum up what was done, in ``summary.csv``.
        one: what holds for every slide: model, options, and other choices of the command.
    """

    table: Path
    folder: Path
    shard: Shard | None
    workers: int
    summarize: bool
    one: SegmentRequest


@dataclass(frozen=True)
class RowOutcome:
    """What this run did with a row.

    Attributes:
        status: as it is now; None where another process works on the slide.
        is_new: whether something was done now.
    """

    row: TableRow
    status: SlideStatus | None
    is_new: bool

    @property
    def state(self) -> str:
        """For counting."""
        if self.status is None:
            return "taken by another job"
        return self.status.state if self.is_new else "done before"


def run_table(request: TableRequest) -> bool:
    """Outline the slides of a table, or sum up what was done; tell the user on stderr.

    Returns:
        Whether no slide failed and, for a summary, whether all are done.

    Raises:
        WsiSamError: nothing was started, since something is wrong with the table or an option.
    """
    console = stderr_console()
    rows = read_rows(request.table)
    folder = _make_folder(request.folder)
    if request.summarize:
        return _summarize(folder, rows, console)
    wanted = rows if request.shard is None else request.shard.take(rows)
    started = time.perf_counter()
    counts: Counter[str] = Counter()
    with show_progress(console, "Outlining slides", len(wanted)) as progress:
        for outcome in progress.track(_run_all(request, wanted, console)):
            counts[outcome.state] += 1
            _tell(outcome, request.table, console)
    words = ", ".join(f"{number} {state}" for state, number in sorted(counts.items()))
    seconds = duration(time.perf_counter() - started)
    console.print(f"{count_noun(len(wanted), 'slide')}: {words or 'none'}. {seconds}.")
    return not counts["failed"]


def _make_folder(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise OutputError(
            f"{folder} cannot be created ({exc.strerror}): choose another folder."
        ) from exc
    return folder.absolute()


def _summarize(folder: Path, rows: Sequence[TableRow], console: Console) -> bool:
    states = read_states(folder, rows)
    path = write_summary(folder, rows, states)
    counts = Counter(one.state for one in states)
    words = ", ".join(f"{number} {state}" for state, number in sorted(counts.items()))
    console.print(f"{path}: {words}.", markup=False)
    return counts["done"] == len(rows)


def _tell(outcome: RowOutcome, table: Path, console: Console) -> None:
    status = outcome.status
    if status is None or not outcome.is_new:
        return
    if status.state == "failed":
        where = f"{table.name}, line {outcome.row.line}"
        console.print(f"{status.name} failed ({where}): {status.reason}", markup=False)
        return
    console.print(
        f"{status.name}: {status.outlined} outlined, {len(status.empty)} empty, "
        f"{status.skipped} skipped; {status.seconds:.1f} s.",
        markup=False,
    )


def _run_all(
    request: TableRequest, rows: Sequence[TableRow], console: MessageConsole
) -> Iterator[RowOutcome]:
    """Do each row, in this process or in several, and yield what became of it."""
    folder = request.folder.absolute()
    if not request.workers:
        loaded = LoadedModel(request.one.model)
        for row in rows:
            yield run_row(folder, row, request.one, loaded, console)
        return
    models = assign_devices(request.one.model, request.workers)
    with closing(WorkerProcesses(request.workers)) as workers:
        futures = [
            workers.submit(partial(_choose_work, folder, row, request.one, models), row.name)
            for row in rows
        ]
        row_of = dict(zip(futures, rows, strict=True))
        for future in as_completed(futures):
            try:
                yield future.result()
            except WsiSamError as exc:  # the processes ended, again and again
                row = row_of[future]
                status = SlideStatus(row.name, row.slide, "failed", str(exc), ended=now())
                SlideFiles(folder, row.name).write_status(status)
                yield RowOutcome(row, status, is_new=True)


def _choose_work(
    folder: Path, row: TableRow, one: SegmentRequest, models: Sequence[ModelSpec], number: int
) -> partial[RowOutcome]:
    return partial(_run_in_worker, folder, row, replace(one, model=models[number]))


def _run_in_worker(folder: Path, row: TableRow, one: SegmentRequest) -> RowOutcome:
    """Do a row in a worker process, which says nothing: the driver tells what became of it."""
    PROGRESS_STYLE.set("quiet")
    return run_row(folder, row, one, _load_last(one.model), stderr_console())


@lru_cache(maxsize=1)
def _load_last(model: ModelSpec) -> LoadedModel:
    return LoadedModel(model)


def run_row(
    folder: Path, row: TableRow, one: SegmentRequest, loaded: LoadedModel, console: MessageConsole
) -> RowOutcome:
    """Outline one slide, unless that is done or being done; its status says what became of it.

    Raises:
        OutputError: the status cannot be written.
        FormatError: a newer version of this program wrote it.
    """
    files = SlideFiles(folder, row.name)
    try:
        with files.hold():
            return _run_held(files, row, one, loaded, console)
    except SlideTakenError:
        return RowOutcome(row, None, is_new=False)


def _run_held(
    files: SlideFiles,
    row: TableRow,
    one: SegmentRequest,
    loaded: LoadedModel,
    console: MessageConsole,
) -> RowOutcome:
    earlier = files.read_status()
    running = SlideStatus(row.name, row.slide, "running", started=now())
    start = time.perf_counter()
    try:
        request = _make_request(files, row, one)
        inputs = _describe(request, loaded, console)
        if one.resume and _is_done(files, earlier, inputs):
            return RowOutcome(row, earlier, is_new=False)
        running = replace(running, inputs=inputs)
        files.write_status(running)
        outcome = outline_slide(request, loaded, console)
        status = _make_done(files, running, outcome, request.options, loaded)
    except WsiSamError as exc:
        status = replace(running, state="failed", reason=str(exc))
    except Exception as exc:  # noqa: BLE001 - a night's work must not end at one slide
        trace = "".join(traceback.format_exception(exc))
        reason = (
            f"Internal error ({type(exc).__name__}: {exc}). Please report it with this: {trace}"
        )
        status = replace(running, state="failed", reason=reason)
    status = replace(status, ended=now(), seconds=round(time.perf_counter() - start, 3))
    files.write_status(status)
    return RowOutcome(row, status, is_new=True)


def _make_request(files: SlideFiles, row: TableRow, one: SegmentRequest) -> SegmentRequest:
    if not row.prompts.is_file():
        raise OptionError("prompts", f"there is no file {row.prompts}.")
    return replace(
        one,
        slide=row.slide,
        prompts=row.prompts,
        output=files.outlines,
        mpp=one.mpp if row.mpp is None else row.mpp,
        options=row.merge(one.options),
    )


def _describe(
    request: SegmentRequest, loaded: LoadedModel, console: MessageConsole
) -> dict[str, str]:
    with open_for_reading(request.slide, request.mpp, console) as slide:
        return describe_inputs(request, slide, loaded.resolved)


def _is_done(files: SlideFiles, earlier: SlideStatus | None, inputs: dict[str, str]) -> bool:
    """Whether an earlier job made the results of the same inputs, and they are still there."""
    if earlier is None or earlier.state != "done" or dict(earlier.inputs) != inputs:
        return False
    try:
        return compute_sha256(files.outlines) == earlier.output_sha256
    except OSError:
        return False


def _make_done(
    files: SlideFiles,
    running: SlideStatus,
    outcome: Outcome,
    options: OutlineOptions,
    loaded: LoadedModel,
) -> SlideStatus:
    return replace(
        running,
        state="done",
        prompts=len(outcome.prompt_set),
        outlined=outcome.outlined,
        skipped=len(outcome.prompt_set.skipped),
        empty=tuple(_list_empty(outcome, options, loaded)),
        output_sha256=compute_sha256(files.outlines),
    )


def _list_empty(
    outcome: Outcome, options: OutlineOptions, loaded: LoadedModel
) -> Iterable[EmptyResult]:
    reasons = {one.id: one.reason for one in outcome.empty}
    for prompt in outcome.prompt_set.prompts:
        if prompt.id in reasons:
            result_id = loaded.resolved.predict_result_id(prompt, outcome.mpp, options)
            yield EmptyResult(result_id, prompt.id, reasons[prompt.id])
