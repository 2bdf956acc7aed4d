"""Schemas of requests and responses about project jobs. No I/O."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

from ..project.batch.request import Redo
from .schemas import Options, PixelSize

JobState: TypeAlias = Literal["waiting", "running", "done", "failed", "cancelled"]
"""A job with failed images is done all the same; one that failed could not start, or broke off."""

ENDED: tuple[JobState, ...] = ("done", "failed", "cancelled")

EntryId: TypeAlias = Annotated[str, Field(min_length=1, max_length=100)]
_Name: TypeAlias = Annotated[str, Field(min_length=1, max_length=1_000)]

_MOST_IMAGES = 100_000
_MOST_OPEN = 100
_MOST_CLASSES = 1_000


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class JobRequest(_Strict):
    """``POST /v1/jobs``.

    Attributes:
        project: path or ``file:`` URI of the ``.qpproj`` file, or of its folder.
        images: entry ids, names, or patterns of names; null is all.
        project_is_open: whether QuPath has the project open. If so, its class list stays as it is.
        open_image, open_images: entry ids of what QuPath shows: these are not written. Naming one
            says that the project is open.
        prompts: classes of the annotations that are prompts, outlines too; none given,
            rectangles and points of any class.
        redo: whether to answer again what was answered; "outdated" is what an older version of
            the program answered otherwise.
        mpp: µm/px of slides that state none.
    """

    project: Annotated[str, Field(min_length=1, max_length=4096)]
    images: Annotated[list[_Name], Field(min_length=1, max_length=_MOST_IMAGES)] | None = None
    project_is_open: bool = False
    open_image: EntryId | None = None
    open_images: Annotated[list[EntryId], Field(max_length=_MOST_OPEN)] = []
    prompts: Annotated[list[_Name], Field(max_length=_MOST_CLASSES)] = []
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


class ShownImages(_Strict):
    """``PUT /v1/jobs/ID/open-images``: the images that QuPath shows now.

    An image that a person opens while the job is at it is kept from being written so.
    """

    images: Annotated[list[EntryId], Field(max_length=_MOST_OPEN)]


class ImageStatus(BaseModel):
    """The result of one image.

    Attributes:
        id, name: of the project's entry.
        state: ``kept``: QuPath shows it, so its outlines are in the job's results alone.
        reason: why it failed, and how to fix it; else empty.
        outlined, empty, answered, reviewed, skipped: prompts by what became of them. ``empty``: the
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
        project: as the server reads it.
        created, started, ended: UTC; null for what has not come yet.
        reason: why the job failed, and how to fix it; else empty.
        images, images_ended: how many there are, null until the project was read; and how many of
            them need no more.
        prompts, prompts_answered: of the images that were looked at so far.
        results: outlines that wait at ``/v1/jobs/ID/results`` for somebody to add them.
        failures: images that failed.
        notes: what a person should know, and that fails nothing.
        new_classes: that the project's list lacks, since QuPath has it open.
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


class JobStatus(JobSummary):
    """``GET /v1/jobs/ID``.

    Attributes:
        ended_images: in the order in which they came to an end.
    """

    ended_images: list[ImageStatus] = []


class JobList(BaseModel):
    """``GET /v1/jobs``, oldest first."""

    jobs: list[JobSummary]
