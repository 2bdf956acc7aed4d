"""Draw prompts and outlines over the tissue."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
import shapely
from PIL import Image, ImageDraw
from shapely.geometry import MultiPolygon, Polygon, shape

from ..files import write_atomically
from ..geojson import Feature
from ..geojson.properties import read_path_class
from ..geometry import Box, FloatArray, unite_boxes
from ..prompts import Prompt
from ..slide import Slide

Rgb: TypeAlias = tuple[int, int, int]

LONGEST_PX = 2000
_SHORTEST_PX = 800
_MARGIN_SHARE = 0.08

_PROMPT_RGB = (255, 214, 10)
_POSITIVE_RGB = (48, 209, 88)
_NEGATIVE_RGB = (255, 69, 58)
RESULT_RGB = (10, 132, 255)
"""Color of outlines of a class without a color."""

_FILL_ALPHA = 70


def write_overlay(
    path: Path, slide: Slide, prompts: Sequence[Prompt], features: Iterable[Feature]
) -> None:
    """Write a PNG of the part of a slide that has prompts, at most 2000 px wide and high.

    Prompts are yellow (positive points green, negative points red), outlines blue, or in the
    color of their class.

    Raises:
        OutputError: the file cannot be written.
        SlideError: the slide cannot be read.
    """
    found = [_outline(feature) for feature in features]
    bounds = [Box.around(outline) for outline, _ in found]
    l0_box = _frame_boxes([*(p.l0_bounds for p in prompts), *bounds], slide.l0_box)
    scale = _scale(l0_box)
    size = max(1, round(l0_box.width * scale)), max(1, round(l0_box.height * scale))
    picture = Image.fromarray(slide.read(l0_box, *size)).convert("RGBA")
    sketch = Sketch(picture, l0_box, line_px=max(2, round(max(size) / 500)))
    for outline, color in found:
        sketch.fill(outline, color)
        sketch.trace(outline, color)
    for prompt in prompts:
        sketch.prompt(prompt)
    encoded = io.BytesIO()
    sketch.picture.convert("RGB").save(encoded, format="PNG")
    write_atomically(path, encoded.getvalue())


class Sketch:
    """A picture of ``l0_box`` to draw level-0 geometry on.

    Args:
        picture: RGB or RGBA image; it is drawn on in place.
        line_px: width of lines, picture px.
    """

    def __init__(self, picture: Image.Image, l0_box: Box, line_px: int) -> None:
        self.picture = picture
        self._origin = np.array([l0_box.x0, l0_box.y0])
        self._scale = np.array(picture.size) / np.array([l0_box.width, l0_box.height])
        self._line_px = line_px

    def fill(self, l0_geometry: Polygon | MultiPolygon, rgb: Rgb) -> None:
        """Tint the area of an outline, without its holes."""
        veil = Image.new("L", self.picture.size)
        pen = ImageDraw.Draw(veil)
        for polygon in shapely.get_parts(l0_geometry):
            pen.polygon(self._xy(polygon.exterior), fill=_FILL_ALPHA)
            for hole in polygon.interiors:
                pen.polygon(self._xy(hole), fill=0)
        self.picture.paste(rgb, mask=veil)

    def trace(self, l0_geometry: Polygon | MultiPolygon, rgb: Rgb) -> None:
        """Draw every ring of an outline."""
        pen = ImageDraw.Draw(self.picture)
        for ring in _rings(l0_geometry):
            pen.line(self._xy(ring), fill=rgb, width=self._line_px, joint="curve")

    def prompt(self, prompt: Prompt) -> None:
        """Draw box, outline and points."""
        self.extent(prompt)
        self.points(prompt)

    def extent(self, prompt: Prompt) -> None:
        """Draw the box or outline of a prompt, if it has one."""
        if prompt.l0_outline is not None:
            self.trace(prompt.l0_outline, _PROMPT_RGB)
        elif prompt.l0_box is not None:
            self.trace(prompt.l0_box.polygon, _PROMPT_RGB)

    def points(self, prompt: Prompt) -> None:
        """Draw positive, then negative points."""
        for points, rgb in (
            (prompt.l0_positives, _POSITIVE_RGB),
            (prompt.l0_negatives, _NEGATIVE_RGB),
        ):
            for x, y in points:
                self._dot(np.array([x, y]), rgb)

    def _dot(self, l0_point: FloatArray, rgb: Rgb) -> None:
        x, y = (l0_point - self._origin) * self._scale
        radius = 2.5 * self._line_px
        ImageDraw.Draw(self.picture).ellipse(
            (x - radius, y - radius, x + radius, y + radius), fill=rgb, outline=(0, 0, 0)
        )

    def _xy(self, ring: shapely.LinearRing) -> list[tuple[float, float]]:
        scaled = (shapely.get_coordinates(ring) - self._origin) * self._scale
        return [(float(x), float(y)) for x, y in scaled]


def _rings(l0_geometry: Polygon | MultiPolygon) -> Iterator[shapely.LinearRing]:
    for polygon in shapely.get_parts(l0_geometry):
        yield polygon.exterior
        yield from polygon.interiors


def _outline(feature: Feature) -> tuple[Polygon | MultiPolygon, Rgb]:
    path_class = read_path_class(feature["properties"].get("classification"))
    return shape(feature["geometry"]), (path_class and path_class.color) or RESULT_RGB


def _frame_boxes(l0_boxes: Sequence[Box], slide_box: Box) -> Box:
    """Compute the box around boxes with a margin, within the slide; of none, the whole slide."""
    if not l0_boxes:
        return slide_box
    whole = unite_boxes(l0_boxes)
    # Points alone span no area: a picture needs some tissue around them.
    margin = max(_MARGIN_SHARE * max(whole.width, whole.height), 50.0)
    return whole.grow(margin, margin).intersection(slide_box)


def _scale(l0_box: Box) -> float:
    """Choose the picture px per level-0 px: small areas are enlarged, large ones made to fit."""
    longest = max(l0_box.width, l0_box.height)
    return min(LONGEST_PX / longest, max(1.0, _SHORTEST_PX / longest))
