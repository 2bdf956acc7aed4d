"""The batch itself: images are read, answered and written, several of them at a time.

Each image is a coroutine, :meth:`Batch.process_image`, that can be read from top to bottom. All
of them run in one thread, which alone journals, commits and counts: a coroutine gives way to
another only where it awaits QuPath's process or an executor. So nothing here needs a lock, and
:meth:`Batch.cancel` never comes in the middle of a commit. A Ctrl-C may: the image is then undone.
"""

from __future__ import annotations

import asyncio
import time
import traceback
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

from ...errors import WsiSamError
from ...inference.executors import Executor
from ...qupath.files.classes import add_classes, read_class_names
from ...qupath.files.entries import ImageEntry
from ...qupath.jvm.objects import class_colors, stage_change
from ...qupath.jvm.process import QuPathProcess
from ...report.outcome import Classes, ImageOutcome, ImageState, Plan
from ..commit import commit, make_staging_path, recover
from ..history import History, Written
from ..journal import Journal
from .config import BatchConfig, BatchObserver
from .image_finds import ImageFinds
from .image_reader import ImageReader
from .image_results import ImageResults
from .opening import SlideOpener
from .order import order_images
from .read_image import ReadImage, Results
from .result_stream import ResultStream
from .searching import ImageSearches

_IMAGES_READ_AHEAD = 2
"""Most images with their objects in memory before the executor needs them."""

Outcomes: TypeAlias = list[ImageOutcome]


class BatchCancelledError(Exception):
    """A batch was told to stop."""


class Batch:
    """Outlines the prompts of images.

    Args:
        executor: answers prompts.
        local: makes an executor in this process, for slides that only QuPath opens and no worker
            can; called when there are some.
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
        self._reader = ImageReader(config, process, opener, observer)
        self._executor, self._local, self._observer = executor, local, observer
        self._room = asyncio.Semaphore(executor.images_at_once + _IMAGES_READ_AHEAD)
        self._outcomes: dict[str, ImageOutcome] = {}
        self._classes: dict[str, Classes] = {}
        self._wish: Future[None] = Future()  # never done; cancelled with the batch

    def run(self, entries: Sequence[ImageEntry]) -> list[ImageOutcome]:
        """Process all images; return their outcomes in the same order.

        Raises:
            BatchCancelledError: see :meth:`cancel`. What was written by then stays.
        """
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            run_loop: Callable[[Coroutine[Any, Any, Outcomes]], Outcomes] = asyncio.run
        else:
            run_loop = self._run_in_thread  # in a notebook, whose loop runs in this thread
        try:
            outcomes = run_loop(self._process_all(entries))
        except asyncio.CancelledError:
            raise BatchCancelledError from None
        if self._config.write and not self._config.plan_only:
            self._announce_classes(entries)
        return outcomes

    def _run_in_thread(self, processing: Coroutine[Any, Any, Outcomes]) -> Outcomes:
        with ThreadPoolExecutor(1, thread_name_prefix="batch") as thread:
            running = thread.submit(asyncio.run, processing)
            try:
                return running.result()
            except KeyboardInterrupt:
                self.cancel()
                raise

    def cancel(self) -> None:
        """Stop :meth:`run` where its images next await something; each is wholly old or new.

        Called from any thread, also before it runs.
        """
        self._wish.cancel()

    async def _process_all(self, entries: Sequence[ImageEntry]) -> Outcomes:
        # Exceptions are results here: the Ctrl-C in one image must not end this before the others
        # were cancelled and have cleaned up.
        ordered = order_images(self._config.project, entries)
        images = asyncio.gather(*map(self.process_image, ordered), return_exceptions=True)
        wish = asyncio.wrap_future(self._wish)
        wish.add_done_callback(lambda _: images.cancel())
        try:
            for error in filter(None, await images):
                raise error
        finally:
            wish.cancel()
        return [self._outcomes[entry.id] for entry in entries]

    async def process_image(self, entry: ImageEntry) -> None:
        """Outline the prompts of one image and write the results into the project."""
        config = self._config
        async with self._contain_failure(entry):
            image = await self._reader.read(entry)
            if image is None:
                if config.find is not None:
                    words = f"no {config.find.class_name} is annotated: nothing is looked for"
                    self._observer.on_notice(f"{entry.name}: {words}.")
                return
            journal_key = image.make_journal_key(config)
            with Journal(config.project, entry, journal_key) as journal, ResultStream() as stream:
                results = self._recall(image, journal)
                plan = self._plan(image, results)
                if config.plan_only:
                    self._outcomes[entry.id] = image.make_outcome(results, plan)
                    return
                if config.stored is not None:
                    self._outcomes[entry.id] = await self._merge(image, results, plan, journal)
                    return
                work = results.plan_work(image.planner, stream.deliver)
                for plane, make_work in work.items():
                    slide = self._opener.open(entry, plane)
                    executor = self._local() if self._opener.is_only_here(slide) else self._executor
                    stream.add(executor.submit(make_work(slide)))
                async for some in stream:
                    journal.append(some)
                    before = results.count_done()
                    results.add(some)
                    self._observer.on_prompts_done(results.count_done() - before)
                state, backup = await self._write(image, results, journal)
                self._outcomes[entry.id] = image.make_outcome(results, plan, state, backup)

    async def _merge(
        self, image: ReadImage, results: Results, plan: Plan, journal: Journal
    ) -> ImageOutcome:
        """Write results that were made elsewhere; prompts without one stay as they are."""
        assert self._config.stored is not None
        assert isinstance(results, ImageResults)  # a search is not combined with results
        tasks = results.selection.tasks
        results.add(found := self._config.stored.find(image.entry, tasks))
        self._observer.on_prompts_done(len(found))
        left = sum(task.result_id not in results.by_id for task in tasks)
        if left:
            words = f"{image.entry.name}: {left} of {len(tasks)} prompts have no result there."
            self._observer.on_notice(words)
        if left == len(tasks):
            return image.make_outcome(results, plan, "nothing to do")
        state, backup = await self._write(image, results, journal)
        return image.make_outcome(results, plan, state, backup)

    @asynccontextmanager
    async def _contain_failure(self, entry: ImageEntry) -> AsyncIterator[None]:
        """Wait for room for an image, and keep any failure of it from the other images."""
        async with self._room:
            started = time.perf_counter()
            nothing = ImageOutcome(entry.id, entry.name, "nothing to do", slide=entry.slide)
            self._outcomes[entry.id] = nothing
            try:
                yield
                seconds = time.perf_counter() - started
                outcome = replace(self._outcomes[entry.id], seconds=seconds)
            except (asyncio.CancelledError, KeyboardInterrupt):
                self._process.stop()  # it may be writing
                self._undo(entry)
                raise
            except Exception as exc:  # noqa: BLE001 - a night's work must not end at one image
                self._undo(entry)
                reason = str(exc) if isinstance(exc, WsiSamError) else self._log_error(entry, exc)
                helped_by = exc.helped_by if isinstance(exc, WsiSamError) else None
                outcome = ImageOutcome(entry.id, entry.name, "failed", reason, helped_by=helped_by)
            self._classes[entry.id] = outcome.list_classes()
            self._outcomes[entry.id] = outcome if self._config.keep_rows else outcome.count_rows()
            self._observer.on_image_end(outcome)

    def _undo(self, entry: ImageEntry) -> None:
        """Remove what an unfinished change left, such as when QuPath's process died of it."""
        if not self._config.plan_only:
            with suppress(WsiSamError):  # the next run tries again
                recover(entry)

    def _log_error(self, entry: ImageEntry, error: Exception) -> str:
        """Append the traceback of an internal error to a file; return the message for the user."""
        project = self._config.project
        path = project.own_folder / "errors.log"
        attach = ""
        with suppress(OSError), project.files.append(path) as file:
            text = f"{time.ctime()} {entry.name}\n{traceback.format_exc()}\n"
            file.write(text.encode("utf-8", "replace"))
            attach = f" and attach {path}"
        return f"Internal error ({type(error).__name__}: {error}). Please report it{attach}."

    def _recall(self, image: ReadImage, journal: Journal) -> Results:
        """Take results from the journal that were not written yet."""
        journaled = journal.read()
        results: Results
        if isinstance(image.selection, ImageSearches):
            results = ImageFinds.recall(image.selection, journaled, image.written_ids)
        else:
            results = ImageResults.recall(image.selection, journaled, image.written_ids)
        if not self._config.plan_only:
            if journaled and not (results.by_id or results.spare):
                journal.clear()  # a kill came between the writing and this
            self._observer.on_prompts_found(results.count_tasks())
            self._observer.on_prompts_done(results.count_done())
        return results

    def _plan(self, image: ReadImage, results: Results) -> Plan:
        if isinstance(results, ImageFinds):
            return results.make_plan(image.planner, image.slide)
        return results.make_plan(image.planner, self._config.model)

    async def _write(
        self, image: ReadImage, results: Results, journal: Journal
    ) -> tuple[ImageState, Path | None]:
        """Write results where the user wants them; return the image's state and its backup."""
        config, entry = self._config, image.entry
        if config.export is not None:
            config.export.write(entry, results.list_rows())
        has_outlines = bool(results.list_outlined())
        if not config.write or not results.has_tasks:
            return ("done" if has_outlines else "nothing to do"), None
        # Before the results: a record of what is not there yet does no harm, the reverse would.
        self._add_to_history(image, results.list_written(), results.list_empty())
        backup = None
        if has_outlines:
            if config.shows(entry):
                return self._hand_over(entry, results)
            change = results.make_change(image.n_objects)
            staging = self._process.submit(
                stage_change, config.project.path, entry.id, change, make_staging_path(entry)
            )
            staged = await asyncio.wrap_future(staging)
            if config.shows(entry):  # since a moment ago
                self._undo(entry)
                return self._hand_over(entry, results)
            backup = commit(config.project, entry, staged, image.versions, command=config.command)
        if ended := results.list_ended():
            self._add_to_history(image, (), ended)
        journal.clear()
        journal.append(results.spare)
        return "done", backup

    def _add_to_history(
        self, image: ReadImage, written: Iterable[Written], empty: Mapping[str, str]
    ) -> None:
        history = History(self._config.project, image.entry)
        aside = history.add(written, empty, image.slide_key)
        if aside is not None:
            self._observer.on_notice(
                f"The history of results in {image.entry.name} could not be read and was renamed "
                f"to {aside}. A result that was turned into an annotation may be taken for a "
                "user's own."
            )

    def _hand_over(self, entry: ImageEntry, results: Results) -> tuple[ImageState, None]:
        """Keep results for QuPath to add.

        They stay in the journal too: should nobody add them, the next run has only to write them.
        """
        assert self._config.open_project is not None
        self._config.open_project.take_results(entry, results.list_kept_results())
        return "done", None

    def _announce_classes(self, entries: Iterable[ImageEntry]) -> None:
        """Add new classes, also those of earlier runs, to the project's class list.

        Last of all: what the list says, QuPath applies to every image that it reads after.
        """
        project, open_project = self._config.project, self._config.open_project
        known = set(read_class_names(project))
        used: Classes = {}
        for entry in entries:
            used |= self._classes[entry.id]
        new = {name: color for name, color in used.items() if name not in known}
        if new:
            colors = self._process.run(class_colors, new)
            if open_project is None:
                add_classes(project, colors)
            else:
                open_project.take_classes(colors)
