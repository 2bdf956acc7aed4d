"""Runs ``segment --table``: each slide of a table by itself, so that any job can be run again."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, as_completed
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from rich.console import Console

from ..errors import OptionError, WsiSamError
from ..files import make_folder
from ..geojson.geoparquet import check_geoparquet
from ..inference.dask_cluster import DaskCluster
from ..inference.workers import WorkerProcesses, assign_devices
from ..options import ModelSpec
from ..project.slide_table.rows import Shard, TableRow, read_rows
from ..project.slide_table.status import read_states, write_summary
from ..report.progress import MessageConsole, count_noun, duration, show_progress, stderr_console
from .segment_run import LoadedModel, SegmentRequest
from .table_row import RowOutcome, record_loss, run_row, run_row_in_worker


@dataclass(frozen=True)
class TableRequest:
    """The options of ``segment --table``, under the names that they have on the command line.

    Attributes:
        table: CSV file; see :func:`.read_rows`.
        folder: where the results are written, at least one file per slide.
        shard: part of the table that this run does; None is all of it.
        workers: how many processes share the work; 0 is this process alone.
        dask: address of the scheduler of a dask cluster that does the work.
        summarize: whether to only sum up what was done, in ``summary.csv``.
        one: what holds for every slide: model, options, and other choices of the command.

    Raises:
        OptionError: two choices do not go together.
    """

    table: Path
    folder: Path
    shard: Shard | None
    workers: int
    dask: str | None
    summarize: bool
    one: SegmentRequest

    def __post_init__(self) -> None:
        if self.workers and self.dask:
            raise OptionError("workers", "cannot be combined with dask: give one of both.")


def run_table(request: TableRequest) -> bool:
    """Outline the slides of a table, or sum up what was done; show progress on stderr.

    Returns:
        Whether no slide failed and, for a summary, whether all are done.

    Raises:
        WsiSamError: nothing was started, since something is wrong with the table or an option.
    """
    console = stderr_console()
    rows = read_rows(request.table)
    make_folder(request.folder)
    folder = request.folder.absolute()
    if request.summarize:
        return _summarize(folder, rows, console)
    if request.one.format == "geoparquet":
        check_geoparquet()
    wanted = rows if request.shard is None else request.shard.take(rows)
    started = time.perf_counter()
    counts: Counter[str] = Counter()
    with show_progress(console, "Outlining slides", len(wanted)) as progress:
        for outcome in progress.track(_run_all(request, folder, wanted, console)):
            counts[outcome.state] += 1
            _tell(outcome, request.table, console)
    words = ", ".join(f"{number} {state}" for state, number in sorted(counts.items()))
    seconds = duration(time.perf_counter() - started)
    console.print(f"{count_noun(len(wanted), 'slide')}: {words or 'none'}. {seconds}.")
    return not counts["failed"]


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
    request: TableRequest, folder: Path, rows: Sequence[TableRow], console: MessageConsole
) -> Iterator[RowOutcome]:
    """Process each row, here or elsewhere, and yield its outcome."""
    if request.dask is not None:
        yield from _run_on_cluster(request.dask, folder, rows, request.one)
    elif request.workers:
        yield from _run_in_processes(request.workers, folder, rows, request.one)
    else:
        loaded = LoadedModel(request.one.model)
        for row in rows:
            yield run_row(folder, row, request.one, loaded, console)


def _run_in_processes(
    count: int, folder: Path, rows: Sequence[TableRow], one: SegmentRequest
) -> Iterator[RowOutcome]:
    models = assign_devices(one.model, count)
    with closing(WorkerProcesses(count)) as workers:
        row_of = {
            workers.submit(partial(_choose_work, folder, row, one, models), row.name): row
            for row in rows
        }
        yield from _collect(folder, row_of)


def _choose_work(
    folder: Path, row: TableRow, one: SegmentRequest, models: Sequence[ModelSpec], number: int
) -> partial[RowOutcome]:
    return partial(run_row_in_worker, folder, row, replace(one, model=models[number]))


def _run_on_cluster(
    address: str, folder: Path, rows: Sequence[TableRow], one: SegmentRequest
) -> Iterator[RowOutcome]:
    with closing(DaskCluster(address)) as cluster:
        there = replace(one, model=cluster.fit_model(one.model))
        row_of = {
            cluster.submit(partial(run_row_in_worker, folder, row, there)): row for row in rows
        }
        yield from _collect(folder, row_of)


def _collect(folder: Path, row_of: Mapping[Future[RowOutcome], TableRow]) -> Iterator[RowOutcome]:
    """Yield the outcomes of rows in the order in which they end."""
    for future in as_completed(row_of):
        try:
            yield future.result()
        except WsiSamError as exc:  # the processes ended, again and again, or cannot be reached
            yield record_loss(folder, row_of[future], str(exc))
