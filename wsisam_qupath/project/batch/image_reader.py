"""Reads the images of a batch: objects, slide, and the prompts among them that need a result."""

from __future__ import annotations

import asyncio
from functools import partial

from ...errors import ImageError, MissingSlideError
from ...prompts.planner import Planner
from ...qupath.files.entries import ImageEntry
from ...qupath.files.integrity import (
    check_count,
    check_data,
    check_writable_image,
    read_versions,
)
from ...qupath.jvm.objects import read_image
from ...qupath.jvm.process import QuPathProcess
from ...qupath.values import ImageContents
from ...slide import Slide
from ..commit import recover
from ..history import History, Record
from .config import BatchConfig, BatchObserver
from .opening import SlideOpener
from .read_image import ReadImage
from .searching import ImageSearches, choose_searches
from .selection import Selection, select


class ImageReader:
    """Reads one image after the other, for :class:`.Batch`."""

    def __init__(
        self,
        config: BatchConfig,
        process: QuPathProcess,
        opener: SlideOpener,
        observer: BatchObserver,
    ) -> None:
        self._config, self._process, self._opener = config, process, opener
        self._observer = observer
        self._tasks_taken = 0

    async def read(self, entry: ImageEntry) -> ReadImage | None:
        """Read the objects of an image and open its slide; None if it has no annotations.

        Raises:
            WsiSamError: something is wrong with the image.
        """
        project, with_project = self._config.project, self._config.open_project is None
        self._check_usable(entry)
        versions = read_versions(project, entry, with_project=with_project)
        if versions.qpdata is None:  # never opened in QuPath: nobody drew anything
            return None
        stated_count = check_data(entry)
        reading = self._process.submit(read_image, project.path, entry.id)
        contents = await asyncio.wrap_future(reading)
        check_count(entry, stated_count, contents.n_objects)
        if not contents.annotations:
            return None
        slide, slide_key, planner, selection = self._open_and_select(entry, contents)
        note = self._opener.note(entry)
        if note:
            self._observer.on_notice(f"{entry.name}: {note}.")
        self._add_to_table(entry, slide, selection, contents)
        return ReadImage(
            entry,
            versions,
            slide,
            slide_key,
            planner,
            selection,
            contents.n_objects,
            frozenset(one.get("id") for one in (*contents.results, *contents.annotations)),
            note,
        )

    def _check_usable(self, entry: ImageEntry) -> None:
        """Recover an image from a kill, and check that it can be used."""
        if entry.trouble:
            error = MissingSlideError if entry.slide_is_missing else ImageError
            raise error(entry.trouble)
        if not self._config.plan_only:
            recover(entry)
            if self._config.write and not self._config.shows(entry):
                check_writable_image(entry)

    def _open_and_select(
        self, entry: ImageEntry, contents: ImageContents
    ) -> tuple[Slide, str, Planner, Selection | ImageSearches]:
        """Open the slide as its pixels are to be read, and select what needs a result on it.

        Pixels are compared with QuPath's only where some are going to be read.
        """
        slide = self._opener.open_unread(entry)
        selected = self._select(entry, contents, slide)
        if selected[-1].tasks and self._config.reads_pixels:
            compared = self._opener.compare(entry, slide)
            if compared is not slide:
                slide, selected = compared, self._select(entry, contents, compared)
        slide_key, planner, selection = selected
        return slide, slide_key, planner, self._limit(selection)

    def _select(
        self, entry: ImageEntry, contents: ImageContents, slide: Slide
    ) -> tuple[str, Planner, Selection | ImageSearches]:
        """Select the prompts that need a result, or what to look for."""
        config, planner = self._config, self._config.planner(slide)
        slide_key = f"{entry.uri}|{slide.identity.size_bytes}|{slide.identity.mtime_ns}"
        record = self._read_history(entry, slide_key)
        result_ids_of = partial(config.list_result_ids, slide)
        if config.find is not None:
            searches = choose_searches(
                contents, record, config.find, l0_box=slide.l0_box, result_ids_of=result_ids_of
            )
            return slide_key, planner, searches
        selection = select(
            contents,
            record,
            config.prompt_filter,
            l0_box=slide.l0_box,
            hr_l0_box_of=lambda prompt: planner.pair(prompt).hr_l0_box,
            result_ids_of=result_ids_of,
        )
        return slide_key, planner, selection

    def _read_history(self, entry: ImageEntry, slide_key: str) -> Record:
        """Read what was ever written into an image; what was empty on another slide is left out."""
        record = History(self._config.project, entry).read()
        return record if record.slide_key == slide_key else Record(record.written)

    def _limit(self, selection: Selection | ImageSearches) -> Selection | ImageSearches:
        """Leave the prompts beyond the user's limit to another run."""
        if isinstance(selection, ImageSearches):
            return selection
        if self._config.limit is not None:
            selection = selection.limit_tasks(self._config.limit - self._tasks_taken)
        self._tasks_taken += len(selection.tasks)
        return selection

    def _add_to_table(
        self,
        entry: ImageEntry,
        slide: Slide,
        selection: Selection | ImageSearches,
        contents: ImageContents,
    ) -> None:
        table = self._config.table
        if table is None or isinstance(selection, ImageSearches):
            return
        if lacking := table.add(entry, slide, selection, contents.annotations):
            self._observer.on_notice(f"{entry.name}: {lacking}.")
