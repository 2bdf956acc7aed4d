"""Converts QuPath's objects to GeoJSON features, in bulk. Runs in QuPath's process.

The same as QuPath's own export, but for the vertices of polygons: QuPath takes half a millisecond
for each polygon to make a geometry of it.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import shapely
import shapely.geometry

from ...geojson.properties import plane_json, unpack_rgb
from ...prompts import Plane
from ..values import Feature
from .java import Java, java_class
from .outlines import read_geometries, read_planes, read_vertices
from .streams import PATH_OBJECT, make_function, text_or

_DECIMALS = 2
"""Decimals of coordinates, as QuPath writes them."""

_TYPES = {
    "PathAnnotationObject": "annotation",
    "PathDetectionObject": "detection",
    "PathCellObject": "cell",
    "PathTileObject": "tile",
}

_PROPERTIES = {
    "name": "getName",
    "color": "getColor",
    "classification": "getPathClass",
    "measurements": "getMeasurements",
    "metadata": "getMetadata",
}


def make_features(objects: Java) -> tuple[Feature, ...]:
    """Convert objects to GeoJSON features: flat, in their order.

    Args:
        objects: a java.util.List of objects with a ROI.
    """
    if objects.isEmpty():
        return ()
    ids = _column(objects, make_function(PATH_OBJECT, "getID"), text_or(""))
    types = _class_names(objects)
    locked = _column(objects, make_function(PATH_OBJECT, "isLocked"))
    columns = {
        name: _column(objects, make_function(PATH_OBJECT, getter))
        for name, getter in _PROPERTIES.items()
    }
    geometries = _geometries(objects)
    features: list[Feature] = []
    for number, object_id in enumerate(ids):
        properties: Feature = {"objectType": _TYPES.get(types[number], "annotation")}
        # Nothing that is null or empty, like QuPath.
        properties |= {name: column[number] for name, column in columns.items() if column[number]}
        if "color" in properties:
            properties["color"] = list(unpack_rgb(properties["color"]))
        if locked[number]:
            properties["isLocked"] = True
        feature = {"type": "Feature", "id": object_id, "geometry": geometries[number]}
        features.append({**feature, "properties": properties})
    return tuple(features)


def _class_names(objects: Java) -> list[str]:
    get_class = make_function("java.lang.Object", "getClass")
    return _column(objects, get_class, make_function("java.lang.Class", "getSimpleName"))


def _column(objects: Java, *functions: Java) -> list[Any]:
    """Read one property of all objects, as QuPath writes it in JSON."""
    stream = objects.stream()
    for function in functions:
        stream = stream.map(function)
    listed = java_class("java.util.ArrayList")(stream.toList())
    text = str(java_class("qupath.lib.io.GsonTools").getInstance().toJson(listed))
    # NaN becomes "NaN", as QuPath exports it.
    column: list[Any] = json.loads(text, parse_constant=str)
    return column


def _geometries(objects: Java) -> list[Feature]:
    rois = objects.stream().map(make_function(PATH_OBJECT, "getROI")).toList()
    kinds = _class_names(rois)
    geometries: list[Feature] = [{}] * len(kinds)
    converters = [_CONVERTERS.get(kind, _shapes) for kind in kinds]
    for convert in (_rings, _points, _shapes):
        numbers = [number for number, chosen in enumerate(converters) if chosen is convert]
        of_kind = java_class("java.util.ArrayList")([rois[number] for number in numbers])
        for number, geometry in zip(numbers, convert(of_kind), strict=True):
            geometries[number] = geometry
    for geometry, plane in zip(geometries, read_planes(rois), strict=True):
        if plane != Plane():
            geometry["plane"] = plane_json(plane)
    return geometries


def _rings(rois: Java) -> list[Feature]:
    rings = [np.round(xy, _DECIMALS).tolist() for xy in read_vertices(rois)]
    return [{"type": "Polygon", "coordinates": [_close_ring(ring)]} for ring in rings]


def _close_ring(ring: list[list[float]]) -> list[list[float]]:
    # Some of QuPath's polygons end where they begin, and some do not.
    return ring if ring[:1] == ring[-1:] else [*ring, ring[0]]


def _points(rois: Java) -> list[Feature]:
    points = [np.round(xy, _DECIMALS).tolist() for xy in read_vertices(rois)]
    return [
        {"type": "Point", "coordinates": xy[0]}
        if len(xy) == 1
        else {"type": "MultiPoint", "coordinates": xy}
        for xy in points
    ]


def _shapes(rois: Java) -> list[Feature]:
    rounded = shapely.transform(read_geometries(rois), lambda xy: np.round(xy, _DECIMALS))
    return [dict(shapely.geometry.mapping(geometry)) for geometry in rounded]


_CONVERTERS = {"PolygonROI": _rings, "RectangleROI": _rings, "PointsROI": _points}
