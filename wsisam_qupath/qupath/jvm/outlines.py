"""Converts outlines to QuPath's ROIs and back, without changing a coordinate unnoticed.

QuPath keeps a polygon without holes as float32 vertices, and anything else as a JTS geometry that
it rounds on reading. Both can make an outline cross itself. So outlines are put where QuPath's
rounding changes nothing, and what then comes back from a file must be equal to the last bit.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, TypeAlias

import numpy as np
import shapely
from numpy.typing import NDArray

from ...geometry import FloatArray
from ...prompts import Plane
from ..values import Feature
from .java import Java, java_array, java_class
from .streams import ROI, make_function

Outlines: TypeAlias = NDArray[np.object_]
"""N shapely Polygon or MultiPolygon, level-0 px."""

_FINEST_PX = 2.0**-7

_EXACT_PX = 0.25
"""Step of coordinates that QuPath stores exactly, px: QuPath rounds to hundredths and then to
float32. This step fits both, up to 4 million px."""


@dataclass(frozen=True)
class Stored:
    """Outlines as QuPath stores them.

    Attributes:
        outlines: one per feature.
        is_simple: N bool; whether an outline is one ring, which QuPath keeps as its vertices.
    """

    outlines: Outlines
    is_simple: NDArray[np.bool_]


def read_outlines(features: Sequence[Feature]) -> Outlines:
    """Read the Polygon and MultiPolygon geometries of features."""
    geometries = [feature["geometry"] for feature in features]
    polygons = [_polygons(geometry) for geometry in geometries]
    rings = [len(polygon) for polygon in chain.from_iterable(polygons)]
    all_rings = list(chain.from_iterable(chain.from_iterable(polygons)))
    numbers = chain.from_iterable(chain.from_iterable(all_rings))
    xy = np.fromiter(numbers, np.float64).reshape(-1, 2)
    linear = shapely.linearrings(xy, indices=_owners([len(ring) for ring in all_rings]))
    areas = shapely.polygons(linear, indices=_owners(rings))
    made: Outlines = np.empty(len(features), dtype=object)
    ends = np.cumsum([len(polygon) for polygon in polygons])
    for number, (geometry, end) in enumerate(zip(geometries, ends.tolist(), strict=True)):
        parts = areas[end - len(polygons[number]) : end]
        is_one = geometry["type"] == "Polygon" or len(parts) == 1
        made[number] = parts[0] if is_one else shapely.multipolygons(parts)
    return made


def _polygons(geometry: Feature) -> list[list[Any]]:
    coordinates: list[Any] = geometry["coordinates"]
    return [coordinates] if geometry["type"] == "Polygon" else coordinates


def _owners(lengths: Iterable[int]) -> NDArray[np.intp]:
    """Number the owner of each part: [2, 3] -> [0, 0, 1, 1, 1]."""
    counted = list(lengths)
    return np.repeat(np.arange(len(counted)), counted)


def make_storable(outlines: Outlines) -> Stored:
    """Make valid outlines that QuPath stores exactly, as close to the given ones as possible.

    Simple ones move by half a step of a grid that float32 holds: 1/128 px, and coarser beyond
    131,072 px. One that no grid can hold stays as float32 makes it.
    """
    kept = outlines.copy()
    simple = _is_simple(kept)
    kept[simple] = _snap_to_float_grid(kept[simple])
    simple &= _is_simple(kept)
    kept[~simple] = _convert_like_qupath(kept[~simple])
    return Stored(kept, _is_simple(kept))


def _is_simple(outlines: Outlines) -> NDArray[np.bool_]:
    is_polygon = shapely.get_type_id(outlines) == shapely.GeometryType.POLYGON
    simple: NDArray[np.bool_] = is_polygon & (shapely.get_num_interior_rings(outlines) == 0)
    return simple


def _snap_to_float_grid(polygons: Outlines) -> Outlines:
    largest = np.abs(shapely.bounds(polygons)).max(axis=1, initial=1.0)
    steps = np.maximum(_FINEST_PX, np.spacing(largest.astype(np.float32)).astype(np.float64))
    step_of_vertex = np.repeat(steps, shapely.get_num_coordinates(polygons))[:, None]
    rounded: Outlines = shapely.transform(
        polygons, lambda xy: np.round(xy / step_of_vertex) * step_of_vertex
    )
    for number in np.flatnonzero(~_is_clean(rounded)):
        snap_to_grid = shapely.set_precision(polygons[number], steps[number])
        # What is smaller than the grid would be lost on it.
        rounded[number] = (
            _convert_to_float32(polygons[number]) if snap_to_grid.is_empty else snap_to_grid
        )
    return rounded


def _is_clean(polygons: Outlines) -> NDArray[np.bool_]:
    """Whether outlines are valid and have no repeated vertices."""
    xy, owners = shapely.get_coordinates(polygons, return_index=True)
    repeated = (xy[1:] == xy[:-1]).all(axis=1) & (owners[1:] == owners[:-1])
    clean: NDArray[np.bool_] = shapely.is_valid(polygons)
    clean[owners[1:][repeated]] = False
    return clean


def _convert_to_float32(outline: Any) -> Any:
    return shapely.transform(outline, lambda xy: xy.astype(np.float32).astype(np.float64))


def _convert_like_qupath(outlines: Outlines) -> Outlines:
    """Round outlines with holes or several parts as QuPath does when it saves them."""
    kept = _round_as_qupath(outlines)
    for number in np.flatnonzero(~shapely.is_valid(kept)):
        snap_to_grid = shapely.set_precision(outlines[number], _EXACT_PX)
        if not snap_to_grid.is_empty:
            kept[number] = snap_to_grid
    return kept


def _round_as_qupath(outlines: Outlines) -> Outlines:
    if not len(outlines):
        return outlines
    return _convert_from_java(_convert_to_java(outlines))


def _convert_to_java(outlines: Outlines) -> Java:
    """Convert to a JTS GeometryCollection, rounded by QuPath's geometry factory."""
    factory = java_class("qupath.lib.roi.GeometryTools").getDefaultFactory()
    wkb = shapely.to_wkb(shapely.geometrycollections(outlines))
    return java_class("org.locationtech.jts.io.WKBReader")(factory).read(wkb)


def _convert_from_java(collection: Java) -> Outlines:
    wkb = bytes(java_class("org.locationtech.jts.io.WKBWriter")(2).write(collection))
    parts: Outlines = shapely.get_parts(shapely.from_wkb(wkb))
    return parts


def make_rois(stored: Stored, planes: Sequence[Java]) -> list[Java]:
    """Make QuPath's ROIs, each on its ImagePlane."""
    rois: list[Java] = [None] * len(planes)
    simple = np.flatnonzero(stored.is_simple)
    make = java_class("qupath.lib.roi.ROIs").createPolygonROI
    for number, xy in zip(simple.tolist(), _vertices(stored.outlines[simple]), strict=True):
        x, y = (java_array("double", np.ascontiguousarray(axis)) for axis in xy.T)
        rois[number] = make(x, y, planes[number])
    others = np.flatnonzero(~stored.is_simple).tolist()
    if others:
        geometries = _convert_to_java(stored.outlines[others])
        to_roi = java_class("qupath.lib.roi.GeometryTools").geometryToROI
        for place, number in enumerate(others):
            rois[number] = to_roi(geometries.getGeometryN(place), planes[number])
    return rois


def _vertices(polygons: Outlines) -> list[FloatArray]:
    """List the vertices of each polygon, M x 2, without the closing one that QuPath omits."""
    lengths = shapely.get_num_coordinates(polygons)
    return [xy[:-1] for xy in _split(shapely.get_coordinates(polygons), lengths)]


def _split(xy: FloatArray, lengths: NDArray[np.int_]) -> list[FloatArray]:
    return np.split(xy, np.cumsum(lengths)[:-1]) if len(lengths) else []


def are_equal(stored: Stored, rois: Sequence[Java]) -> bool:
    """Whether ROIs equal outlines exactly, vertex by vertex."""
    listed = java_class("java.util.ArrayList")
    simple = np.flatnonzero(stored.is_simple)
    others = np.flatnonzero(~stored.is_simple)
    vertices = read_vertices(listed([rois[number] for number in simple.tolist()]))
    geometries = read_geometries(listed([rois[number] for number in others.tolist()]))
    return _are_same(_vertices(stored.outlines[simple]), vertices) and bool(
        shapely.equals_exact(stored.outlines[others], geometries, 0.0).all()
    )


def _are_same(expected: Sequence[FloatArray], read: Sequence[FloatArray]) -> bool:
    empty = np.empty((0, 2))
    return [len(xy) for xy in expected] == [len(xy) for xy in read] and np.array_equal(
        np.concatenate([empty, *expected]), np.concatenate([empty, *read])
    )


def read_vertices(rois: Java) -> list[FloatArray]:
    """Read the vertices, M x 2 each, of a java.util.List of polygon and point ROIs."""
    counted = np.array(
        rois.stream().mapToInt(make_function(ROI, "getNumPoints", "ToIntFunction")).toArray(),
        dtype=int,
    )
    xy = np.stack([_ordinates(rois, getter) for getter in ("getX", "getY")], axis=1)
    return _split(xy, counted)


def _ordinates(rois: Java, getter: str) -> FloatArray:
    points = rois.stream().map(make_function(ROI, "getAllPoints"))
    flat = points.flatMap(make_function("java.util.Collection", "stream"))
    numbers = flat.mapToDouble(
        make_function("qupath.lib.geom.Point2", getter, "ToDoubleFunction")
    ).toArray()
    return np.array(numbers, dtype=np.float64)


def read_geometries(rois: Java) -> NDArray[np.object_]:
    """Convert a java.util.List of ROIs of any kind to shapely geometries."""
    factory = java_class("qupath.lib.roi.GeometryTools").getDefaultFactory()
    geometries = list(rois.stream().map(make_function(ROI, "getGeometry")).toList())
    array = java_array("org.locationtech.jts.geom.Geometry", geometries)
    return _convert_from_java(factory.createGeometryCollection(array))


def read_planes(rois: Java) -> list[Plane]:
    axes = [
        rois.stream().mapToInt(make_function(ROI, getter, "ToIntFunction")).toArray()
        for getter in ("getC", "getZ", "getT")
    ]
    return [Plane(int(c), int(z), int(t)) for c, z, t in zip(*axes, strict=True)]
