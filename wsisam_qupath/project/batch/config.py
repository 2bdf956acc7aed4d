"""What is the same for all images of a batch, and who is told how it goes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from ...inference.chosen import ChosenModel
from ...options import OutlineOptions
from ...prompts import Prompt
from ...prompts.planner import Planner
from ...qupath.files.entries import ImageEntry, Project
from ...report.outcome import ImageOutcome, KeptResult
from ...slide import Slide
from .geojson_folder import GeoJsonFolder
from .searching import FindChoice
from .selection import PromptFilter
from .stored_results import StoredResults
from .table_writer import TableWriter


class OpenProject(Protocol):
    """A project that QuPath has open meanwhile, and where what QuPath would overwrite goes instead.

    QuPath knows no lock. It saves an image that it shows from memory, and so it does the class
    list. The objects of all other images it reads when a person opens them.
    """

    def shows(self, entry: ImageEntry) -> bool:
        """Whether QuPath shows an image now, so that it is not to be written."""

    def take_results(self, entry: ImageEntry, results: Sequence[KeptResult]) -> None:
        """Keep what an image did not get."""

    def take_classes(self, colors: Mapping[str, int]) -> None:
        """Keep what the class list did not get: packed ARGB with a sign, by names of classes."""


@dataclass(frozen=True)
class BatchConfig:
    """What is the same for all images.

    Attributes:
        command: name of what runs, for the lists of backups.
        write: whether the project gets the results.
        export: where outlines go too, or instead.
        limit: of prompts to answer; None is all.
        plan_only: look at every image and answer nothing.
        stored: results that were made elsewhere; then no prompt is answered here.
        table: takes the prompts that need a result.
        open_project: stands between the batch and a QuPath that has the project open.
        find: what is looked for, in place of prompts that are answered.
        keep_rows: whether outcomes keep what became of each prompt, with its outline.
    """

    project: Project
    prompt_filter: PromptFilter
    options: OutlineOptions
    model: ChosenModel
    command: str = "batch"
    write: bool = True
    export: GeoJsonFolder | None = None
    limit: int | None = None
    plan_only: bool = False
    stored: StoredResults | None = None
    table: TableWriter | None = None
    open_project: OpenProject | None = None
    find: FindChoice | None = None
    keep_rows: bool = True

    def shows(self, entry: ImageEntry) -> bool:
        """Whether a QuPath that has the project open shows an image now."""
        return self.open_project is not None and self.open_project.shows(entry)

    def planner(self, slide: Slide) -> Planner:
        """Choose the patch pairs of prompts on a slide."""
        return self.model.planner(slide.mpp, self.options)

    @property
    def reads_pixels(self) -> bool:
        """Whether prompts that need a result are answered from pixels that are read here or later.

        They are not where the prompts are only counted, nor where their results are there.
        """
        return self.stored is None and (not self.plan_only or self.table is not None)

    def list_result_ids(self, slide: Slide, prompt: Prompt) -> tuple[str, ...]:
        """See :meth:`.ChosenModel.list_result_ids`."""
        return self.model.list_result_ids(prompt, slide.mpp, self.options)


class BatchObserver(Protocol):
    """Is told how a batch goes; see :class:`.report.display.Display`."""

    def on_prompts_found(self, tasks: int) -> None:
        """An image was read; so many of its prompts need an answer."""

    def on_prompts_done(self, count: int) -> None:
        """So many more prompts are answered, or were in the journal."""

    def on_notice(self, words: str) -> None:
        """Something that a person should know, and that fails nothing."""

    def on_image_end(self, outcome: ImageOutcome) -> None:
        """An image is done, or failed."""
