"""Prompts as a user would draw them for an annotated object, from a random seed."""

from __future__ import annotations

import math
from typing import TypeAlias

import numpy as np
import shapely
from scipy.ndimage import distance_transform_edt, gaussian_filter
from shapely.geometry import MultiPolygon, Polygon

from wsisam_qupath.geometry import Box, FloatArray, Mpp, PatchPair
from wsisam_qupath.geometry.polygons import mask_to_polygon
from wsisam_qupath.geometry.raster import pixel_coverage
from wsisam_qupath.geometry.validity import make_valid
from wsisam_qupath.prompts import Point

from ..sampling.clicker import Mask

Rng = np.random.Generator
Outline: TypeAlias = Polygon | MultiPolygon

_TRIES = 64
_POINTS_A_TRY = 256

_OUTLINE_PX = 128
"""The longest side of an object in the raster on which its outline is disturbed."""

_MARGIN_PX = 32

_WAVE_SHARE = 0.1
"""Length over which the noise of an outline is alike, as a share of the square root of the area."""


def add_box_noise(l0_box: Box, rng: Rng, share: float) -> Box:
    """Move each edge by N(0, share of the side that it bounds), never inside out."""
    sides = np.array([l0_box.width, l0_box.height] * 2)
    edges = np.array([l0_box.x0, l0_box.y0, l0_box.x1, l0_box.y1])
    x0, y0, x1, y1 = (edges + rng.normal(0.0, 1.0, 4) * share * sides).tolist()
    return Box(min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1))


def sample_points_inside(l0_outline: Outline, rng: Rng, count: int) -> tuple[Point, ...]:
    """Spread points evenly over an object, a pixel from its edge where it is wide enough."""
    inner = l0_outline.buffer(-1.0)
    area = l0_outline if inner.is_empty else inner
    x0, y0, x1, y1 = area.bounds
    found: list[Point] = []
    for _ in range(_TRIES):
        x, y = rng.uniform(x0, x1, _POINTS_A_TRY), rng.uniform(y0, y1, _POINTS_A_TRY)
        inside = shapely.contains_xy(area, x, y)
        found += [(float(a), float(b)) for a, b in zip(x[inside], y[inside], strict=True)]
        if len(found) >= count:
            return tuple(found[:count])
    middle = area.representative_point()  # a sliver that chance does not hit
    return (*found, *[(float(middle.x), float(middle.y))] * (count - len(found)))


def coarsen_outline(l0_outline: Outline, rng: Rng, share: float) -> Outline:
    """Draw an object roughly: its boundary is moved in and out by Gaussian noise.

    Args:
        l0_outline: valid outline, level-0 px.
        share: standard deviation of the boundary's shift, as a share of the square root of the
            object's area.

    Returns:
        Valid, with at most the parts of the object that the noise left.
    """
    frame = _frame(l0_outline)
    side_px = frame.size_px
    inside = pixel_coverage(make_valid(shapely.transform(l0_outline, frame.l0_to_hr)), side_px)
    depth = _compute_signed_depth(inside >= 0.5)
    size_px = math.sqrt(max(float(inside.sum()), 1.0))
    noise = gaussian_filter(rng.normal(0.0, 1.0, depth.shape), max(_WAVE_SHARE * size_px, 1.0))
    noise /= noise.std()
    moved = (depth + share * size_px * noise).astype(np.float32)
    l0_per_px = frame.hr_mpp
    least = (0.05 * size_px * l0_per_px) ** 2
    rough = mask_to_polygon(moved, frame, simplify_um=0.5 * l0_per_px, min_area_um2=least)
    return l0_outline if rough is None else _main_part(rough)


def _frame(l0_outline: Outline) -> PatchPair:
    """A square raster around an object; its "µm" are level-0 px."""
    box = Box(*l0_outline.bounds)
    l0_per_px = max(box.width, box.height) / _OUTLINE_PX
    return PatchPair(*box.center, l0_per_px, _OUTLINE_PX + 2 * _MARGIN_PX, Mpp(1.0, 1.0))


def _compute_signed_depth(inside: Mask) -> FloatArray:
    """Compute the distance of each pixel to the boundary, px, positive inside."""
    if not inside.any():
        return np.full(inside.shape, -1.0)
    depth: FloatArray = distance_transform_edt(inside) - distance_transform_edt(~inside)
    return depth - np.sign(depth) * 0.5


def _main_part(rough: Outline) -> Outline:
    """The largest part of an outline, since a user draws only one."""
    return max(shapely.get_parts(rough).tolist(), key=lambda part: float(part.area))
