"""Schemas of requests and responses about project jobs. No I/O."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal, TypeAlias

from pydantic import BaseModel, Field, computed_field

from ..project.batch.request import Redo
from ..report.progress import count_noun, duration
from .schemas import Options, PixelSize, Strict

JobState: TypeAlias = Literal["waiting", "running", "done", "failed", "cancelled"]
"""State of a job. One with failed images is done; one that failed could not start, or broke off."""

ENDED: tuple[JobState, ...] = ("done", "failed", "cancelled")

EntryId: TypeAlias = Annotated[str, Field(min_length=1, max_length=100)]
_Name: TypeAlias = Annotated[str, Field(min_length=1, max_length=1_000)]

_MOST_IMAGES = 100_000
_MOST_OPEN = 100
_MOST_CLASSES = 1_000


class JobRequest(Strict):
    """Body of ``POST /v1/jobs``.

    Attributes:
        project: path or ``file:`` URI of the ``.qpproj`` file, or of its folder.
        images: entry ids, names, or patterns of names; null is all images.
        project_is_open: whether QuPath has the project open. If so, its class list stays as it is.
        open_image, open_images: entry ids of what QuPath shows: these are not written. Naming one
            says that the project is open.
        prompts: classes of the annotations that are prompts, outlines too; none given,
            rectangles and points of any class.
        redo: whether to answer again what was answered; "outdated" is only what an older version of
            the program answered differently.
        mpp: pixel size of slides that state none, µm/px.
    """

    project: Annotated[str, Field(min_length=1, max_length=4096)]
    images: Annotated[list[_Name], Field(min_length=1, max_length=_MOST_IMAGES)] | None = None
    project_is_open: bool = False
    open_image: EntryId | None = None
    open_images: Annotated[list[EntryId], Field(max_length=_MOST_OPEN)] = Field(
        default_factory=list
    )
    prompts: list[_Name] = Field(default_factory=list, max_length=_MOST_CLASSES)
    redo: bool | Literal["outdated"] = False
    mpp: PixelSize | None = None
    options: Options = Field(default_factory=Options)

    @property
    def shown(self) -> frozenset[str]:
        """Entry ids of the images that QuPath shows."""
        one = () if self.open_image is None else (self.open_image,)
        return frozenset((*one, *self.open_images))

    @property
    def redo_choice(self) -> Redo | None:
        """Which answered prompts are answered again."""
        if isinstance(self.redo, bool):
            return "all" if self.redo else None
        return self.redo

    def replace_shown(self, images: list[str]) -> JobRequest:
        """Copy the request with other images that QuPath shows."""
        changes = {"project_is_open": True, "open_image": None, "open_images": images}
        return self.model_copy(update=changes)

    @property
    def is_open(self) -> bool:
        """Whether QuPath has the project open."""
        return self.project_is_open or bool(self.shown)


class ShownImages(Strict):
    """Body of ``PUT /v1/jobs/ID/open-images``: the images that QuPath shows now.

    An image that a person opens while the job is at it is kept from being written so.
    """

    images: Annotated[list[EntryId], Field(max_length=_MOST_OPEN)]


class TrainingRequest(Strict):
    """Body of ``POST /v1/trainings``.

    Attributes:
        project: path or ``file:`` URI of the ``.qpproj`` file, or of its folder.
        name: name of the new adapter.
        steps, views: number of optimizer steps and of patch pairs; null is what fits the
            annotations.
        minutes: about how long it may take; null is as long as the annotations are worth.
    """

    project: Annotated[str, Field(min_length=1, max_length=4096)]
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9 _-]{0,63}$")]
    steps: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    views: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    minutes: Annotated[float, Field(gt=0, le=100_000)] | None = None


class Comparison(BaseModel):
    """Scores of one kind of prompt on the slides left for validation, old and new adapter.

    Attributes:
        before, after: mean Dice of the old and the new adapter, 0 to 1.
        low, high: 95 % interval of the gain; it is better where the whole interval is above 0.
    """

    kind: str
    says: Literal["better", "equal", "worse"]
    before: float
    after: float
    low: float
    high: float


class TrainingStatus(BaseModel):
    """Answer of ``GET /v1/trainings/ID``.

    Attributes:
        reason: why it failed, and how to fix it; else empty.
        what: what is being done now, in a few words.
        done, total: how much of it is done, and how much there is; null is unknown.
        seconds_left: estimated time until it is done.
        notes: what a person should know of the data and of the result.
        comparisons: comparisons with the adapter that the server answers with; none if no slide was
            left to validate on.
        adapter: name by which requests may ask for the new adapter; null if it is not better.
        has_report: whether there is a report at ``/v1/trainings/ID/report``.
    """

    id: str
    state: JobState
    project: str
    name: str
    reason: str = ""
    what: str = ""
    done: float | None = None
    total: float | None = None
    seconds_left: float | None = None
    notes: list[str] = []
    comparisons: list[Comparison] = []
    adapter: str | None = None
    has_report: bool = False

    @computed_field  # type: ignore[prop-decorator]
    @property
    def progress(self) -> str:
        """What is being done and how long it will take, for people; empty if nothing is."""
        if not self.what or self.seconds_left is None:
            return self.what
        return f"{self.what}, {duration(self.seconds_left)} left"

    @computed_field  # type: ignore[prop-decorator]
    @property
    def summary(self) -> str:
        """The outcome in a few sentences; empty until it is done."""
        if self.state != "done":
            return ""
        if not self.comparisons:
            return (
                f"The model {self.name} is trained, but no slide was left to compare it on, so it "
                "is not offered: annotate another slide, of another patient, and train again."
            )
        if self.adapter is None:
            return f"The model {self.name} is no better than before, and not offered."
        better = [
            f"{one.kind} (Dice {100 * one.before:.1f} before, {100 * one.after:.1f} after)"
            for one in self.comparisons
            if one.says == "better"
        ]
        told = f"The model {self.name} is better on slides that it was not trained on: "
        return told + ", ".join(better) + "."


class ImageStatus(BaseModel):
    """The result of one image.

    Attributes:
        id, name: id and name of the project's entry.
        state: state of the image; ``kept`` means that QuPath shows it, so its outlines are only in
            the job's results.
        reason: why it failed, and how to fix it; else empty.
        outlined, empty, answered, reviewed, skipped: number of prompts by outcome. ``empty``: the
            model sees nothing there; ``answered``: an earlier run did it; ``reviewed``: a person
            took its outline over; ``skipped``: no prompt could be made of it.
    """

    id: str
    name: str
    state: Literal["done", "kept", "nothing to do", "failed"]
    reason: str = ""
    outlined: int = 0
    empty: int = 0
    answered: int = 0
    reviewed: int = 0
    skipped: int = 0


class NewClass(BaseModel):
    """A class of results that is missing in the project's class list.

    Attributes:
        color: red, green, blue.
    """

    name: str
    color: tuple[int, int, int]


class JobSummary(BaseModel):
    """A job without its single images.

    Attributes:
        project: path of the project as the server reads it.
        created, started, ended: UTC; null for what has not come yet.
        reason: why the job failed, and how to fix it; else empty.
        images, images_ended: number of images, null until the project was read, and of those that
            are finished.
        prompts, prompts_answered: number of prompts of the images that were looked at so far, and
            of those with an answer.
        results: number of outlines that wait at ``/v1/jobs/ID/results`` to be added.
        failures: number of images that failed.
        notes: what a person should know, but is no failure.
        new_classes: classes that the project's list lacks, since QuPath has it open.
    """

    id: str
    state: JobState
    project: str
    created: datetime
    started: datetime | None = None
    ended: datetime | None = None
    reason: str = ""
    images: int | None = None
    images_ended: int = 0
    prompts: int = 0
    prompts_answered: int = 0
    results: int = 0
    failures: list[ImageStatus] = []
    notes: list[str] = []
    new_classes: list[NewClass] = []

    @computed_field  # type: ignore[prop-decorator]
    @property
    def summary(self) -> str:
        """What a person should know of it, line by line."""
        failures = [f"{one.name}: {one.reason}" for one in self.failures]
        if not self.prompts and not failures:
            return f"There was nothing to do in {count_noun(self.images or 0, 'image')}."
        answered = f"{self.prompts_answered} of {count_noun(self.prompts, 'prompt')} answered in "
        return "\n".join(
            [f"{answered}{count_noun(self.images or 0, 'image')}.", *failures, *self.notes]
        )


class JobStatus(JobSummary):
    """Answer of ``GET /v1/jobs/ID``.

    Attributes:
        ended_images: finished images, in the order in which they ended.
    """

    ended_images: list[ImageStatus] = []


class JobList(BaseModel):
    """Answer of ``GET /v1/jobs``, oldest first."""

    jobs: list[JobSummary]
