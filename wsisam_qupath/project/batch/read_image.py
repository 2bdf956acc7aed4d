"""An image of a batch as it was read, and its outcome."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from ...prompts.planner import Planner
from ...qupath.files.entries import ImageEntry
from ...qupath.files.integrity import FileVersions
from ...report.outcome import ImageOutcome, ImageState, Plan
from ...slide import Slide
from .config import BatchConfig
from .image_finds import ImageFinds
from .image_results import ImageResults
from .searching import ImageSearches
from .selection import Selection

Results: TypeAlias = ImageResults | ImageFinds


@dataclass(frozen=True)
class ReadImage:
    """An image with annotations, as it was read, without its objects, which may be many.

    Attributes:
        selection: the prompts to answer, or what to look for.
        versions: states of its files from before they were read.
        slide_key: names the content of the slide, in the journal and the history.
        n_objects: see :class:`.ImageContents`.
        written_ids: ids of the annotations and of our results that the image holds.
        note: what a user should know of how the slide was read; empty if there is nothing.
    """

    entry: ImageEntry
    versions: FileVersions
    slide: Slide
    slide_key: str
    planner: Planner
    selection: Selection | ImageSearches
    n_objects: int
    written_ids: frozenset[object]
    note: str

    def make_journal_key(self, config: BatchConfig) -> str:
        """Name what the results in the journal belong to: the slide, and what was asked of it."""
        key = f"{self.slide_key}|{config.options.object_type}"
        if isinstance(self.selection, ImageSearches):
            return "|".join([key, *self.selection.ids])
        return key

    def make_outcome(
        self,
        results: Results,
        plan: Plan,
        state: ImageState = "done",
        backup: Path | None = None,
    ) -> ImageOutcome:
        """Make the outcome of an image that did not fail, without its seconds."""
        return ImageOutcome(
            self.entry.id,
            self.entry.name,
            state,
            self.note,
            rows=results.list_rows(),
            slide=self.entry.slide,
            mpp=self.slide.mpp,
            backup=backup,
            plan=plan,
        )
