"""One slide of a table: outlined unless that is done, under a lock, with a status that says it."""

from __future__ import annotations

import threading
import time
import traceback
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from ..errors import OptionError, WsiSamError
from ..files import compute_sha256, read_json
from ..geojson import Feature
from ..options import (
    FORMAT_ENDINGS,
    GEOJSON_ENDINGS,
    LABELS_ENDING,
    PROGRESS_STYLE,
    ModelSpec,
    OutlineOptions,
)
from ..project.slide_table.rows import TableRow
from ..project.slide_table.status import EmptyResult, SlideFiles, SlideStatus, SlideTakenError, now
from ..report.progress import MessageConsole, stderr_console
from ..slide import Slide
from .inputs_outputs import open_for_reading
from .outline_files import write_labels_of, write_outlines
from .segment_run import LoadedModel, Outcome, SegmentRequest, describe_inputs, outline_slide


@dataclass(frozen=True)
class RowOutcome:
    """What this run did with a row.

    Attributes:
        status: what is known of the slide now; None while another process works on it.
        is_new: whether this run did something for the slide.
    """

    row: TableRow
    status: SlideStatus | None
    is_new: bool

    @property
    def state(self) -> str:
        """The state of the row, by which rows are counted."""
        if self.status is None:
            return "taken by another job"
        return self.status.state if self.is_new else "done before"


def run_row(
    folder: Path, row: TableRow, one: SegmentRequest, loaded: LoadedModel, console: MessageConsole
) -> RowOutcome:
    """Outline one slide, unless that is done or under way; its status tells the outcome.

    Args:
        folder: where the results are written.
        one: what holds for every slide of the table.

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


def run_row_in_worker(folder: Path, row: TableRow, one: SegmentRequest) -> RowOutcome:
    """Do a row in a worker process, which prints nothing: the driver reports the outcome.

    A process keeps its last model for the next row; its threads share it.

    Raises:
        WsiSamError: see :func:`run_row`, and :func:`.resolve`.
    """
    PROGRESS_STYLE.set("quiet")
    with _choosing:
        loaded = _load_last(one.model)
    return run_row(folder, row, one, loaded, stderr_console())


_choosing = threading.Lock()


@lru_cache(maxsize=1)
def _load_last(model: ModelSpec) -> LoadedModel:
    return LoadedModel(model)


def record_loss(folder: Path, row: TableRow, reason: str) -> RowOutcome:
    """Record a row as failed when its worker cannot: it has ended, or cannot be reached.

    A status that says that the slide is done stays, since the worker may have ended after that.

    Raises:
        OutputError: the status cannot be written.
        FormatError: a newer version of this program wrote it.
    """
    files = SlideFiles(folder, row.name)
    failed = SlideStatus(row.name, row.slide, "failed", reason, ended=now())
    try:
        with files.hold():
            earlier = files.read_status()
            if earlier is None or earlier.state != "done":
                files.write_status(failed)
    except SlideTakenError:  # the worker goes on, and will say what became of it
        return RowOutcome(row, None, is_new=False)
    return RowOutcome(row, failed, is_new=True)


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
        with open_for_reading(request.slide, request.mpp, console) as slide:
            inputs = describe_inputs(request, slide, loaded.resolved)
            if one.resume and earlier is not None and _is_of(earlier, inputs):
                completed = _complete(files, earlier, _list_endings(request), slide)
                if completed is not None:
                    if is_new := completed != earlier:
                        files.write_status(completed)
                    return RowOutcome(row, completed, is_new)
        running = replace(running, inputs=inputs)
        files.write_status(running)
        outcome = outline_slide(request, loaded, console)
        status = _make_done(files, running, outcome, request, loaded)
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
        output=files.path(FORMAT_ENDINGS[one.format or "geojson"]),
        mpp=one.mpp if row.mpp is None else row.mpp,
        options=row.merge(one.options),
    )


def _list_endings(request: SegmentRequest) -> list[str]:
    """List how the names of the files end that a slide is to get, except its status."""
    return [FORMAT_ENDINGS[request.format or "geojson"], *[LABELS_ENDING] * request.labels]


def _is_of(earlier: SlideStatus, inputs: dict[str, str]) -> bool:
    """Check whether an earlier job made its results from the same inputs."""
    return earlier.state == "done" and dict(earlier.inputs) == inputs


def _complete(
    files: SlideFiles, earlier: SlideStatus, wanted: Sequence[str], slide: Slide
) -> SlideStatus | None:
    """Add missing outputs to those of an earlier job, without the model.

    Args:
        wanted: endings of the names of the files that the slide is to get.

    Returns:
        Its status with them; None where its outlines are gone or cannot be read back.
    """
    intact = files.find_intact(earlier)
    lacking = [ending for ending in wanted if ending not in intact]
    if not lacking:
        return earlier
    source = next((ending for ending in GEOJSON_ENDINGS if ending in intact), None)
    if source is None:
        return None
    document: Any = read_json(files.path(source), fix="Run its job again.")
    features: Sequence[Feature] = document["features"]
    for ending in lacking:
        if ending == LABELS_ENDING:
            write_labels_of(files.path(ending), features, slide)
        else:
            write_outlines(files.path(ending), features)
    return replace(earlier, outputs={**intact, **_hash_outputs(files, lacking)})


def _hash_outputs(files: SlideFiles, endings: Iterable[str]) -> dict[str, str]:
    return {ending: compute_sha256(files.path(ending)) for ending in endings}


def _make_done(
    files: SlideFiles,
    running: SlideStatus,
    outcome: Outcome,
    request: SegmentRequest,
    loaded: LoadedModel,
) -> SlideStatus:
    return replace(
        running,
        state="done",
        prompts=len(outcome.prompt_set),
        outlined=outcome.outlined,
        skipped=len(outcome.prompt_set.skipped),
        empty=tuple(_list_empty(outcome, request.options, loaded)),
        outputs=_hash_outputs(files, _list_endings(request)),
    )


def _list_empty(
    outcome: Outcome, options: OutlineOptions, loaded: LoadedModel
) -> Iterable[EmptyResult]:
    reasons = {one.id: one.reason for one in outcome.empty}
    for prompt in outcome.prompt_set.prompts:
        if prompt.id in reasons:
            result_id = loaded.resolved.predict_result_id(prompt, outcome.mpp, options)
            yield EmptyResult(result_id, prompt.id, reasons[prompt.id])
