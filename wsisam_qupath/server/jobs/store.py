"""Project jobs on disk: their requests, progress and results that are not written yet.

``<folder>/<job id>/job.json`` and, for each image of which the results were not written,
``<folder>/<job id>/results/<entry id>.json``. Every file is written whole or not at all. The folder
is its owner's alone: paths of slides may name patients.

One server at a time has the folder. Another one of the same user keeps its jobs in a folder
``other-*`` inside of it, which goes when that server stops.
"""

from __future__ import annotations

import json
import logging
import shutil
import uuid
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from filelock import FileLock, Timeout
from pydantic import BaseModel

from ...errors import FormatError, OutputError
from ...files import write_atomically
from ...files.formats import JOB
from ...geojson import Feature
from ..job_schemas import JobRequest, JobStatus

_LOG = logging.getLogger(__name__)


class StoredJob(BaseModel):
    """A job, as it is stored.

    Attributes:
        tries: how often it was begun.
        client_name: name of the client that asked for it; empty if clients have no names.
    """

    format: int = JOB.number
    request: JobRequest
    status: JobStatus
    tries: int = 0
    client_name: str = ""


class JobStore:
    """The jobs of a server, each in files of its own."""

    def __init__(self, folder: Path) -> None:
        """Only set the folder: no file is touched."""
        self._shared = self._folder = folder
        self._lock = FileLock(folder / "lock", timeout=0, thread_local=False)

    def take(self) -> None:
        """Take the folder for this server, before any other call.

        Raises:
            OutputError: it cannot be made or written.
        """
        self._make_folder(self._shared)
        try:
            self._lock.acquire()
        except Timeout:
            self._folder = self._shared / f"other-{uuid.uuid4()}"
            _LOG.warning(
                "Another server keeps its jobs in %s: those of this end with it", self._shared
            )
        except (OSError, NotImplementedError) as exc:
            raise OutputError(
                f"Jobs cannot be kept in {self._shared} ({exc}): allow writing there."
            ) from exc

    def let_go(self) -> None:
        """Release the folder for another server."""
        self._lock.release()
        if self._folder != self._shared:
            shutil.rmtree(self._folder, ignore_errors=True)

    def load(self) -> list[StoredJob]:
        """Load all jobs, oldest first; unreadable ones are skipped and stay on disk."""
        try:
            paths = list(self._folder.glob("*/job.json"))
        except OSError as exc:
            _LOG.warning("The jobs in %s cannot be read: %s", self._folder, exc)
            return []
        found = [job for job in map(_read, paths) if job is not None]
        return sorted(found, key=lambda job: job.status.created)

    def save(self, job: StoredJob) -> None:
        """Store the current state of a job.

        Raises:
            OutputError: it cannot be written; what was stored before still is.
        """
        folder = self._make_folder(self._path(job.status.id))
        write_atomically(folder / "job.json", job.model_dump_json(by_alias=True).encode())

    def keep(self, job_id: str, entry_id: str, features: Sequence[Feature]) -> int:
        """Store the results of an image, replacing earlier ones.

        Returns:
            How many results of all images there are now.

        Raises:
            OutputError: they cannot be written.
        """
        folder = self._make_folder(self._path(job_id) / "results")
        content = json.dumps(list(features), allow_nan=False, separators=(",", ":"))
        write_atomically(folder / f"{entry_id}.json", content.encode("ascii"))
        return sum(1 for _ in self.results(job_id))

    def results(self, job_id: str) -> Iterator[Feature]:
        """Read all stored results, image by image.

        Raises:
            OSError: it cannot be read.
        """
        for path in sorted((self._path(job_id) / "results").glob("*.json")):
            yield from json.loads(path.read_bytes())

    def remove(self, job_id: str) -> None:
        """Delete a job; files that cannot be deleted no longer count as a job."""
        path = self._path(job_id)
        with suppress(OSError):
            (path / "job.json").unlink(missing_ok=True)
        shutil.rmtree(path, ignore_errors=True)

    def _path(self, job_id: str) -> Path:
        return self._folder / job_id

    def _make_folder(self, folder: Path) -> Path:
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as exc:
            raise OutputError(
                f"The job cannot be kept in {folder} ({exc.strerror}): allow writing there, and "
                "make room on its disk."
            ) from exc
        return folder


def _read(path: Path) -> StoredJob | None:
    try:
        content = path.read_bytes()
        stated = json.loads(content)
        JOB.check(path, stated if isinstance(stated, dict) else {})
        job = StoredJob.model_validate_json(content)
    except (OSError, ValueError, FormatError) as exc:  # ValueError: ValidationError too
        _LOG.warning("The job in %s cannot be read and is left alone: %s", path, exc)
        return None
    return job if job.status.id == path.parent.name else None
