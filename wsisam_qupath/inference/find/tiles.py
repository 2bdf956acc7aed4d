"""Which patches to look at: a grid over the tissue, at a scale that fits the objects."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeAlias

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry import MultiPolygon, Polygon

from ...geometry import Box, FloatArray, PatchPair
from ...prompts.planner import Planner
from ...slide import PixelSource

Region: TypeAlias = Polygon | MultiPolygon

OBJECT_SHARE = 0.45
"""An object of the wanted size covers at most this share of the length of a patch."""

STEP_SHARE = 0.5
"""Distance of two patches, as a share of their length; a multiple of the planner's grid, so that
later clicks find their patches encoded."""

_LOOK_PX = 32
"""Side of the small picture by which glass is told from tissue."""

_GLASS_COLOR, _GLASS_LIGHT = 18, 205
"""A pixel is glass if its channels differ by less than the first, and the darkest is above the
second."""

_LEAST_TISSUE = 0.01
"""Share of tissue below which a patch is not looked at."""


def choose_scale(planner: Planner, longest_um: float) -> float:
    """Choose the finest scale of the planner's ladder at which objects fit, µm per encoder px."""
    finest = max(planner.mpp.x, planner.mpp.y)
    rung = 0
    while _fits(planner, longest_um, rung - 1) and planner.choose_rung(rung - 1) >= finest:
        rung -= 1
    while not _fits(planner, longest_um, rung):
        rung += 1
    return planner.choose_rung(rung)


def _fits(planner: Planner, longest_um: float, rung: int) -> bool:
    return longest_um <= OBJECT_SHARE * planner.size_px * planner.choose_rung(rung)


def lay_tiles(planner: Planner, hr_mpp: float, l0_region: Region) -> list[PatchPair]:
    """Lay pairs with middles that cover a region, row by row; each point lies in one middle."""
    step_um = STEP_SHARE * planner.size_px * hr_mpp
    x0, y0, x1, y1 = l0_region.bounds
    shapely.prepare(l0_region)
    pairs = (
        planner.place_pair((x_um / planner.mpp.x, y_um / planner.mpp.y), hr_mpp)
        for y_um in _spread(y0 * planner.mpp.y, y1 * planner.mpp.y, step_um)
        for x_um in _spread(x0 * planner.mpp.x, x1 * planner.mpp.x, step_um)
    )
    return [pair for pair in pairs if l0_region.intersects(find_middle(pair).polygon)]


def sort_tiles(tiles: Sequence[PatchPair], l0_examples: Sequence[Region]) -> list[PatchPair]:
    """Sort tiles, those near an example first: like objects lie together, some are found soon.

    Tiles that are equally far, and all without an example, keep their order.
    """
    around = shapely.union_all(l0_examples)
    if around.is_empty:
        return list(tiles)
    centers = [pair.hr_l0_box.center for pair in tiles]
    distances = shapely.distance(around, shapely.points(centers))
    return [tiles[index] for index in np.argsort(distances, kind="stable")]


def find_middle(pair: PatchPair) -> Box:
    """Find the part of a tile with the places that no other tile asks about, level-0 px."""
    (x0, y0), (x1, y1) = pair.hr_to_l0(
        np.array([[0.5 - STEP_SHARE / 2] * 2, [0.5 + STEP_SHARE / 2] * 2]) * pair.size_px
    ).tolist()
    return Box(x0, y0, x1, y1)


def is_glass(slide: PixelSource, pair: PatchPair) -> bool:
    """Whether the part of a tile on the slide shows hardly anything but bare glass."""
    l0_shown = pair.hr_l0_box.intersection(slide.l0_box)
    if l0_shown.width <= 0 or l0_shown.height <= 0:
        return True
    return bool(_find_tissue(slide, l0_shown).mean() < _LEAST_TISSUE)


def measure_tissue(slide: PixelSource, l0_outline: Region) -> float:
    """Measure the share of an object that is not bare glass, 0 to 1."""
    box = Box.around(l0_outline).intersection(slide.l0_box)
    tissue = _find_tissue(slide, box)
    steps = (np.arange(_LOOK_PX) + 0.5) / _LOOK_PX
    x, y = np.meshgrid(box.x0 + steps * box.width, box.y0 + steps * box.height)
    inside = shapely.contains_xy(l0_outline, x, y)
    return float(tissue[inside].mean() if inside.any() else tissue.mean())


def _find_tissue(slide: PixelSource, l0_box: Box) -> NDArray[np.bool_]:
    """Find which pixels of a small picture of a region show tissue, rows first."""
    pixels = slide.read(l0_box, _LOOK_PX, _LOOK_PX).astype(np.int16)
    is_tissue: NDArray[np.bool_] = (np.ptp(pixels, axis=-1) >= _GLASS_COLOR) | (
        pixels.min(axis=-1) <= _GLASS_LIGHT
    )
    return is_tissue


def list_places(pair: PatchPair, side: int) -> FloatArray:
    """List the centers of the places of a patch, side x side x 2 (x, y), level-0 px."""
    steps = (np.arange(side) + 0.5) * (pair.size_px / side)
    x, y = np.meshgrid(steps, steps)
    hr_points = np.stack([x.ravel(), y.ravel()], axis=1)
    return pair.hr_to_l0(hr_points).reshape(side, side, 2)


def _spread(start_um: float, end_um: float, step_um: float) -> Iterator[float]:
    """List multiples of a step; stretches of its length around them cover all from start to end."""
    first, last = round(start_um / step_um), round(end_um / step_um)
    return (number * step_um for number in range(first, last + 1))
