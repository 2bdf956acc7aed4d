"""Schemas of requests from the page in a browser, and of the answers. No I/O."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, Field

from ..schemas import Feature, SlideAsOpen, Strict


class SlideNames(BaseModel):
    """Answer of ``GET /view/slides``.

    Attributes:
        slides: paths from the folder that is shown, with ``/``, in natural order.
    """

    slides: list[str]


class ShownSlide(BaseModel):
    """Answer of ``GET /view/slide``.

    Attributes:
        name: name of the slide; see :class:`SlideNames`.
        slide: the slide as other requests want it.
        mpp: pixel size, µm per level-0 px, the mean of both axes.
        tile_px: side of a tile, px.
        first_level, top_level: DeepZoom levels that have tiles: from the one that is a single
            tile to the one with the pixels of level 0.
    """

    name: str
    slide: SlideAsOpen
    mpp: float
    tile_px: int
    first_level: int
    top_level: int


class SavedObjects(BaseModel):
    """Answer of ``GET /view/objects``.

    Attributes:
        file: name of the file beside the slide that the page has saved last; null if there is none,
            or it cannot be used.
        sha256: SHA-256 of its content.
        free_name: name for a new file, not taken by any.
        features: objects in the file.
        trouble: why the file cannot be used.
    """

    file: str | None
    sha256: str | None
    free_name: str
    features: list[Feature]
    trouble: str | None = None


class SaveRequest(Strict):
    """Body of ``PUT /view/objects``.

    Attributes:
        slide: name of the slide; see :class:`SlideNames`.
        file: name of the file to write beside the slide.
        replaces: SHA-256 of the content that may be replaced; null writes a new file.
        features: all objects of the slide.
    """

    slide: Annotated[str, Field(min_length=1, max_length=4096)]
    file: Annotated[str, Field(min_length=1, max_length=4096)]
    replaces: str | None = None
    features: list[Feature]


class Entrance(BaseModel):
    """Answer of ``POST /view/token``: the token, for a code that counts once."""

    token: str


class Saved(BaseModel):
    """The answer to a :class:`SaveRequest`.

    Attributes:
        sha256: SHA-256 of what was written.
    """

    file: str
    sha256: str
