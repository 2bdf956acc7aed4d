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

from ..errors import ImageError, WsiSamError
from ..geometry import Box
from ..planning import Planner
from ..project.classes import add_classes, read_class_names
from ..project.commit import commit, recover, staging_path
from ..project.entries import ImageEntry
from ..project.guards import (
    check_count,
    check_data,
    check_writable_image,
    take_stamps,
)
from ..project.journal import Journal
from ..project.ledger import Ledger, Record
from ..prompts import Plane, Prompt
from ..qupath.objects import class_colors, read_image, stage_change
from ..qupath.process import QuPathProcess
from ..qupath.values import ImageContents, Staged
from ..results import Answer
from .engines import Engine, Work
from .in_hand import ImageInHand, written_of
from .opening import SlideOpener
from .outcome import ImageOutcome
from .selection import select
from .setting import Setting, Watcher

_IMAGES_READ_AHEAD = 2
"""Contents in memory before the engine needs them."""

Event: TypeAlias = Callable[[], None]


class BatchCancelledError(Exception):
    """A batch was told to stop."""


class Batch:
    """Runs over images; see the module.

    Args:
        engine: answers prompts.
        local: answers prompts on slides that only QuPath opens, and which no worker can; called
            when there are some.
    """

    def __init__(
        self,
        setting: Setting,
        process: QuPathProcess,
        opener: SlideOpener,
        engine: Engine,
        local: Callable[[], Engine],
        watcher: Watcher,
    ) -> None:
        self._setting, self._process, self._opener = setting, process, opener
        self._engine, self._local, self._watcher = engine, local, watcher
        self._events: Queue[Event] = Queue()
        self._in_hand: list[ImageInHand] = []
        self._outcomes: dict[str, ImageOutcome] = {}
        self._tasks_taken = 0

    def run(self, entries: Iterable[ImageEntry]) -> list[ImageOutcome]:
        """Answer and write all images; outcomes in their order.

        Raises:
            BatchCancelledError: see :meth:`cancel`. What was written by then stays.
        """
        waiting = deque(entries)
        order = [entry.id for entry in waiting]
        room = self._engine.images_in_hand + _IMAGES_READ_AHEAD
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
        if self._setting.write and not self._setting.plan_only:
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
        project = self._setting.project
        known = set(read_class_names(project))
        rows = (row for one in outcomes if one.state != "failed" for row in one.rows if row.feature)
        used = {row.path_class.name: row.path_class.color for row in rows if row.path_class}
        new = {name: color for name, color in used.items() if name not in known}
        if new:
            colors = self._process.run(class_colors, new)
            if self._setting.open_project is None:
                add_classes(project, colors)
            else:
                self._setting.open_project.take_classes(colors)

    def _begin(self, entry: ImageEntry) -> None:
        image = ImageInHand(entry)
        self._in_hand.append(image)
        self._step(image, self._read)

    def _step(self, image: ImageInHand, step: Callable[..., None], *given: Any) -> None:
        """One step of an image; whatever goes wrong in it ends this image alone."""
        if image.ended:
            return
        try:
            step(image, *given)
        except WsiSamError as exc:
            self._fail(image, str(exc))
        except Exception as exc:  # noqa: BLE001 - a night's work must not end at one image
            reason = f"This program made a mistake ({type(exc).__name__}: {exc}): please report it"
            self._fail(image, f"{reason}{self._noted(image)}.")

    def _fail(self, image: ImageInHand, reason: str) -> None:
        self._undo(image)
        self._end(image, ImageOutcome(image.entry.id, image.entry.name, "failed", reason))

    def _undo(self, image: ImageInHand) -> None:
        """Leave nothing of a change that came to no end, as where QuPath's process died of it."""
        if not self._setting.plan_only:
            with suppress(ImageError):  # the next run tries again
                recover(image.entry)

    def _when_done(
        self, future: Future[Any], image: ImageInHand, step: Callable[..., None], *given: Any
    ) -> None:
        event = partial(self._step, image, step, future, *given)
        future.add_done_callback(lambda _: self._events.put(event))

    def _read(self, image: ImageInHand) -> None:
        entry, project = image.entry, self._setting.project
        if entry.trouble:
            raise ImageError(entry.trouble)
        if not self._setting.plan_only:
            recover(entry)
            if self._setting.write and not self._is_shown(image):
                check_writable_image(entry)
        image.stamps = take_stamps(project, entry, with_project=self._setting.open_project is None)
        if image.stamps.qpdata is None:  # never opened in QuPath: nobody drew anything
            self._end(image, image.outcome("nothing to do"))
            return
        image.stated_count = check_data(entry)
        future = self._process.submit(read_image, project.path, entry.id)
        self._when_done(future, image, self._choose)

    def _choose(self, image: ImageInHand, future: Future[ImageContents]) -> None:
        contents = future.result()
        entry, setting = image.entry, self._setting
        check_count(entry, image.stated_count, contents.n_objects)
        image.n_objects = contents.n_objects
        if not contents.annotations:
            self._end(image, image.outcome("nothing to do"))
            return
        slide = image.slide = self._opener.open(entry)
        identity = slide.identity
        image.slide_key = f"{entry.uri}|{identity.size_bytes}|{identity.mtime_ns}"
        journal_key = f"{image.slide_key}|{setting.object_type}"
        image.journal = Journal(setting.project, entry, journal_key)
        record = Ledger(setting.project, entry).read()
        known = record if record.slide_key == image.slide_key else Record(record.written)
        planner = setting.planner(slide)
        image.selection = select(
            contents,
            known,
            setting.rules,
            l0_box=slide.l0_box,
            hr_l0_box_of=lambda prompt: _hr_box(planner, prompt),
            answer_id_of=partial(setting.answer_id, slide),
        )
        if setting.limit is not None:
            image.limit(setting.limit - self._tasks_taken)
        self._tasks_taken += len(image.selection.tasks)
        journaled = image.journal.answers()
        image.recall(journaled, contents)
        image.make_plan(planner)
        if setting.plan_only:
            self._end(image, image.outcome("done"))
            return
        if journaled and not (image.answers or image.spare):
            image.journal.clear()  # a kill came between the writing and this
        self._watcher.found(len(image.selection.tasks))
        self._watcher.answered(len(image.answers))
        self._ask(image, planner)

    def _ask(self, image: ImageInHand, planner: Planner) -> None:
        by_plane: dict[tuple[int, int], list[Prompt]] = {}
        for prompt in image.prompts_left():
            by_plane.setdefault((prompt.plane.z, prompt.plane.t), []).append(prompt)
        for (z, t), prompts in by_plane.items():
            slide = self._opener.open(image.entry, Plane(z=z, t=t))
            engine = self._local() if self._opener.is_only_here(slide) else self._engine
            work = Work(slide, tuple(prompts), planner, partial(self._deliver, image))
            image.jobs |= set(engine.answer(work))
        for job in list(image.jobs):
            self._when_done(job, image, self._take)
        if not image.jobs:
            self._write(image)

    def _deliver(self, image: ImageInHand, answer: Answer) -> None:
        """Called from any thread."""
        self._events.put(partial(self._step, image, self._record, [answer]))

    def _record(self, image: ImageInHand, answers: Sequence[Answer]) -> None:
        assert image.journal is not None
        image.journal.append(answers)
        image.answers |= {answer.id: answer for answer in answers}
        self._watcher.answered(len(answers))

    def _take(self, image: ImageInHand, job: Future[Sequence[Answer]]) -> None:
        self._record(image, job.result())
        image.jobs.discard(job)
        if not image.jobs:
            self._write(image)

    def _write(self, image: ImageInHand) -> None:
        setting, entry = self._setting, image.entry
        if setting.export is not None:
            setting.export.write(entry, image.rows())
        placed = image.placed()
        if not setting.write or not image.selection.tasks:
            self._end(image, image.outcome("done" if placed else "nothing to do"))
            return
        # Before the results: a record of what is not there yet does no harm, the reverse would.
        ledger = Ledger(setting.project, entry)
        aside = ledger.add(map(written_of, placed), image.empty(), image.slide_key)
        if aside is not None:
            self._watcher.noticed(
                f"What was known of earlier results in {entry.name} could not be read, and was put "
                f"aside as {aside}. A result that was turned into an annotation may be taken for "
                "somebody's own."
            )
        if not placed:
            self._finish(image, None)
            return
        if self._is_shown(image):
            self._hand_over(image)
            return
        future = self._process.submit(
            stage_change, setting.project.path, entry.id, image.change(), staging_path(entry)
        )
        self._when_done(future, image, self._commit)

    def _commit(self, image: ImageInHand, future: Future[Staged]) -> None:
        assert image.stamps is not None
        staged = future.result()
        if self._is_shown(image):  # since a moment ago
            self._undo(image)
            self._hand_over(image)
            return
        backup = commit(self._setting.project, image.entry, staged, image.stamps)
        self._finish(image, backup)

    def _is_shown(self, image: ImageInHand) -> bool:
        open_project = self._setting.open_project
        return open_project is not None and open_project.shows(image.entry)

    def _hand_over(self, image: ImageInHand) -> None:
        """Keep the results for QuPath to add.

        They stay in the journal too: should nobody add them, the next run has only to write them.
        """
        assert self._setting.open_project is not None
        self._setting.open_project.take_results(image.entry, image.kept())
        self._end(image, image.outcome("done"))

    def _finish(self, image: ImageInHand, backup: Path | None) -> None:
        assert image.journal is not None
        image.journal.clear()
        image.journal.append(image.spare)
        self._end(image, image.outcome("done", backup))

    def _end(self, image: ImageInHand, outcome: ImageOutcome) -> None:
        image.ended = True
        if image.journal is not None:
            image.journal.close()
        for job in image.jobs:
            job.cancel()
        self._in_hand.remove(image)
        self._outcomes[image.entry.id] = outcome
        self._watcher.ended(outcome)

    def _noted(self, image: ImageInHand) -> str:
        """Where the mistake that is being handled is described, if that could be written."""
        path = self._setting.project.own_folder / "mistakes.log"
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
