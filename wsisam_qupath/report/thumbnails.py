"""Small pictures of single prompts and outlines."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import NamedTuple, TypeAlias

from PIL import Image

from ..errors import SlideError, WsiSamError
from ..geometry import Box
from ..inference.cores import count_usable_cores
from ..prompts import PathClass, Plane
from ..slide import Slide, open_slide
from .outcome import ImageOutcome, PromptRow
from .overlay import RESULT_RGB, Rgb, Sketch

THUMBNAIL_PX = 200
"""Side of a picture, px. The page shows it at 192 px, and larger on request."""

_MARGIN_SHARE = 0.3
_NARROWEST_UM = 20.0
_READ_THREADS_MAX = 4

_QUALITY = 70
_SUBSAMPLING = "4:4:4"
"""Pillow's number for JPEG without chroma subsampling: thin lines keep the color of their class."""

OpenSlideOf: TypeAlias = Callable[[ImageOutcome, Plane], Slide]
"""Opens a plane of an image, or raises a :class:`WsiSamError`. The caller closes it."""


class Thumbnail(NamedTuple):
    """A JPEG, or a sentence that says why there is none."""

    jpeg: bytes | None
    trouble: str = ""


def open_again(image: ImageOutcome, plane: Plane) -> Slide:
    """Open the slide that an image was read from.

    Raises:
        SlideError: it was none that can be opened here, or it is gone.
    """
    if image.slide is None or (plane.z, plane.t) != (0, 0):
        raise SlideError("No reader of this program opens its slide: look at it in QuPath.")
    return open_slide(image.slide, mpp=image.mpp)


def draw_thumbnails(
    image: ImageOutcome,
    rows: Sequence[PromptRow],
    open_slide_of: OpenSlideOf = open_again,
    on_drawn: Callable[[], object] = lambda: None,
) -> list[Thumbnail]:
    """Draw one picture per row; all rows have a prompt or an outline.

    Each plane is opened once, and closed again. One that cannot be read raises nothing: its rows
    have no picture.

    Args:
        on_drawn: called after each picture, from any thread.
    """
    by_plane: dict[Plane, list[int]] = {}
    for place, row in enumerate(rows):
        by_plane.setdefault(row.plane, []).append(place)
    made: dict[int, Thumbnail] = {}
    for plane, places in by_plane.items():
        chosen = [rows[place] for place in places]
        some = _draw_plane(image, plane, chosen, open_slide_of, on_drawn)
        made |= zip(places, some, strict=True)
    return [made[place] for place in range(len(rows))]


def _draw_plane(
    image: ImageOutcome,
    plane: Plane,
    rows: Sequence[PromptRow],
    open_slide_of: OpenSlideOf,
    on_drawn: Callable[[], object],
) -> list[Thumbnail]:
    try:
        slide = open_slide_of(image, plane)
    except WsiSamError as exc:
        return [Thumbnail(None, str(exc))] * len(rows)
    attempt = partial(_attempt, slide, _NARROWEST_UM / min(slide.mpp.x, slide.mpp.y), on_drawn)
    threads = min(_READ_THREADS_MAX, count_usable_cores())
    with slide, ThreadPoolExecutor(threads) as pool:
        return list(pool.map(attempt, rows))


def _attempt(
    slide: Slide, l0_narrowest_px: float, on_drawn: Callable[[], object], row: PromptRow
) -> Thumbnail:
    try:
        return Thumbnail(draw_thumbnail(slide, row, l0_narrowest_px))
    except SlideError as exc:
        return Thumbnail(None, str(exc))
    finally:
        on_drawn()


def draw_thumbnail(slide: Slide, row: PromptRow, l0_narrowest_px: float) -> bytes:
    """Draw a square of tissue with the prompt in yellow and the outline in its class's color.

    Args:
        row: row with a prompt, an outline, or both.
        l0_narrowest_px: least width of the square, level-0 px.

    Returns:
        JPEG, RGB, 200 x 200 px.

    Raises:
        SlideError: the slide is damaged there.
    """
    l0_bounds = row.l0_bounds
    assert l0_bounds is not None
    l0_box = _frame(l0_bounds, l0_narrowest_px)
    picture = Image.fromarray(slide.read(l0_box, THUMBNAIL_PX, THUMBNAIL_PX))
    bold = Sketch(picture, l0_box, line_px=2)
    # The outline is what is judged: it lies over the box, and is the wider of the two.
    if row.prompt is not None:
        Sketch(picture, l0_box, line_px=1).extent(row.prompt)
    if row.l0_outline is not None:
        bold.trace(row.l0_outline, color_of(row.path_class))
    if row.prompt is not None:
        bold.points(row.prompt)
    encoded = io.BytesIO()
    picture.save(encoded, format="JPEG", quality=_QUALITY, subsampling=_SUBSAMPLING)
    return encoded.getvalue()


def color_of(path_class: PathClass | None) -> Rgb:
    """Return the color of a class, or the one for classes without color."""
    return (path_class.color if path_class else None) or RESULT_RGB


def _frame(l0_box: Box, l0_narrowest_px: float) -> Box:
    """Compute a square around a box with a margin for its context; it may leave the slide."""
    x, y = l0_box.center
    side = (1 + 2 * _MARGIN_SHARE) * max(l0_box.width, l0_box.height)
    half = max(side, l0_narrowest_px) / 2
    return Box(x - half, y - half, x + half, y + half)
