"""Trains an adapter for a client: ``train`` in a process of its own, one at a time.

A process can be stopped at any moment, and goes on from its last checkpoint when the same is asked
again. It is the whole command, so that what it needs, says and refuses is stated there alone.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from ...options import ModelSpec
from ...qupath.install.program import find_command
from ..job_schemas import ENDED, Comparison, TrainingRequest, TrainingStatus
from ..problems import ProblemError, make_busy_problem

_STOP_SECONDS = 20
"""Time that a process has to end when told to; it writes no file in part."""

_LATER_SECONDS = 600
"""Time after which a client may ask again."""

_RESERVED = frozenset({"default", "none"})


@dataclass
class _Run:
    """One training.

    Attributes:
        adapter: adapter file that it writes, with its report beside it.
    """

    status: TrainingStatus
    adapter: Path
    process: subprocess.Popen[str]
    is_unwanted: bool = False
    thread: threading.Thread | None = field(default=None)

    @property
    def report(self) -> Path:
        return self.adapter.with_suffix(".report.html")


class Training:
    """The last training of a server, if any, which may still run.

    Locks: one, held only to look and to change.

    Args:
        model: model that the server answers with; the new adapter is trained from it and compared
            to it.
        folder: private folder of the server's user: ``training`` holds what is being trained,
            ``adapters`` what clients are offered.
        offer: offers an adapter file to requests, by the stem of its name.
        program: command that starts this program.
    """

    def __init__(
        self,
        model: ModelSpec,
        folder: Path,
        offer: Callable[[Path], None],
        program: Sequence[str] = (),
    ) -> None:
        self._model, self._folder, self._offer = model, folder, offer
        self._program = program or find_command()
        self._lock = threading.Lock()
        self._run: _Run | None = None

    def offer_earlier(self) -> None:
        """Offer what earlier trainings on the same base made better."""
        for adapter in sorted(self._offered.glob("*.safetensors")):
            self._offer(adapter)

    def start(
        self, request: TrainingRequest, project: Path, maps: Sequence[tuple[str, str]] = ()
    ) -> TrainingStatus:
        """Start to train on a project.

        Args:
            project: the project as it was found.
            maps: (CLIENT, SERVER) beginnings of paths of slides.

        Raises:
            ProblemError: ``busy``: another one runs; ``invalid``: the name is taken.
        """
        if request.name in _RESERVED:
            raise ProblemError("invalid", f"{request.name} is another model: choose another name.")
        folder = self._folder / "training" / request.name
        adapter = folder / f"{request.name}.safetensors"
        with self._lock:
            if self._run is not None and self._run.status.state not in ENDED:
                raise make_busy_problem(
                    f"{self._run.status.name} is being trained. Wait for its end, or cancel it.",
                    retry_after_s=_LATER_SECONDS,
                )
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            for old in (adapter, adapter.with_suffix(".report.html")):
                old.unlink(missing_ok=True)
            status = TrainingStatus(
                id=str(uuid.uuid4()), state="running", project=str(project), name=request.name
            )
            process = self._begin([str(project), "-o", str(adapter), *_arguments(request, maps)])
            run = self._run = _Run(status, adapter, process)
            run.thread = threading.Thread(target=self._follow, args=(run,), name="training")
            run.thread.start()
        return self.status(status.id)

    def status(self, job_id: str) -> TrainingStatus:
        """Copy the status of the last training.

        Raises:
            ProblemError: ``not-found``: it is another one.
        """
        run = self._find(job_id)
        with self._lock:
            return run.status.model_copy(deep=True)

    def report(self, job_id: str) -> bytes:
        """Read the report of a training, HTML.

        Raises:
            ProblemError: ``not-found``: it has none.
        """
        try:
            return self._find(job_id).report.read_bytes()
        except OSError as exc:
            raise ProblemError("not-found", "This training has no report (yet).") from exc

    def cancel(self, job_id: str) -> TrainingStatus:
        """Stop a training; does nothing where it has ended.

        Raises:
            ProblemError: ``not-found``.
        """
        run = self._find(job_id)
        run.is_unwanted = True
        _stop(run)
        return self.status(job_id)

    def stop(self) -> None:
        """Stop with the server; the same request goes on later."""
        if self._run is not None:
            self._run.is_unwanted = True
            _stop(self._run)

    def _find(self, job_id: str) -> _Run:
        if self._run is None or self._run.status.id != job_id:
            raise ProblemError("not-found", "There is no such training: start it again.")
        return self._run

    @property
    def _offered(self) -> Path:
        return self._folder / "adapters" / self._model.base

    def _begin(self, arguments: Sequence[str]) -> subprocess.Popen[str]:
        model = self._model
        command = [*self._program, "train", *arguments, "--progress", "json", "--base", model.base]
        command += ["--init", "none" if model.adapter is None else str(model.adapter)]
        command += ["--device", model.device]
        command += [] if model.weights is None else ["--weights", str(model.weights)]
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            errors="backslashreplace",
        )
        _lower_priority(process.pid)
        return process

    def _follow(self, run: _Run) -> None:
        """Read the process's events until it ends."""
        assert run.process.stderr is not None
        with run.process.stderr as lines:
            for line in lines:
                with self._lock:
                    _take(run.status, _read_event(line))
        code = run.process.wait()
        with self._lock:
            self._end(run, code)

    def _end(self, run: _Run, code: int) -> None:
        status = run.status
        status.what, status.done, status.total, status.seconds_left = "", None, None, None
        status.has_report = run.report.is_file()
        if run.is_unwanted:
            status.state = "cancelled"
        elif code:
            status.state = "failed"
            status.reason = status.reason or "Training ended early: the server's log may say why."
        else:
            status.state = "done"
            if any(one.says == "better" for one in status.comparisons):
                self._keep(run)

    def _keep(self, run: _Run) -> None:
        """Offer the adapter, now and when a server starts again."""
        try:
            self._offered.mkdir(mode=0o700, parents=True, exist_ok=True)
            kept = Path(shutil.copy(run.adapter, self._offered / run.adapter.name))
        except OSError as exc:
            run.status.state = "failed"
            run.status.reason = f"{run.adapter} is better, but cannot be kept ({exc}): make room."
            return
        self._offer(kept)
        run.status.adapter = kept.stem


def _arguments(request: TrainingRequest, maps: Sequence[tuple[str, str]]) -> list[str]:
    numbers = {"--steps": request.steps, "--views": request.views, "--minutes": request.minutes}
    given = [text for name, n in numbers.items() if n is not None for text in (name, str(n))]
    return [*given, *(text for old, new in maps for text in ("--remap", f"{old}={new}"))]


def _lower_priority(pid: int) -> None:
    """Lower this process's priority, so that clicks come first."""
    with suppress(psutil.Error, OSError):
        if sys.platform == "win32":
            psutil.Process(pid).nice(psutil.BELOW_NORMAL_PRIORITY_CLASS)
        else:
            psutil.Process(pid).nice(10)


def _stop(run: _Run) -> None:
    run.process.terminate()
    try:
        run.process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        run.process.kill()
    if run.thread is not None:
        run.thread.join()


def _read_event(line: str) -> dict[str, Any]:
    """Read an event of ``--progress json``; None for a line that a library wrote."""
    try:
        event = json.loads(line)
    except ValueError:
        event = None
    if isinstance(event, dict) and "event" in event:
        return event
    sys.stderr.write(line)
    return {"event": "other"}


def _take(status: TrainingStatus, event: dict[str, Any]) -> None:
    """Note what an event says."""
    if event["event"] == "progress":
        status.what, status.done, status.total = event["what"], event["done"], event["total"]
        status.seconds_left = event["seconds_left"]
    elif event["event"] == "comparison":
        status.comparisons.append(Comparison.model_validate(event))
    elif event["event"] == "message":
        status.notes.append(event["message"])
    elif event["event"] == "error":
        status.reason = event["reason"]  # clients have no options of the command line
