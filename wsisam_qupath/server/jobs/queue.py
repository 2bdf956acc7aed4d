"""The queue of project jobs: one runs at a time, and a restarted server continues them.

Locks: one for all here, held only to look and to change; a job's own things have theirs, which are
taken under it or alone.
"""

from __future__ import annotations

import logging
import threading
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from ...errors import OutputError, WsiSamError
from ...geojson import Feature
from ...project.batch.run import BatchCancelledError
from ..job_schemas import ENDED, JobRequest, JobState, JobStatus
from ..problems import ProblemError, make_busy_problem
from .progress import Progress, WhatQuPathShows, read_clock
from .run import ActiveJob, Cancellation
from .store import JobStore, StoredJob

_LOG = logging.getLogger(__name__)

MOST_WAITING = 16
MOST_KEPT = 100
"""Most jobs that are kept. Ended ones without waiting results make room, oldest first."""

_FULL_SECONDS = 30
"""Time after which a client may ask again whether there is room."""

_MOST_TRIES = 3
"""Times that the server may end during a job before the job counts as the reason."""

Run = Callable[[ActiveJob], None]


@dataclass
class _Job:
    """A job in the queue's list.

    Attributes:
        tries: how often it was begun.
        client_name: name of the client that asked for it.
        shown: images that QuPath shows of the project; None if it does not have it open.
        is_unwanted: whether a client cancelled it.
    """

    request: JobRequest
    progress: Progress
    tries: int = 0
    client_name: str = ""
    shown: WhatQuPathShows | None = None
    cancellation: Cancellation = field(default_factory=Cancellation)
    is_unwanted: bool = False

    @property
    def status(self) -> JobStatus:
        return self.progress.status()


class JobQueue:
    """All project jobs of a server.

    Args:
        folder: folder that jobs are kept in; see :class:`.JobStore`.
        run: runs one job; see :meth:`.JobRunner.run`.
    """

    def __init__(self, folder: Path, run: Run) -> None:
        self._store, self._run = JobStore(folder), run
        self._changed = threading.Condition()
        self._jobs: dict[str, _Job] = {}
        self._stopped = False
        self._thread = threading.Thread(target=self._work, name="jobs", daemon=True)

    def start(self) -> None:
        """Start with the jobs that an earlier server left, and continue with new ones.

        Raises:
            OutputError: jobs cannot be kept there.
        """
        self._store.take()
        with self._changed:
            for stored in self._store.load():
                self._take_up(stored)
        self._thread.start()

    def stop(self) -> None:
        """Accept no more jobs and stop the running one: the next server continues it.

        Call it before :meth:`.DeviceQueue.close`. It takes as long as a piece of work, or the
        writing of an image.
        """
        with self._changed:
            self._stopped = True
            running = [job for job in self._jobs.values() if job.progress.state == "running"]
            self._changed.notify_all()
        for job in running:
            job.cancellation.wish()
        if self._thread.is_alive():
            self._thread.join()
        self._store.let_go()

    def add(self, request: JobRequest, project: Path, client_name: str = "") -> JobStatus:
        """Add a job to the end of the queue.

        Args:
            project: the project as it was found.
            client_name: name of the client that asks for it.

        Raises:
            ProblemError: ``busy``: too many wait, or the server stops.
            OutputError: the job cannot be stored.
        """
        with self._changed:
            self._check_room()
            status = JobStatus(
                id=str(uuid.uuid4()), state="waiting", project=str(project), created=read_clock()
            )
            stored = StoredJob(request=request, status=status, client_name=client_name)
            job = self._known(stored)
            try:
                self._save(job)
            except OutputError:
                del self._jobs[status.id]
                raise
            self._changed.notify_all()
            return status

    def list_all(self) -> list[JobStatus]:
        """List all jobs, oldest first."""
        with self._changed:
            return [job.status for job in self._jobs.values()]

    def status(self, job_id: str) -> JobStatus:
        """Get the status of a job.

        Raises:
            ProblemError: ``not-found``.
        """
        return self._job(job_id).status

    def results(self, job_id: str) -> list[Feature]:
        """Get the results of a job that were not written, so far.

        Raises:
            ProblemError: ``not-found``; ``failed`` where they cannot be read.
        """
        self._job(job_id)
        try:
            return list(self._store.results(job_id))
        except (OSError, ValueError) as exc:
            raise ProblemError(
                "failed",
                f"The results cannot be read ({exc}). Run the job again: they are not computed "
                "again.",
            ) from exc

    def show(self, job_id: str, images: list[str]) -> JobStatus:
        """Replace the set of images that QuPath shows.

        Raises:
            ProblemError: ``not-found``; ``invalid`` where the job was not told that QuPath has the
                project open.
        """
        with self._changed:
            job = self._job(job_id)
            if job.shown is None:
                raise ProblemError(
                    "invalid",
                    "The job was made for a project that is closed. Cancel it, and make another "
                    "one with project_is_open.",
                )
            job.request = job.request.replace_shown(images)
            job.shown.shown = job.request.shown
            self._save_if_possible(job)
            return job.status

    def delete(self, job_id: str) -> JobStatus | None:
        """Cancel a job that has not ended; delete one that has.

        Returns:
            The cancelled job, which may take a moment to stop; None for a forgotten one.

        Raises:
            ProblemError: ``not-found``.
        """
        with self._changed:
            job = self._job(job_id)
            state = job.progress.state
            if state in ENDED:
                del self._jobs[job_id]
                self._store.remove(job_id)
                return None
            job.is_unwanted = True
            if state == "waiting":
                self._end(job, "cancelled")
        job.cancellation.wish()
        return job.status

    def _job(self, job_id: str) -> _Job:
        with self._changed:
            if job_id not in self._jobs:
                raise ProblemError(
                    "not-found", "There is no such job. See /v1/jobs for those that there are."
                )
            return self._jobs[job_id]

    def _take_up(self, stored: StoredJob) -> None:
        """Take over a job of an earlier server."""
        job = self._known(stored)
        if stored.status.state == "running":
            if stored.tries >= _MOST_TRIES:
                self._end(
                    job,
                    "failed",
                    f"The server ended {stored.tries} times in the middle of this job. If memory "
                    "ran out, give it more; then make the job again.",
                )
                return
            job.progress.wait_again()

    def _known(self, stored: StoredJob) -> _Job:
        job = _Job(stored.request, Progress(stored.status), stored.tries, stored.client_name)
        job_id = stored.status.id
        if stored.request.is_open:
            job.shown = WhatQuPathShows(
                stored.request.shown,
                job.progress,
                lambda entry_id, features: self._store.keep(job_id, entry_id, features),
            )
        self._jobs[job_id] = job
        return job

    def _check_room(self) -> None:
        if self._stopped:
            raise make_busy_problem(
                "The server stops. Start it again, then repeat this.", retry_after_s=10
            )
        waiting = sum(job.progress.state == "waiting" for job in self._jobs.values())
        if waiting >= MOST_WAITING:
            raise make_busy_problem(
                f"{waiting} jobs wait already. Try again when some are done, or cancel one.",
                retry_after_s=_FULL_SECONDS,
            )
        if len(self._jobs) < MOST_KEPT:
            return
        for job_id, job in self._jobs.items():
            if job.progress.state in ENDED and not job.status.results:
                del self._jobs[job_id]
                self._store.remove(job_id)
                return
        raise make_busy_problem(
            f"{len(self._jobs)} jobs are kept already, with results that nobody took. Delete some.",
            retry_after_s=_FULL_SECONDS,
        )

    def _save(self, job: _Job) -> None:
        self._store.save(
            StoredJob(
                request=job.request,
                status=job.status,
                tries=job.tries,
                client_name=job.client_name,
            )
        )

    def _work(self) -> None:
        while (job := self._next()) is not None:
            self._do(job)

    def _next(self) -> _Job | None:
        """Wait for the next job and mark it as running; None when the server stops."""

        def waiting() -> list[_Job]:
            return [job for job in self._jobs.values() if job.progress.state == "waiting"]

        with self._changed:
            self._changed.wait_for(lambda: self._stopped or waiting())
            if self._stopped:
                return None
            job = waiting()[0]
            job.progress.begin()
            job.tries += 1
            self._save_if_possible(job)
            return job

    def _do(self, job: _Job) -> None:
        in_hand = ActiveJob(job.request, job.progress, job.shown, job.client_name, job.cancellation)
        state: JobState = "done"
        reason = ""
        try:
            self._run(in_hand)
        except BatchCancelledError:
            state = "cancelled"
        except WsiSamError as exc:
            state, reason = "failed", str(exc)
        except Exception as exc:  # noqa: BLE001 - the other jobs must not end at this one
            _LOG.exception("Job %s", job.status.id)
            state = "failed"
            reason = (
                f"Internal error ({type(exc).__name__}). Please report it and attach the "
                "server's log."
            )
        with self._changed:
            if state != "done" and self._stopped and not job.is_unwanted:
                job.tries -= 1  # the server did not end because of it
                self._save_if_possible(job)
            else:
                self._end(job, state, reason)

    def _end(self, job: _Job, state: JobState, reason: str = "") -> None:
        job.progress.end(state, reason)
        self._save_if_possible(job)

    def _save_if_possible(self, job: _Job) -> None:
        try:
            self._save(job)
        except OutputError as exc:
            _LOG.warning("Job %s cannot be stored: %s", job.status.id, exc)
