"""The batch itself: images are read, answered and written, several of them in hand at a time.

All that happens elsewhere (QuPath's process, the engine's threads, workers) ends as an event in
one queue, and one thread handles them in turn: it alone journals, commits and counts. So nothing
here needs a lock, and an image's failure is met in one place.
"""

from __future__ import annotations

import time
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from pathlib import Path
from queue import Queue
from typing import Any, TypeAlias

from ...errors import ImageError, WsiSamError
from ...geometry import Box
from ...inference.executors import Executor, Work
from ...prompts import Plane, Prompt
from ...prompts.planner import Planner
from ...prompts.results import SerializedResult
from ...qupath.files.classes import add_classes, read_class_names
from ...qupath.files.entries import ImageEntry
from ...qupath.files.integrity import check_count, check_data, check_writable_image, read_versions
from ...qupath.jvm.objects import class_colors, read_image, stage_change
from ...qupath.jvm.process import QuPathProcess
from ...qupath.values import ImageContents, Staged
from ...report.outcome import ImageOutcome
from ..commit import commit, make_staging_path, recover
from ..history import History, Record
from ..journal import Journal
from .config import BatchConfig, BatchObserver
from .image_state import ImageProgress, describe_written
from .opening import SlideOpener
from .selection import select

_IMAGES_READ_AHEAD = 2
"""Contents in memory before the engine needs them."""

Event: TypeAlias = Callable[[], None]


class BatchCancelledError(Exception):
    """A batch was told to stop."""


class Batch:
    """Runs over images; see the module.

    Args:
        executor: answers prompts.
        local: answers prompts on slides that only QuPath opens, and which no worker can; called
            when there are some.
    """

    def __init__(
        self,
        config: BatchConfig,
        process: QuPathProcess,
        opener: SlideOpener,
        executor: Executor,
        local: Callable[[], Executor],
        observer: BatchObserver,
    ) -> None:
        self._config, self._process, self._opener = config, process, opener
        self._executor, self._local, self._observer = executor, local, observer
        self._events: Queue[Event] = Queue()
        self._in_hand: list[ImageProgress] = []
        self._outcomes: dict[str, ImageOutcome] = {}
        self._tasks_taken = 0

    def run(self, entries: Iterable[ImageEntry]) -> list[ImageOutcome]:
        """Answer and write all images; outcomes in their order.

        Raises:
            BatchCancelledError: see :meth:`cancel`. What was written by then stays.
        """
        waiting = deque(entries)
        order = [entry.id for entry in waiting]
        room = self._executor.images_at_once + _IMAGES_READ_AHEAD
        try:
            while waiting or self._in_hand:
                while waiting and len(self._in_hand) < room:
                    self._begin(waiting.popleft())
                if self._in_hand:
                    self._events.get()()
        except BaseException:  # Ctrl-C, cancelled, or a mistake here
            self._process.stop()  # it may be writing
            for image in self._in_hand:
                self._undo(image)
                if image.journal is not None:
                    image.journal.close()
            raise
        outcomes = [self._outcomes[entry_id] for entry_id in order]
        if self._config.write and not self._config.plan_only:
            self._announce_classes(outcomes)
        return outcomes

    def cancel(self) -> None:
        """Have :meth:`run` stop after the step that it is at, each image wholly old or wholly new.

        Called from any thread, also before it runs.
        """
        self._events.put(_cancel)

    def _announce_classes(self, outcomes: Iterable[ImageOutcome]) -> None:
        """Let new classes, also those of earlier runs, reach the project's list.

        Last of all: what the list says, QuPath applies to every image that it reads after.
        """
        project = self._config.project
        known = set(read_class_names(project))
        rows = (row for one in outcomes if one.state != "failed" for row in one.rows if row.feature)
        used = {row.path_class.name: row.path_class.color for row in rows if row.path_class}
        new = {name: color for name, color in used.items() if name not in known}
        if new:
            colors = self._process.run(class_colors, new)
            if self._config.open_project is None:
                add_classes(project, colors)
            else:
                self._config.open_project.take_classes(colors)

    def _begin(self, entry: ImageEntry) -> None:
        image = ImageProgress(entry)
        self._in_hand.append(image)
        self._step(image, self._read)

    def _step(self, image: ImageProgress, step: Callable[..., None], *given: Any) -> None:
        """One step of an image; whatever goes wrong in it ends this image alone."""
        if image.ended:
            return
        try:
            step(image, *given)
        except WsiSamError as exc:
            self._fail(image, str(exc))
        except Exception as exc:  # noqa: BLE001 - a night's work must not end at one image
            reason = f"This program made a mistake ({type(exc).__name__}: {exc}): please report it"
            self._fail(image, f"{reason}{self._write_error_log(image)}.")

    def _fail(self, image: ImageProgress, reason: str) -> None:
        self._undo(image)
        self._end(image, ImageOutcome(image.entry.id, image.entry.name, "failed", reason))

    def _undo(self, image: ImageProgress) -> None:
        """Leave nothing of a change that came to no end, as where QuPath's process died of it."""
        if not self._config.plan_only:
            with suppress(ImageError):  # the next run tries again
                recover(image.entry)

    def _continue_when_done(
        self, future: Future[Any], image: ImageProgress, step: Callable[..., None], *given: Any
    ) -> None:
        event = partial(self._step, image, step, future, *given)
        future.add_done_callback(lambda _: self._events.put(event))

    def _read(self, image: ImageProgress) -> None:
        entry, project = image.entry, self._config.project
        if entry.trouble:
            raise ImageError(entry.trouble)
        if not self._config.plan_only:
            recover(entry)
            if self._config.write and not self._is_shown(image):
                check_writable_image(entry)
        image.versions = read_versions(
            project, entry, with_project=self._config.open_project is None
        )
        if image.versions.qpdata is None:  # never opened in QuPath: nobody drew anything
            self._end(image, image.outcome("nothing to do"))
            return
        image.stated_count = check_data(entry)
        future = self._process.submit(read_image, project.path, entry.id)
        self._continue_when_done(future, image, self._choose)

    def _choose(self, image: ImageProgress, future: Future[ImageContents]) -> None:
        contents = future.result()
        entry, config = image.entry, self._config
        check_count(entry, image.stated_count, contents.n_objects)
        image.n_objects = contents.n_objects
        if not contents.annotations:
            self._end(image, image.outcome("nothing to do"))
            return
        slide = image.slide = self._opener.open(entry)
        identity = slide.identity
        image.slide_key = f"{entry.uri}|{identity.size_bytes}|{identity.mtime_ns}"
        journal_key = f"{image.slide_key}|{config.options.object_type}"
        image.journal = Journal(config.project, entry, journal_key)
        record = History(config.project, entry).read()
        known = record if record.slide_key == image.slide_key else Record(record.written)
        planner = config.planner(slide)
        image.selection = select(
            contents,
            known,
            config.prompt_filter,
            l0_box=slide.l0_box,
            hr_l0_box_of=lambda prompt: _hr_box(planner, prompt),
            result_id_of=partial(config.predict_result_id, slide),
        )
        if config.limit is not None:
            image.limit(config.limit - self._tasks_taken)
        self._tasks_taken += len(image.selection.tasks)
        journaled = image.journal.answers()
        image.recall(journaled, contents)
        image.make_plan(planner)
        if config.plan_only:
            self._end(image, image.outcome("done"))
            return
        if journaled and not (image.answers or image.spare):
            image.journal.clear()  # a kill came between the writing and this
        self._observer.on_prompts_found(len(image.selection.tasks))
        self._observer.on_prompts_done(len(image.answers))
        self._ask(image, planner)

    def _ask(self, image: ImageProgress, planner: Planner) -> None:
        by_plane: dict[tuple[int, int], list[Prompt]] = {}
        for prompt in image.prompts_left():
            by_plane.setdefault((prompt.plane.z, prompt.plane.t), []).append(prompt)
        for (z, t), prompts in by_plane.items():
            slide = self._opener.open(image.entry, Plane(z=z, t=t))
            executor = self._local() if self._opener.is_only_here(slide) else self._executor
            work = Work(slide, tuple(prompts), planner, partial(self._deliver, image))
            image.jobs |= set(executor.submit(work))
        for job in list(image.jobs):
            self._continue_when_done(job, image, self._take)
        if not image.jobs:
            self._write(image)

    def _deliver(self, image: ImageProgress, answer: SerializedResult) -> None:
        """Called from any thread."""
        self._events.put(partial(self._step, image, self._record, [answer]))

    def _record(self, image: ImageProgress, answers: Sequence[SerializedResult]) -> None:
        assert image.journal is not None
        image.journal.append(answers)
        image.answers |= {answer.id: answer for answer in answers}
        self._observer.on_prompts_done(len(answers))

    def _take(self, image: ImageProgress, job: Future[Sequence[SerializedResult]]) -> None:
        self._record(image, job.result())
        image.jobs.discard(job)
        if not image.jobs:
            self._write(image)

    def _write(self, image: ImageProgress) -> None:
        config, entry = self._config, image.entry
        if config.export is not None:
            config.export.write(entry, image.rows())
        make_placed_objects = image.make_placed_objects()
        if not config.write or not image.selection.tasks:
            self._end(image, image.outcome("done" if make_placed_objects else "nothing to do"))
            return
        # Before the results: a record of what is not there yet does no harm, the reverse would.
        history = History(config.project, entry)
        aside = history.add(
            map(describe_written, make_placed_objects), image.empty(), image.slide_key
        )
        if aside is not None:
            self._observer.on_notice(
                f"What was known of earlier results in {entry.name} could not be read, and was put "
                f"aside as {aside}. A result that was turned into an annotation may be taken for "
                "somebody's own."
            )
        if not make_placed_objects:
            self._finish(image, None)
            return
        if self._is_shown(image):
            self._hand_over(image)
            return
        future = self._process.submit(
            stage_change, config.project.path, entry.id, image.change(), make_staging_path(entry)
        )
        self._continue_when_done(future, image, self._commit)

    def _commit(self, image: ImageProgress, future: Future[Staged]) -> None:
        assert image.versions is not None
        staged = future.result()
        if self._is_shown(image):  # since a moment ago
            self._undo(image)
            self._hand_over(image)
            return
        backup = commit(self._config.project, image.entry, staged, image.versions)
        self._finish(image, backup)

    def _is_shown(self, image: ImageProgress) -> bool:
        open_project = self._config.open_project
        return open_project is not None and open_project.shows(image.entry)

    def _hand_over(self, image: ImageProgress) -> None:
        """Keep the results for QuPath to add.

        They stay in the journal too: should nobody add them, the next run has only to write them.
        """
        assert self._config.open_project is not None
        self._config.open_project.take_results(image.entry, image.list_kept_results())
        self._end(image, image.outcome("done"))

    def _finish(self, image: ImageProgress, backup: Path | None) -> None:
        assert image.journal is not None
        image.journal.clear()
        image.journal.append(image.spare)
        self._end(image, image.outcome("done", backup))

    def _end(self, image: ImageProgress, outcome: ImageOutcome) -> None:
        image.ended = True
        if image.journal is not None:
            image.journal.close()
        for job in image.jobs:
            job.cancel()
        self._in_hand.remove(image)
        self._outcomes[image.entry.id] = outcome
        self._observer.on_image_end(outcome)

    def _write_error_log(self, image: ImageProgress) -> str:
        """Where the mistake that is being handled is described, if that could be written."""
        path = self._config.project.own_folder / "mistakes.log"
        with suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("a", encoding="utf-8") as file:
                file.write(f"{time.ctime()} {image.entry.name}\n{traceback.format_exc()}\n")
            return f", with what stands in {path}"
        return ""


def _cancel() -> None:
    raise BatchCancelledError


def _hr_box(planner: Planner, prompt: Prompt) -> Box:
    return planner.pair(prompt).hr_l0_box
