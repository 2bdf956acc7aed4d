"""Settings that all images of a batch share, and who is told how it goes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from ...inference.chosen import ChosenModel
from ...options import OutlineOptions
from ...prompts import Prompt
from ...prompts.planner import Planner
from ...qupath.files.entries import ImageEntry, Project
from ...report.outcome import ImageOutcome, KeptResult
from ...report.progress import points_warning
from ...slide import Slide
from .geojson_folder import GeoJsonFolder
from .searching import FindChoice
from .selection import PromptFilter
from .stored_results import StoredResults
from .table_writer import TableWriter


class OpenProject(Protocol):
    """A project that QuPath has open: it keeps the results that QuPath would overwrite.

    QuPath knows no lock. It saves an image that it shows from memory, and so it does the class
    list. The objects of all other images it reads when a person opens them.
    """

    def shows(self, entry: ImageEntry) -> bool:
        """Whether QuPath shows an image now, which is then not written."""

    def take_results(self, entry: ImageEntry, results: Sequence[KeptResult]) -> None:
        """Keep the results that an image did not get."""

    def take_classes(self, colors: Mapping[str, int]) -> None:
        """Keep classes that the class list did not get: packed ARGB with a sign, by name."""


@dataclass(frozen=True)
class BatchConfig:
    """Settings that all images share.

    Attributes:
        command: name of the running command, for the lists of backups.
        write: whether results are written into the project.
        export: where outlines go as GeoJSON, in addition or instead.
        limit: largest number of prompts to answer; None is all.
        plan_only: whether to look at every image and answer nothing.
        stored: results that were made elsewhere; with them no prompt is answered here.
        table: takes the prompts that need a result, to be answered elsewhere.
        open_project: keeps what may not be written while QuPath has the project open.
        find: what to look for, instead of prompts to answer.
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
        """Whether prompts that need a result are answered from pixels, here or in a table's run.

        They are not where the prompts are only counted, nor where their results are there.
        """
        return self.stored is None and (not self.plan_only or self.table is not None)

    def list_result_ids(self, slide: Slide, prompt: Prompt) -> tuple[str, ...]:
        """See :meth:`.ChosenModel.list_result_ids`."""
        return self.model.list_result_ids(prompt, slide.mpp, self.options)

    def warn_of_points(
        self, outcomes: Iterable[ImageOutcome], say: Callable[[str], object]
    ) -> None:
        """Say so if prompts have points and the model was never trained on any."""
        clicked = sum(one.plan.clicked_prompts for one in outcomes)
        if warning := points_warning(clicked, self.model.base, self.model.adapter):
            say(warning)


class BatchObserver(Protocol):
    """Is told of a batch's progress; see :class:`.report.display.Display`."""

    def on_prompts_found(self, tasks: int) -> None:
        """Note that an image was read, and how many of its prompts need an answer."""

    def on_prompts_done(self, count: int) -> None:
        """Note how many more prompts are answered, or were in the journal."""

    def on_notice(self, words: str) -> None:
        """Note something that a person should know, but that is no failure."""

    def on_image_end(self, outcome: ImageOutcome) -> None:
        """Note that an image is done, or has failed."""
