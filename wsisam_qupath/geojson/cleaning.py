"""Clean GeoJSON for QuPath, which refuses a whole file for one bad feature.

What QuPath throws at is put right where it is clear what was meant: areas that cross themselves,
open rings, ids that are no UUIDs, classes without a color, ``null`` where it expects none. What
no object can be made of is left out and named.
"""

from __future__ import annotations

import math
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import shapely
from shapely.errors import ShapelyError
from shapely.geometry import MultiPolygon, Polygon, mapping, shape

from ..files import read_json
from ..geometry import Box
from ..prompts import PathClass, Plane, Skipped
from ..prompts.grouping import derive_id
from .properties import (
    clean_text,
    given_id,
    make_classification,
    plane_json,
    read_object_type,
    read_path_class,
    read_plane,
)
from .reading import EXPORT_AGAIN, list_top_features, require_features
from .shapes import (
    AREAS,
    LIMIT_PX,
    LINES,
    POINTS,
    UnusableError,
    geometry_json,
    read_area,
    read_points,
    snap_to_grid,
)
from .writing import Feature

_OBJECT_TYPES = {"annotation", "detection", "cell", "tile"}

_DEEPEST = 100
"""Deepest nesting of objects that is kept; people nest two or three."""

_FOREIGN = (ShapelyError, ValueError, TypeError, KeyError, IndexError, AttributeError)
"""Errors that shapely raises on coordinates that do not fit their type."""


@dataclass(frozen=True)
class Cleaned:
    """Objects that QuPath accepts.

    Attributes:
        features: the outermost objects; children stand in their ``childObjects``.
        repaired: how many outlines had to be made valid.
        skipped: what could not be used, whole objects or only the class of some, by id and reason.
    """

    features: tuple[Feature, ...] = ()
    repaired: int = 0
    skipped: tuple[Skipped, ...] = ()

    def __iter__(self) -> Iterator[Feature]:
        return iter(self.features)

    @property
    def n_objects(self) -> int:
        """The number of objects, children included."""
        return sum(1 for _ in iterate_features(self.features))

    @property
    def path_classes(self) -> tuple[PathClass, ...]:
        """The classes of the objects; see :func:`list_classes`."""
        return list_classes(self.features)


def read_objects(path: Path) -> Cleaned:
    """Read and clean the objects of a GeoJSON file.

    Raises:
        PromptError: it cannot be read, or is not GeoJSON.
    """
    return clean_objects(read_json(path, fix=EXPORT_AGAIN), source=str(path))


def clean_objects(document: object, *, source: str = "The GeoJSON") -> Cleaned:
    """Clean parsed GeoJSON: a FeatureCollection, a list, one feature or a bare geometry.

    Raises:
        PromptError: it holds no features; an empty collection is right.
    """
    stream = ObjectStream(document, source=source)
    return Cleaned(tuple(stream), stream.repaired, tuple(stream.skipped))


class ObjectStream:
    """The objects of a GeoJSON file one by one, for a million of them; may be read once.

    Raises:
        PromptError: see :func:`clean_objects`.

    Attributes:
        skipped, repaired: see :class:`Cleaned`; of the objects read so far.
    """

    def __init__(self, document: object, *, source: str = "The GeoJSON") -> None:
        require_features(document, source, EXPORT_AGAIN)
        self._document = document
        self._cleaner = _Cleaner()
        self.skipped = self._cleaner.skipped

    @property
    def repaired(self) -> int:
        """How many outlines had to be made valid."""
        return self._cleaner.repaired

    def __iter__(self) -> Iterator[Feature]:
        for value in list_top_features(self._document):
            yield from self._cleaner.clean(value, depth=0)


def open_objects(path: Path) -> ObjectStream:
    """Open a GeoJSON file for cleaning its objects one by one.

    Raises:
        PromptError: it cannot be read, or is not GeoJSON.
    """
    return ObjectStream(read_json(path, fix=EXPORT_AGAIN), source=str(path))


def list_classes(features: Iterable[Feature]) -> tuple[PathClass, ...]:
    """List the classes of objects and their children, each once, in the order of first use."""
    classes: dict[str, PathClass] = {}
    for feature in iterate_features(features):
        found = read_path_class(feature["properties"].get("classification"))
        if found is not None:
            classes.setdefault(found.name, found)
    return tuple(classes.values())


def iterate_features(features: Iterable[Feature]) -> Iterator[Feature]:
    """Iterate over features and the children nested in them, each before its children."""
    for feature in features:
        yield feature
        yield from iterate_features(feature["properties"].get("childObjects", ()))


def clean_area(coordinates: object) -> tuple[Polygon | MultiPolygon, bool]:
    """Make a valid area of the coordinates of a MultiPolygon, and tell whether it was repaired.

    Raises:
        UnusableError: no coordinates, some that are not finite numbers, or no area.
    """
    area = read_area(coordinates)
    if isinstance(area, Box):
        return area.polygon, False
    try:
        drawn = shape({"type": "MultiPolygon", "coordinates": coordinates})
    except _FOREIGN:
        return snap_to_grid(area), True
    return snap_to_grid(area), not drawn.is_valid


class _Cleaner:
    """The state while one file is cleaned: ids in use, and what went wrong."""

    def __init__(self) -> None:
        self.skipped: list[Skipped] = []
        self.repaired = 0
        self._ids: set[str] = set()
        self._number = 0

    def clean(self, value: object, depth: int) -> list[Feature]:
        """Clean a feature; returns its children if the feature itself is unusable."""
        self._number += 1
        name = f"feature {self._number}"
        if not isinstance(value, dict):
            self.skipped.append(Skipped(name, "it is not a feature"))
            return []
        properties = value.get("properties")
        properties = properties if isinstance(properties, dict) else {}
        given = given_id(value)
        kind = read_object_type(value)
        feature: Feature | None = None
        try:
            if kind != "root":
                feature = self._object(value, properties, kind, given, given or name)
        except UnusableError as exc:
            self.skipped.append(Skipped(given or name, str(exc)))
        children = self._children(properties, given or name, depth)
        if feature is None:
            return children
        if children:
            feature["properties"]["childObjects"] = children
        return [feature]

    def _children(self, properties: Feature, parent: str, depth: int) -> list[Feature]:
        children = properties.get("childObjects") or properties.get("children")
        if not isinstance(children, (list, tuple)):
            return []
        if depth == _DEEPEST:
            self.skipped.append(Skipped(parent, "its children are nested too deep"))
            return []
        return [one for child in children for one in self.clean(child, depth + 1)]

    def _object(
        self, value: Feature, properties: Feature, kind: str, given: str | None, label: str
    ) -> Feature:
        """Clean one object without its children; messages call it ``label``.

        Raises:
            UnusableError: it is of a type or a geometry that no object can be made of.
        """
        if kind not in _OBJECT_TYPES:
            raise UnusableError(f"objects of type {kind[:40]} are not imported")
        drawn = value.get("geometry")
        if not isinstance(drawn, dict):
            raise UnusableError("it has no geometry")
        geometry = self._geometry(drawn)
        cleaned = {"objectType": kind, **_clean_properties(properties)}
        if properties.get("classification") and "classification" not in cleaned:
            self.skipped.append(Skipped(label, "its class cannot be read; it has none now"))
        feature: Feature = {"type": "Feature", "id": "", "geometry": geometry}
        if kind == "cell":
            feature |= self._nucleus(value.get("nucleusGeometry"))
        feature["id"] = self._make_distinct_id(given, feature["geometry"], cleaned)
        feature["properties"] = cleaned
        return feature

    def _geometry(self, drawn: Feature) -> Feature:
        kind, coordinates = drawn.get("type"), drawn.get("coordinates")
        plane = read_plane(drawn.get("plane"))
        several = coordinates if str(kind).startswith("Multi") else [coordinates]
        if kind in AREAS:
            area, is_repaired = clean_area(several)
            self.repaired += is_repaired
            written = geometry_json(area, plane)
            if drawn.get("isEllipse") is True:
                written["isEllipse"] = True
            return written
        if kind in POINTS:
            points = [list(point) for point in read_points(several)]
            written = {"type": kind, "coordinates": points[0] if kind == "Point" else points}
        elif kind in LINES:
            written = _line(drawn)
        else:
            raise UnusableError(f"QuPath has no objects of geometry {str(kind)[:40]}")
        return written if plane == Plane() else {**written, "plane": plane_json(plane)}

    def _nucleus(self, drawn: object) -> Feature:
        """Clean a cell's nucleus; without a usable one the cell is kept."""
        if not isinstance(drawn, dict) or drawn.get("type") not in AREAS:
            return {}
        try:
            return {"nucleusGeometry": self._geometry(drawn)}
        except UnusableError:
            return {}

    def _make_distinct_id(self, given: str | None, *content: object) -> str:
        try:
            wanted = str(uuid.UUID(given or ""))
        except ValueError:
            wanted = derive_id(given) if given else derive_id(*map(ascii, content))
        distinct, again = wanted, 0
        while distinct in self._ids:
            again += 1
            distinct = derive_id(wanted, "again", again)
        self._ids.add(distinct)
        return distinct


def _line(drawn: Feature) -> Feature:
    try:
        line = shapely.force_2d(shape({key: drawn[key] for key in ("type", "coordinates")}))
    except _FOREIGN as exc:
        raise UnusableError("its coordinates are not those of a line") from exc
    bounds = shapely.bounds(line).tolist()
    if not all(map(math.isfinite, bounds)) or max(map(abs, bounds)) > LIMIT_PX:
        raise UnusableError("its coordinates are empty, not finite, or lie beyond any slide")
    return dict(mapping(line))


def _clean_properties(properties: Feature) -> Feature:
    """Keep the properties that QuPath reads, in its form; drop ``null`` and unusable ones."""
    plain: Feature = {}
    name = clean_text(properties.get("name"))
    if name is not None:
        plain["name"] = name
    color = properties.get("color")
    if isinstance(color, list) and len(color) == 3 and all(_is_byte(part) for part in color):
        plain["color"] = color
    path_class = read_path_class(properties.get("classification"))
    if path_class is not None:
        plain["classification"] = make_classification(path_class)
    if properties.get("isLocked") is True:
        plain["isLocked"] = True
    measurements = _measurements(properties.get("measurements"))
    if measurements:
        plain["measurements"] = measurements
    metadata = properties.get("metadata")
    if isinstance(metadata, dict):
        plain["metadata"] = {k: v for k, v in metadata.items() if isinstance(v, str)}
    return plain


def _is_byte(value: object) -> bool:
    return type(value) is int and 0 <= value <= 255


def _measurements(value: object) -> dict[str, Any]:
    """Read finite numbers by name, from an object or, before QuPath 0.4, a list of pairs."""
    pairs: list[tuple[object, object]] = []
    if isinstance(value, dict):
        pairs = list(value.items())
    elif isinstance(value, list):
        pairs = [(one.get("name"), one.get("value")) for one in value if isinstance(one, dict)]
    return {
        name: float(number)
        for name, number in pairs
        if isinstance(name, str) and isinstance(number, (int, float)) and _is_finite(number)
    }


def _is_finite(number: float) -> bool:
    return not isinstance(number, bool) and math.isfinite(number)
