"""Progress of a project job: updated by the batch, read by clients, from any thread."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timezone

from ...errors import escape
from ...geojson import Feature
from ...geojson.properties import unpack_rgb
from ...qupath.files.entries import ImageEntry
from ...report.outcome import ImageOutcome, KeptResult
from ..job_schemas import ImageStatus, JobState, JobStatus, NewClass


def read_clock() -> datetime:
    """Read the current time, UTC."""
    return datetime.now(timezone.utc)


class Progress:
    """Watches a batch; see :class:`.batch.config.BatchObserver`."""

    def __init__(self, status: JobStatus) -> None:
        self._lock = threading.Lock()
        self._status = status
        self._kept: dict[str, int] = {}

    @property
    def state(self) -> JobState:
        """State of the job."""
        return self._status.state

    def status(self) -> JobStatus:
        """Copy the current status."""
        with self._lock:
            status = self._status
            lists = {
                "ended_images": status.ended_images.copy(),
                "failures": status.failures.copy(),
                "notes": status.notes.copy(),
            }
            return status.model_copy(update=lists)

    def begin(self) -> None:
        """Begin again: forget the progress of an earlier try, but not its stored results."""
        with self._lock:
            old = self._status
            self._status = JobStatus(
                id=old.id,
                state="running",
                project=old.project,
                created=old.created,
                started=read_clock(),
                results=old.results,
                notes=old.notes,
            )

    def wait_again(self) -> None:
        """Put a job back into the queue, as its server ended and another one took it over."""
        with self._lock:
            self._status.state = "waiting"
        self.on_notice("The server was started again, and the job goes on where it was.")

    def end(self, state: JobState, reason: str = "") -> None:
        """End the job."""
        with self._lock:
            self._status.state = state
            self._status.ended = read_clock()
            self._status.reason = reason

    def on_images_chosen(self, images: int) -> None:
        """Set the number of chosen images, once the project was read."""
        with self._lock:
            self._status.images = images

    def on_prompts_found(self, tasks: int) -> None:
        """See :class:`.BatchObserver`."""
        with self._lock:
            self._status.prompts += tasks

    def on_prompts_done(self, count: int) -> None:
        """See :class:`.BatchObserver`."""
        with self._lock:
            self._status.prompts_answered += count

    def on_notice(self, words: str) -> None:
        """See :class:`.BatchObserver`."""
        with self._lock:
            if words not in self._status.notes:
                self._status.notes.append(words)

    def on_image_end(self, outcome: ImageOutcome) -> None:
        """See :class:`.BatchObserver`."""
        with self._lock:
            image = _make_status(outcome, is_kept=outcome.id in self._kept)
            self._status.images_ended += 1
            self._status.ended_images.append(image)
            if image.state == "failed":
                self._status.failures.append(image)

    def on_results_kept(self, entry: ImageEntry, count: int, total: int) -> None:
        """Count the results of an image that are stored instead of written.

        Args:
            count: number of results of the image.
            total: number of results of all images.
        """
        with self._lock:
            self._kept[entry.id] = count
            self._status.results = total

    def lacks(self, colors: Mapping[str, int]) -> None:
        """Set the classes that the project's list lacks: packed ARGB, by names."""
        with self._lock:
            self._status.new_classes = [
                NewClass(name=name, color=unpack_rgb(color)) for name, color in colors.items()
            ]


class WhatQuPathShows:
    """The images that QuPath shows of a project; see :class:`.batch.config.OpenProject`.

    Args:
        shown: entry ids of the images that it shows.
        keep: stores the results of an image; returns how many there are of all images.
    """

    def __init__(
        self,
        shown: frozenset[str],
        progress: Progress,
        keep: Callable[[str, Sequence[Feature]], int],
    ) -> None:
        self.shown = shown  # replaced as a whole, from any thread
        self._progress, self._keep = progress, keep

    def shows(self, entry: ImageEntry) -> bool:
        """See :class:`.OpenProject`."""
        return entry.id in self.shown

    def take_results(self, entry: ImageEntry, results: Sequence[KeptResult]) -> None:
        """See :class:`.OpenProject`."""
        total = self._keep(entry.id, [_record(entry, one) for one in results])
        self._progress.on_results_kept(entry, len(results), total)

    def take_classes(self, colors: Mapping[str, int]) -> None:
        """See :class:`.OpenProject`."""
        self._progress.lacks(colors)
        names = ", ".join(escape(name, 100) for name in colors)
        self._progress.on_notice(
            f"The project's class list lacks {names}, and stays as it is while QuPath has the "
            "project open: add what you miss there (Annotations > the three dots > Add/Remove), or "
            "populate the list from existing objects."
        )


def _record(entry: ImageEntry, result: KeptResult) -> Feature:
    """Add members to a feature that tell the client where it belongs; GeoJSON allows this."""
    return {
        **result.feature,
        "image": entry.id,
        "parent": result.parent_id,
        "replaces": list(result.replaces),
    }


def _make_status(outcome: ImageOutcome, *, is_kept: bool) -> ImageStatus:
    return ImageStatus(
        id=outcome.id,
        name=outcome.name,
        state="kept" if is_kept and outcome.state == "done" else outcome.state,
        reason=outcome.reason,
        outlined=outcome.count("outlined"),
        empty=outcome.count("empty"),
        answered=outcome.count("answered"),
        reviewed=outcome.count("reviewed"),
        skipped=outcome.count("skipped"),
    )
