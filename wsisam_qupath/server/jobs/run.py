"""Runs one project job: a ``batch`` with the server's model, while QuPath may be open."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field

from ...errors import DeviceError
from ...inference.segmenter import Segmenter
from ...project.access import check_closed
from ...project.batch.config import BatchConfig
from ...project.batch.opening import SlideOpener
from ...project.batch.run import Batch, BatchCancelledError
from ...project.batch.selection import PromptFilter
from ...project.lock import project_lock
from ...qupath.files.classes import spell_class
from ...qupath.files.entries import Project
from ...qupath.jvm.process import QuPathProcess
from ...report.display import outdated_notice
from ..job_schemas import JobRequest
from ..loading import ModelLoader
from ..queue import DeviceQueue
from .access import JobAccess
from .executor import SharedExecutor
from .progress import Progress, WhatQuPathShows

_COMMAND = "project job"
"""Name of a job in messages of other commands."""

_LOOK_SECONDS = 0.2
"""How often a job that waits for the model checks whether it was cancelled."""


class Cancellation:
    """A request to stop a job."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._wished = threading.Event()
        self._actions: list[Callable[[], None]] = []

    def wish(self) -> None:
        """Request the stop; does nothing the second time."""
        with self._lock:
            actions, self._actions = self._actions, []
            self._wished.set()
        for action in actions:
            action()

    def then(self, action: Callable[[], None]) -> None:
        """Call a function when the stop is requested, or at once if it was."""
        with self._lock:
            if not self._wished.is_set():
                self._actions.append(action)
                return
        action()

    def wait(self, seconds: float) -> bool:
        """Wait; tell whether the stop is requested before the time is over."""
        return self._wished.wait(seconds)


@dataclass(frozen=True)
class ActiveJob:
    """A job that is about to run.

    Attributes:
        shown: images that QuPath shows of the project; None if it does not have it open.
        client_name: name of the client that asked for it, for the provenance of the results.
    """

    request: JobRequest
    progress: Progress
    shown: WhatQuPathShows | None
    client_name: str = ""
    cancellation: Cancellation = field(default_factory=Cancellation)


@dataclass(frozen=True)
class JobRunner:
    """Runs jobs with the server's model, one at a time."""

    loader: ModelLoader
    device_queue: DeviceQueue
    access: JobAccess

    def run(self, job: ActiveJob) -> None:
        """Run a job.

        Raises:
            BatchCancelledError: somebody wished so.
            WsiSamError: it could not start.
        """
        project, entries = self.access.open(job.request)
        job.progress.on_images_chosen(len(entries))
        if job.shown is None:
            check_closed(project, job.progress.on_notice)
        with QuPathProcess() as process, project_lock(project, what=_COMMAND):
            segmenter = self._segmenter(job.cancellation)
            config = _make_config(job, project, segmenter)
            opener = SlideOpener(process, project, job.request.mpp, self.access.files.open_slide)
            executor = SharedExecutor(segmenter, self.device_queue, config.options, job.client_name)
            with closing(executor):
                batch = Batch(config, process, opener, executor, lambda: executor, job.progress)
                job.cancellation.then(batch.cancel)
                outcomes = batch.run(entries)
        config.warn_of_points(outcomes, job.progress.on_notice)
        if notice := outdated_notice(outcomes):
            job.progress.on_notice(notice)

    def _segmenter(self, cancellation: Cancellation) -> Segmenter:
        """Wait for the model."""
        while self.loader.state == "loading":
            if cancellation.wait(_LOOK_SECONDS):
                raise BatchCancelledError
        if self.loader.loaded is None:
            raise DeviceError(f"The model cannot be loaded. {self.loader.failure}")
        return self.loader.loaded


def _make_config(job: ActiveJob, project: Project, segmenter: Segmenter) -> BatchConfig:
    request, options = job.request, job.request.options.outline
    class_name = options.class_name and spell_class(options.class_name)
    return BatchConfig(
        project=project,
        prompt_filter=PromptFilter(
            classes=frozenset(map(spell_class, request.prompts)),
            points_as=options.points_as,
            class_name=class_name,
            redo=request.redo_choice,
            object_type=options.object_type,
        ),
        options=options,
        model=segmenter.model,
        command=_COMMAND,
        open_project=job.shown,
        keep_rows=False,
    )
