"""Convert GeoJSON coordinates to boxes, outlines and points, level-0 px.

They are checked, and repaired where it is clear what was meant.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import shapely
from shapely.geometry import MultiPolygon, Polygon

from ..geometry import Box, FloatArray
from ..geometry.validity import TangledError, keep_polygons, make_valid
from ..prompts import Plane, Point
from .properties import plane_json

AREAS = ("Polygon", "MultiPolygon")
POINTS = ("Point", "MultiPoint")
LINES = ("LineString", "MultiLineString")

GRID_PX = 0.01
"""Step of the two decimals that QuPath writes: anything smaller has no size, px."""

_SCRIBBLE_POINTS = 5
"""Number of points that stand for a scribble; the decoder has learned from one to ten."""

_LEAST_VERTICES = 3
"""Vertices from which a line counts as bent."""

LIMIT_PX = 1e9
"""Largest coordinate, px: no slide is that large, and beyond it areas overflow."""

FLOAT32_NOISE = 2.0**-22
"""Relative error of coordinates that were computed as float32: two units in the last place."""


class UnusableError(ValueError):
    """A geometry cannot be a prompt. The message says why, in a few words for the user."""


def read_points(coordinates: object) -> tuple[Point, ...]:
    """Read the positions of a MultiPoint, in their order, each once.

    Raises:
        UnusableError: there is none, or one is not two finite numbers.
    """
    return tuple(dict.fromkeys((x, y) for x, y in _positions(coordinates).tolist()))


def is_scribble(geometry: Mapping[str, object]) -> bool:
    """Whether a GeoJSON geometry is a line with bends; a straight one measures a length."""
    kind, coordinates = geometry.get("type"), geometry.get("coordinates")
    if kind not in ("LineString", "MultiLineString") or not isinstance(coordinates, (list, tuple)):
        return False
    lines = coordinates if kind == "MultiLineString" else [coordinates]
    return any(isinstance(one, (list, tuple)) and len(one) >= _LEAST_VERTICES for one in lines)


def read_scribble(coordinates: object) -> tuple[Point, ...]:
    """Read the coordinates of a MultiLineString: points evenly along the lines.

    Raises:
        UnusableError: the lines are straight, as those that measure a length, or have no length.
    """
    drawn = [_positions(line) for line in _sequence(coordinates) if _sequence(line)]
    if not drawn:
        raise UnusableError("its coordinates are empty")
    if not any(len(np.unique(line, axis=0)) > 1 for line in drawn):
        raise UnusableError("it has no length")
    bent = [line for line in drawn if shapely.convex_hull(shapely.MultiPoint(line)).area > 0]
    if not bent:
        raise UnusableError(
            "a straight line measures, and marks no object: draw a line with bends over the "
            "object, a rectangle, points or a closed outline"
        )
    shares = (np.arange(_SCRIBBLE_POINTS) + 0.5) / _SCRIBBLE_POINTS
    points = shapely.line_interpolate_point(shapely.MultiLineString(bent), shares, normalized=True)
    return tuple(dict.fromkeys((x, y) for x, y in shapely.get_coordinates(points).tolist()))


def read_area(coordinates: object) -> Box | Polygon | MultiPolygon:
    """Read the coordinates of a MultiPolygon: a box if they are one axis-aligned rectangle.

    Rings may be open or closed. Repeated vertices go; an outline that crosses itself is repaired,
    and only what has an area stays.

    Raises:
        UnusableError: no coordinates, some that are not finite numbers, no area, or crossings
            without number.
    """
    polygons = _polygons(_sequence(coordinates))
    if not any(len(ring) for rings in polygons for ring in rings):
        raise UnusableError("its coordinates are empty")
    drawn = [rings for rings in polygons if rings and len(rings[0]) >= 3]
    if len(drawn) == 1 and len(drawn[0]) == 1:
        box = _as_box(drawn[0][0])
        if box is not None:
            return box
    parts = [Polygon(shell, [h for h in holes if len(h) >= 3]) for shell, *holes in drawn]
    try:
        outline = make_valid(parts[0] if len(parts) == 1 else MultiPolygon(parts))
    except TangledError as exc:
        raise UnusableError(str(exc)) from exc
    if outline.area < GRID_PX**2:
        raise UnusableError("it has no area")
    return outline


def snap_to_grid(geometry: Polygon | MultiPolygon) -> Polygon | MultiPolygon:
    """Round to the two decimals that QuPath writes, and keep the geometry valid.

    To around each number for itself would not ensure that.
    """
    rounded = keep_polygons(shapely.set_precision(make_valid(geometry), GRID_PX))
    return geometry if rounded.is_empty else rounded


def geometry_json(geometry: Polygon | MultiPolygon, plane: Plane) -> dict[str, object]:
    """Write an area as GeoJSON; the plane is stated only if it is not the default one."""
    parts = [
        [shapely.get_coordinates(ring).tolist() for ring in (part.exterior, *part.interiors)]
        for part in shapely.get_parts(geometry)
    ]
    whole = isinstance(geometry, Polygon)
    written: dict[str, object] = {
        "type": "Polygon" if whole else "MultiPolygon",
        "coordinates": parts[0] if whole else parts,
    }
    if plane != Plane():
        written["plane"] = plane_json(plane)
    return written


def _polygons(several: Sequence[object]) -> list[list[FloatArray]]:
    """Read the rings of each polygon; an unreadable one is left out if another can be read.

    Raises:
        UnusableError: none can.
    """
    polygons: list[list[FloatArray]] = []
    error: UnusableError | None = None
    for rings in several:
        try:
            polygons.append([_ring(ring) for ring in _sequence(rings)])
        except UnusableError as exc:
            error = error or exc
    if error is not None and not any(len(ring) for rings in polygons for ring in rings):
        raise error
    return polygons


def _sequence(value: object) -> Sequence[object]:
    if not isinstance(value, (list, tuple)):
        raise UnusableError("its coordinates are not nested as its type asks for")
    return value


def _positions(value: object) -> FloatArray:
    """Read positions, N x 2 (x, y), N >= 1; a third coordinate is dropped."""
    positions = [_sequence(position) for position in _sequence(value)]
    numbers = [number for position in positions for number in position[:2]]
    if not numbers:
        raise UnusableError("its coordinates are empty")
    # True is an int to Python and "5" a number to NumPy; to GeoJSON neither is.
    if not set(map(type, numbers)) <= {int, float} or len(numbers) != 2 * len(positions):
        raise UnusableError("its coordinates are not all numbers")
    try:
        xy = np.array(numbers, dtype=np.float64).reshape(-1, 2)
    except OverflowError:  # an int of over 308 digits
        raise UnusableError("its coordinates lie beyond any slide") from None
    if not (np.abs(xy) <= LIMIT_PX).all():
        where = "lie beyond any slide" if np.isfinite(xy).all() else "are not all finite"
        raise UnusableError(f"its coordinates {where}")
    return xy


def _ring(value: object) -> FloatArray:
    """Drop the closing position and repetitions of a ring, M x 2; may be empty."""
    if not _sequence(value):
        return np.empty((0, 2))
    xy = _positions(value)
    following = np.concatenate([xy[1:], xy[:1]])
    kept: FloatArray = xy[(xy != following).any(axis=1)]
    return kept if len(kept) else xy[:1]


def _as_box(ring: FloatArray) -> Box | None:
    """Find the rectangle with four corners given, or None if they are none.

    Raises:
        UnusableError: it is one without an area.
    """
    if len(ring) != 4:
        return None
    x, y = ring.T.tolist()
    box = Box(min(x), min(y), max(x), max(y))
    if min(box.width, box.height) < GRID_PX:
        raise UnusableError("it has no area")
    right, low = _find_far_end(x), _find_far_end(y)
    if right is None or low is None:
        return None
    # Each edge of a rectangle changes sides along one axis, and stays along the other.
    changes = [(right[n] != right[n - 1], low[n] != low[n - 1]) for n in range(4)]
    return box if all(along_x != along_y for along_x, along_y in changes) else None


def _find_far_end(values: list[float]) -> list[bool] | None:
    """Find which coordinates on an axis are the largest if all others are the smallest."""
    least, most = min(values), max(values)
    # Two numbers that were one before they were rounded are up to one step of the grid apart.
    noise = 1.5 * GRID_PX + FLOAT32_NOISE * max(-least, most)
    noise = min(noise, (most - least) / 4)
    far = [most - value <= noise for value in values]
    near = [value - least <= noise for value in values]
    return far if all(a != b for a, b in zip(far, near, strict=True)) else None
