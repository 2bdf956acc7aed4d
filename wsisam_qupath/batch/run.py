"""The batch itself: images are read, answered and written, several of them in hand at a time.

All that happens elsewhere (QuPath's process, the engine's threads, workers) ends as an event in
one queue, and one thread handles them in turn: it alone journals, commits and counts. So nothing
here needs a lock, and an image's failure is met in one place.
"""

from __future__ import annotations

import time
import traceback
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from queue import Queue
from typing import Any, Protocol, TypeAlias

from ..engine import SegmentOptions, answer_id
from ..errors import ImageError, WsiSamError
from ..geojson.properties import path_class_of
from ..geojson.provenance import DRAWN_KEY, PROMPT_KEY
from ..geometry import Box
from ..model.adapter import Adapter
from ..model.bases import Base
from ..planning import Planner
from ..project.classes import add_classes, read_class_names
from ..project.commit import commit, recover, staging_path
from ..project.entries import ImageEntry, Project
from ..project.guards import (
    Stamps,
    check_count,
    check_data,
    check_writable_image,
    take_stamps,
)
from ..project.journal import Journal
from ..project.ledger import Ledger, Record, Written
from ..prompts import Plane, Prompt
from ..qupath.objects import class_colors, read_image, stage_change
from ..qupath.process import QuPathProcess
from ..qupath.values import Change, ImageContents, Placed, Staged
from ..results import Answer
from ..slide import Slide
from .engines import Engine, Work
from .export import GeoJsonFolder
from .opening import SlideOpener
from .outcome import ImageOutcome, ImageState, Plan, PromptRow, PromptState
from .selection import Rules, Selection, Task, select

_IMAGES_READ_AHEAD = 2
"""Contents in memory before the engine needs them."""

Event: TypeAlias = Callable[[], None]


@dataclass(frozen=True)
class Setting:
    """What is the same for all images.

    Attributes:
        write: whether the project gets the results.
        export: where outlines go too, or instead.
        limit: of prompts to answer; None is all.
        plan_only: look at every image and answer nothing.
    """

    project: Project
    rules: Rules
    options: SegmentOptions
    base: Base
    adapter: Adapter | None
    object_type: str
    write: bool = True
    export: GeoJsonFolder | None = None
    limit: int | None = None
    plan_only: bool = False

    def planner(self, slide: Slide) -> Planner:
        """What decides on which patch pair a prompt is answered."""
        hr_mpp = self.adapter.card.hr_mpp if self.adapter else 1.0
        size_um = self.options.object_size_um
        return Planner(slide.mpp, self.base.size_px, hr_mpp, size_um)

    def answer_id(self, slide: Slide, prompt: Prompt) -> str:
        """See :func:`.answer_id`."""
        return answer_id(
            prompt,
            slide.mpp,
            self.options,
            base_sha256=self.base.sha256,
            adapter_sha256=self.adapter.sha256 if self.adapter else None,
        )


class Watcher(Protocol):
    """Is told how a batch goes; see :class:`.display.Display`."""

    def found(self, tasks: int) -> None:
        """An image was read; so many of its prompts need an answer."""

    def answered(self, count: int) -> None:
        """So many more prompts are answered, or were in the journal."""

    def noticed(self, words: str) -> None:
        """Something that a person should know, and that fails nothing."""

    def ended(self, outcome: ImageOutcome) -> None:
        """An image is done, or failed."""


@dataclass
class _Image:
    """An image in hand.

    Attributes:
        spare: answers from the journal that nobody asked for this time.
        beyond_limit: prompts that wait for another run.
    """

    entry: ImageEntry
    started: float = field(default_factory=time.perf_counter)
    stamps: Stamps | None = None
    stated_count: int | None = None
    n_objects: int = 1
    selection: Selection = field(default_factory=Selection)
    slide: Slide | None = None
    slide_key: str = ""
    journal: Journal | None = None
    answers: dict[str, Answer] = field(default_factory=dict)
    spare: tuple[Answer, ...] = ()
    jobs: set[Future[Sequence[Answer]]] = field(default_factory=set)
    beyond_limit: int = 0
    plan: Plan = field(default_factory=Plan)
    ended: bool = False

    def tasks_left(self) -> list[Task]:
        return [task for task in self.selection.tasks if task.answer_id not in self.answers]


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
        self._in_hand: list[_Image] = []
        self._outcomes: dict[str, ImageOutcome] = {}
        self._tasks_taken = 0
        self._class_names = set(read_class_names(setting.project))

    def run(self, entries: Iterable[ImageEntry]) -> list[ImageOutcome]:
        """Answer and write all images; outcomes in their order."""
        waiting = deque(entries)
        order = [entry.id for entry in waiting]
        room = self._engine.images_in_hand + _IMAGES_READ_AHEAD
        try:
            while waiting or self._in_hand:
                while waiting and len(self._in_hand) < room:
                    self._begin(waiting.popleft())
                if self._in_hand:
                    self._events.get()()
        except BaseException:  # Ctrl-C, or a mistake here
            self._process.stop()  # it may be writing
            for image in self._in_hand:
                self._undo(image)
            raise
        return [self._outcomes[entry_id] for entry_id in order]

    def _begin(self, entry: ImageEntry) -> None:
        image = _Image(entry)
        self._in_hand.append(image)
        self._step(image, self._read)

    def _step(self, image: _Image, step: Callable[..., None], *given: Any) -> None:
        """One step of an image; whatever goes wrong in it ends this image alone."""
        if image.ended:
            return
        try:
            step(image, *given)
        except WsiSamError as exc:
            self._fail(image, str(exc))
        except Exception:  # noqa: BLE001 - a night's work must not end at one image
            reason = (
                "This program made a mistake: please report it, with what stands in "
                f"{self._note_mistake(image)}."
            )
            self._fail(image, reason)

    def _fail(self, image: _Image, reason: str) -> None:
        self._undo(image)
        self._end(image, ImageOutcome(image.entry.id, image.entry.name, "failed", reason))

    def _undo(self, image: _Image) -> None:
        """Leave nothing of a change that came to no end, as where QuPath's process died of it."""
        if not self._setting.plan_only:
            with suppress(ImageError):  # the next run tries again
                recover(image.entry)

    def _when_done(
        self, future: Future[Any], image: _Image, step: Callable[..., None], *given: Any
    ) -> None:
        event = partial(self._step, image, step, future, *given)
        future.add_done_callback(lambda _: self._events.put(event))

    def _read(self, image: _Image) -> None:
        entry, project = image.entry, self._setting.project
        if entry.trouble:
            raise ImageError(entry.trouble)
        if not self._setting.plan_only:
            recover(entry)
            if self._setting.write:
                check_writable_image(entry)
        image.stamps = take_stamps(project, entry)
        if image.stamps.qpdata is None:  # never opened in QuPath: nobody drew anything
            self._end(image, self._outcome(image, "nothing to do"))
            return
        image.stated_count = check_data(entry)
        future = self._process.submit(read_image, project.path, entry.id)
        self._when_done(future, image, self._choose)

    def _choose(self, image: _Image, future: Future[ImageContents]) -> None:
        contents = future.result()
        entry, setting = image.entry, self._setting
        check_count(entry, image.stated_count, contents.n_objects)
        image.n_objects = contents.n_objects
        if not contents.annotations:
            self._end(image, self._outcome(image, "nothing to do"))
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
        self._limit(image)
        self._recall(image, contents)
        image.plan = _plan(image, planner)
        if setting.plan_only:
            self._end(image, self._outcome(image, "done"))
            return
        self._watcher.found(len(image.selection.tasks))
        self._watcher.answered(len(image.answers))
        self._ask(image, planner)

    def _limit(self, image: _Image) -> None:
        """Leave the prompts beyond the user's limit to another run."""
        if self._setting.limit is None:
            return
        found = image.selection.tasks
        tasks = found[: self._setting.limit - self._tasks_taken]
        self._tasks_taken += len(tasks)
        image.selection = replace(image.selection, tasks=tasks)
        image.beyond_limit = len(found) - len(tasks)

    def _recall(self, image: _Image, contents: ImageContents) -> None:
        """Take from the journal what was answered and not written."""
        assert image.journal is not None
        journaled = image.journal.answers()
        asked = {task.answer_id: task for task in image.selection.tasks}
        there = {feature.get("id") for feature in (*contents.results, *contents.annotations)}
        image.answers = {
            key: answer
            for key, answer in journaled.items()
            if key in asked and _fits(answer, asked[key])
        }
        image.spare = tuple(journaled[key] for key in journaled if key not in {*asked, *there})
        if journaled and not (image.answers or image.spare or self._setting.plan_only):
            image.journal.clear()  # a kill came between the writing and this

    def _ask(self, image: _Image, planner: Planner) -> None:
        by_plane: dict[tuple[int, int], list[Prompt]] = {}
        for task in image.tasks_left():
            plane = task.prompt.plane
            by_plane.setdefault((plane.z, plane.t), []).append(task.prompt)
        for (z, t), prompts in by_plane.items():
            slide = self._opener.open(image.entry, Plane(z=z, t=t))
            engine = self._local() if self._opener.is_only_here(slide) else self._engine
            work = Work(slide, tuple(prompts), planner, partial(self._deliver, image))
            image.jobs |= set(engine.answer(work))
        for job in list(image.jobs):
            self._when_done(job, image, self._take)
        if not image.jobs:
            self._write(image)

    def _deliver(self, image: _Image, answer: Answer) -> None:
        """Called from any thread."""
        self._events.put(partial(self._step, image, self._record, [answer]))

    def _record(self, image: _Image, answers: Sequence[Answer]) -> None:
        assert image.journal is not None
        image.journal.append(answers)
        image.answers |= {answer.id: answer for answer in answers}
        self._watcher.answered(len(answers))

    def _take(self, image: _Image, job: Future[Sequence[Answer]]) -> None:
        self._record(image, job.result())
        image.jobs.discard(job)
        if not image.jobs:
            self._write(image)

    def _write(self, image: _Image) -> None:
        setting, entry = self._setting, image.entry
        if setting.export is not None:
            setting.export.write(entry, self._rows(image))
        placed = self._placed(image)
        if not setting.write or not image.selection.tasks:
            self._end(image, self._outcome(image, "done" if placed else "nothing to do"))
            return
        empty = {a.id: a.reason for a in image.answers.values() if a.feature is None}
        # Before the results: a record of what is not there yet does no harm, the reverse would.
        ledger = Ledger(setting.project, entry)
        aside = ledger.add(map(_written, placed), empty, image.slide_key)
        if aside is not None:
            self._watcher.noticed(
                f"What was known of earlier results in {entry.name} could not be read, and was put "
                f"aside as {aside}. A result that was turned into an annotation may be taken for "
                "somebody's own."
            )
        if not placed:
            self._finish(image, None)
            return
        self._announce_classes(placed)
        gone = [one for task in image.selection.tasks for one in self._replaced(image, task)]
        change = Change(image.n_objects, tuple(dict.fromkeys(gone)), tuple(placed))
        future = self._process.submit(
            stage_change, setting.project.path, entry.id, change, staging_path(entry)
        )
        self._when_done(future, image, self._commit)

    def _replaced(self, image: _Image, task: Task) -> tuple[str, ...]:
        """Earlier results that go; where the model now sees nothing, they stay."""
        answer = image.answers.get(task.answer_id)
        return task.replaces if answer is not None and answer.feature is not None else ()

    def _placed(self, image: _Image) -> list[Placed]:
        placed = []
        for task in image.selection.tasks:
            answer = image.answers.get(task.answer_id)
            if answer is not None and answer.feature is not None:
                placed.append(Placed(answer.feature, task.parent_id))
        return placed

    def _announce_classes(self, placed: Iterable[Placed]) -> None:
        """Let new classes reach the project's list, in QuPath's own colours."""
        stated = {name: color for one in placed for name, color in _class_of(one).items()}
        new = [name for name in stated if name not in self._class_names]
        if new:
            colors = self._process.run(class_colors, {name: stated[name] for name in new})
            add_classes(self._setting.project, colors)
            self._class_names |= set(new)

    def _commit(self, image: _Image, future: Future[Staged]) -> None:
        assert image.stamps is not None
        backup = commit(self._setting.project, image.entry, future.result(), image.stamps)
        self._finish(image, backup)

    def _finish(self, image: _Image, backup: Path | None) -> None:
        assert image.journal is not None
        image.journal.clear()
        image.journal.append(image.spare)
        self._end(image, self._outcome(image, "done", backup))

    def _outcome(
        self, image: _Image, state: ImageState, backup: Path | None = None
    ) -> ImageOutcome:
        entry, slide = image.entry, image.slide
        return ImageOutcome(
            entry.id,
            entry.name,
            state,
            rows=self._rows(image),
            slide=entry.slide,
            mpp=slide.mpp if slide else None,
            seconds=time.perf_counter() - image.started,
            backup=backup,
            plan=image.plan,
        )

    def _rows(self, image: _Image) -> tuple[PromptRow, ...]:
        rows = list(image.selection.rows)
        for task in image.selection.tasks:
            answer = image.answers.get(task.answer_id)
            if answer is None:
                continue
            state: PromptState = "empty" if answer.feature is None else "outlined"
            rows.append(
                PromptRow(task.prompt.id, state, answer.reason, task.prompt, answer.feature)
            )
        return tuple(rows)

    def _end(self, image: _Image, outcome: ImageOutcome) -> None:
        image.ended = True
        if image.journal is not None:
            image.journal.close()
        for job in image.jobs:
            job.cancel()
        self._in_hand.remove(image)
        self._outcomes[image.entry.id] = outcome
        self._watcher.ended(outcome)

    def _note_mistake(self, image: _Image) -> Path:
        path = self._setting.project.own_folder / "mistakes.log"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            file.write(f"{time.ctime()} {image.entry.name}\n{traceback.format_exc()}\n")
        return path


def _hr_box(planner: Planner, prompt: Prompt) -> Box:
    return planner.pair(prompt).hr_l0_box


def _plan(image: _Image, planner: Planner) -> Plan:
    prompts = [task.prompt for task in image.tasks_left()]
    pairs = {(p.plane.z, p.plane.t, planner.pair(p)) for p in prompts}
    kinds = Counter(prompt.kind for prompt in prompts)
    return Plan(kinds, len(pairs), image.selection.outlines_left, image.beyond_limit)


def _fits(answer: Answer, task: Task) -> bool:
    """Whether an answer from the journal has the class that the prompt has now."""
    if answer.feature is None:
        return True
    drawn_class = path_class_of(answer.feature["properties"].get("classification"))
    path_class = task.prompt.path_class
    return (drawn_class.name if drawn_class else None) == (path_class.name if path_class else None)


def _written(placed: Placed) -> Written:
    properties = placed.feature["properties"]
    path_class = path_class_of(properties.get("classification"))
    return Written(
        placed.feature["id"],
        properties["metadata"][PROMPT_KEY],
        properties["metadata"][DRAWN_KEY],
        path_class.name if path_class else None,
        properties["objectType"],
    )


def _class_of(placed: Placed) -> dict[str, tuple[int, int, int] | None]:
    path_class = path_class_of(placed.feature["properties"].get("classification"))
    return {path_class.name: path_class.color} if path_class else {}
