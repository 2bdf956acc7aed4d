"""Read prompts from GeoJSON as QuPath exports it.

That is a FeatureCollection, a list of features, one feature or a bare geometry. What can be read
only one way is repaired in silence (open or self-crossing rings, repeated vertices, a third
coordinate, missing ids); what cannot be a prompt is skipped and named.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

import shapely
from shapely.geometry import MultiPolygon, Polygon

from ..errors import PromptError
from ..files import JsonList, OnRead, is_list, read_json
from ..geometry import Box
from ..options import PointsAs
from ..prompts import PathClass, Plane, Point, PromptSet, Skipped
from ..prompts.background import Background
from ..prompts.grouping import (
    Area,
    Clicks,
    HrBoxOf,
    Mark,
    derive_id,
    group_corrections,
    group_marks,
)
from .properties import given_id, read_object_type, read_path_class, read_plane
from .provenance import PROMPT_KEY
from .shapes import AREAS, LINES, POINTS, UnusableError, read_area, read_points, read_scribble

_Feature: TypeAlias = dict[str, Any]

Check: TypeAlias = Callable[[], None]
"""Raises an error if nobody waits for the work any more, or it has taken too long."""

EXPORT_AGAIN = "Export it from QuPath again, as .geojson."
"""What to do about a GeoJSON file that is damaged."""

_END = object()


def _go_on() -> None:
    """Never stop the work."""


def _tell_nobody(_count: int) -> None:
    """Report no progress."""


_NOT_DRAWN = {
    kind: f"a {name}, not drawn by a person"
    for kind, name in {
        "detection": "detection",
        "cell": "cell",
        "tile": "tile",
        "tmaCore": "TMA core",
        "root": "root object",
    }.items()
}
"""Types of QuPath's objects that programs make, and why they are no prompts."""

_GEOMETRIES = (*AREAS, *POINTS, *LINES, "GeometryCollection")


def read_prompts(
    path: str | os.PathLike[str],
    *,
    points_as: PointsAs = "together",
    hr_l0_box_of: HrBoxOf | None = None,
    drawn_only: bool = False,
    on_read: OnRead = _tell_nobody,
) -> PromptSet:
    """Read prompts from a GeoJSON file (UTF-8, or that with gzip) that QuPath exported.

    Args:
        points_as, hr_l0_box_of, drawn_only: see :func:`prompts_from_geojson`.
        on_read: see :func:`.read_json`.

    Raises:
        PromptError: the file is missing, unreadable, or not GeoJSON.
    """
    fix = "Export it from QuPath again, as .geojson."
    document = read_json(Path(path), fix=fix, on_read=on_read)
    return prompts_from_geojson(
        document,
        points_as=points_as,
        hr_l0_box_of=hr_l0_box_of,
        drawn_only=drawn_only,
        source=os.fspath(path),
    )


def prompts_from_geojson(
    document: object,
    *,
    points_as: PointsAs = "together",
    hr_l0_box_of: HrBoxOf | None = None,
    drawn_only: bool = False,
    source: str = "The GeoJSON",
    check: Check = _go_on,
) -> PromptSet:
    """Make prompts of parsed GeoJSON: rectangles become boxes, other areas outlines, points clicks.

    A line with bends is a scribble: points along it, of one object. A straight one measures. An
    area of a class that ends in ``*`` is background for the prompts near it that do not lie in it.

    Args:
        document: what a JSON parser returns (tuples may stand for lists).
        points_as: whether the points of a feature mark one object together, or one object each.
        hr_l0_box_of: returns the area that the HR patch of a prompt covers. A negative point that
            lies in no area goes to the nearest prompt of points with that point in its patch;
            without this function, to the nearest of all.
        drawn_only: whether to skip cells, detections, tiles and TMA cores, which no person draws.
        source: where the prompts come from; begins the messages.
        check: called before each feature; what it raises ends the reading.

    Raises:
        PromptError: the document is not GeoJSON.
    """
    require_features(document, source)
    marks, skipped = read_marks(list_features(document), check, drawn_only=drawn_only)
    grouped = group_marks(marks, points_as=points_as, hr_l0_box_of=hr_l0_box_of)
    unused = _list_unused(marks, grouped)
    return PromptSet(grouped.prompts, (*skipped, *grouped.skipped, *unused))


def _list_unused(marks: Iterable[Mark], grouped: PromptSet) -> Iterator[Skipped]:
    """List the areas of background that say nothing about any prompt."""
    used = {source for prompt in grouped.prompts for source in prompt.sources}
    for mark in marks:
        if isinstance(mark, Background) and mark.id not in used:
            name = mark.path_class.name if mark.path_class else ""
            yield Skipped(mark.id, f"its class {name} says to ignore it, and no prompt is near")


def prompts_to_refine(document: object, area: object, check: Check = _go_on) -> PromptSet:
    """Make the one prompt that corrects an area, perhaps an earlier result, by marks.

    All points of the document belong to it, wherever they lie, and so does its first rectangle.
    Without any point the area is a coarse outline. It has the id of the first positive points,
    else of the first points, else of the area; and class and plane of the first that has some.

    Args:
        document: see :func:`prompts_from_geojson`.
        area: the feature to refine.
        check: see :func:`prompts_from_geojson`.

    Raises:
        PromptError: the document is not GeoJSON, or the area is none.
    """
    try:
        refined = read_any_area(area)
    except UnusableError as exc:
        raise PromptError(f"The area to refine is not usable: {exc}. Send another one.") from exc
    marks, skipped = read_marks(list_features(document), check)
    grouped = group_corrections(refined, marks)
    return PromptSet(grouped.prompts, (*skipped, *grouped.skipped))


def read_any_area(feature: object) -> Area:
    """Read a feature's area, even if it is a result or has an ignored class.

    Raises:
        UnusableError: it is none.
    """
    geometry = feature.get("geometry") if isinstance(feature, dict) else None
    if not isinstance(feature, dict) or not isinstance(geometry, dict):
        raise UnusableError("it has no geometry")
    kind, coordinates = geometry.get("type"), geometry.get("coordinates")
    if kind not in AREAS:
        raise UnusableError(f"a geometry of type {str(kind)[:40]} is no area")
    area = read_area(coordinates if kind == "MultiPolygon" else [coordinates])
    properties = feature.get("properties")
    given_class = properties.get("classification") if isinstance(properties, dict) else None
    identity = given_id(feature) or derive_id(_content(area))
    path_class, plane = read_path_class(given_class), read_plane(geometry.get("plane"))
    if isinstance(area, Box):
        return Area(identity, l0_box=area, path_class=path_class, plane=plane)
    return Area(identity, l0_outline=area, path_class=path_class, plane=plane)


def prompts_from_coordinates(
    boxes: Iterable[tuple[float, float, float, float]] = (),
    points: Iterable[Point] = (),
    negatives: Iterable[Point] = (),
    *,
    points_as: PointsAs = "together",
    hr_l0_box_of: HrBoxOf | None = None,
) -> PromptSet:
    """Make prompts of coordinates, by the same rules as for a file. Level-0 px.

    Args:
        boxes: two opposite corners of each box, x0, y0, x1, y1, in any order.
        points, negatives: points inside and outside of the object.
        points_as, hr_l0_box_of, drawn_only: see :func:`prompts_from_geojson`.
    """
    features = [_rectangle(*box) for box in boxes]
    positive, negative = list(points), list(negatives)
    if positive:
        features.append(_make_click_feature(positive, None))
    if negative:
        features.append(_make_click_feature(negative, "Ignore*"))
    return prompts_from_geojson(features, points_as=points_as, hr_l0_box_of=hr_l0_box_of)


def _rectangle(x0: float, y0: float, x1: float, y1: float) -> _Feature:
    ring = [[x0, y0], [x1, y0], [x1, y1], [x0, y1]]
    return {"type": "Feature", "geometry": {"type": "Polygon", "coordinates": [ring]}}


def _make_click_feature(points: Sequence[Point], class_name: str | None) -> _Feature:
    return {
        "type": "Feature",
        "geometry": {"type": "MultiPoint", "coordinates": points},
        "properties": {"classification": class_name},
    }


def holds_features(document: object) -> bool:
    """Whether parsed JSON is GeoJSON, at least by its first features."""
    if isinstance(document, (list, tuple, JsonList)):
        return not document or any(map(_is_geojson_object, document))
    return _is_geojson_object(document)


def _is_geojson_object(value: object) -> bool:
    if not isinstance(value, dict):
        return False
    kind = value.get("type")
    if kind == "FeatureCollection":
        return is_list(value.get("features"))
    return kind == "Feature" or kind in _GEOMETRIES


def require_features(
    document: object, source: str, fix: str = "In QuPath use File > Export objects as GeoJSON."
) -> None:
    """Check that parsed JSON is GeoJSON; see :func:`holds_features`.

    Args:
        source: where the document comes from; begins the message.
        fix: what to do if it is not; ends the message.

    Raises:
        PromptError: it is not.
    """
    if not holds_features(document):
        raise PromptError(f"{source} is not GeoJSON: it holds no features. {fix}")


def list_top_features(document: object) -> Iterator[object]:
    """List features in order, without nested children; a bare geometry becomes one feature.

    However deep a document is nested, it takes no recursion.
    """
    waiting = [iter((document,))]
    while waiting:
        value = next(waiting[-1], _END)
        if value is _END:
            waiting.pop()
        elif isinstance(value, (list, tuple, JsonList)):
            waiting.append(iter(value))
        elif isinstance(value, dict) and value.get("type") == "FeatureCollection":
            waiting.append(iter((value.get("features"),)))
        elif isinstance(value, dict) and value.get("type") in _GEOMETRIES:
            yield {"type": "Feature", "geometry": value}
        else:
            yield value


def list_features(document: object) -> Iterator[object]:
    """List features in order, each before the children that QuPath nests in it."""
    waiting = [list_top_features(document)]
    while waiting:
        value = next(waiting[-1], _END)
        if value is _END:
            waiting.pop()
            continue
        yield value
        properties = value.get("properties") if isinstance(value, dict) else None
        if isinstance(properties, dict):
            children = properties.get("childObjects") or properties.get("children")
            if isinstance(children, (list, tuple)):
                waiting.append(list_top_features(children))


def read_marks(
    features: Iterable[object], check: Check = _go_on, *, drawn_only: bool = False
) -> tuple[list[Mark], list[Skipped]]:
    """Read what features drew, under distinct ids, and what no prompt can be made of.

    Args:
        features: flat list of features; parsed JSON (tuples may stand for lists).
        check: called before each feature; what it raises ends the reading.
        drawn_only: see :func:`prompts_from_geojson`.
    """
    marks: list[Mark] = []
    skipped: list[Skipped] = []
    seen: Counter[str] = Counter()
    for number, feature in enumerate(features, start=1):
        check()
        given = given_id(feature)
        try:
            if drawn_only:
                _check_drawn(feature)
            mark = _mark(feature, given)
        except UnusableError as exc:
            skipped.append(Skipped(given or f"feature {number}", str(exc)))
            continue
        marks.append(_make_id_distinct(mark, seen))
    return marks, skipped


def _check_drawn(feature: object) -> None:
    """Raise UnusableError if an object is of a type that no person draws."""
    kind = read_object_type(feature) if isinstance(feature, dict) else "annotation"
    if kind in _NOT_DRAWN:
        raise UnusableError(_NOT_DRAWN[kind])


def _mark(feature: object, given_id: str | None) -> Mark:
    """Read the mark of a feature.

    Raises:
        UnusableError: nothing that a prompt can be made of.
    """
    if not isinstance(feature, dict):
        raise UnusableError("it is not a feature")
    properties = feature.get("properties")
    if not isinstance(properties, dict):
        properties = {}
    metadata = properties.get("metadata")
    if isinstance(metadata, dict) and PROMPT_KEY in metadata:
        raise UnusableError("an earlier result")
    geometry = feature.get("geometry")
    if not isinstance(geometry, dict) or not geometry:
        raise UnusableError("it has no geometry")
    path_class = read_path_class(properties.get("classification"))
    return _make_mark(geometry, given_id, path_class, read_plane(geometry.get("plane")))


def _make_mark(
    geometry: _Feature, given_id: str | None, path_class: PathClass | None, plane: Plane
) -> Mark:
    kind, coordinates = geometry.get("type"), geometry.get("coordinates")
    if kind not in (*AREAS, *POINTS, *LINES):
        raise UnusableError(
            f"a geometry of type {str(kind)[:40]} marks no object: draw a rectangle, points or a "
            "closed outline"
        )
    if coordinates is None:
        raise UnusableError("its coordinates are empty")
    several = coordinates if kind.startswith("Multi") else [coordinates]
    about = (path_class.name if path_class else None, plane.c, plane.z, plane.t)
    if kind in POINTS:
        points = read_points(several)
        return Clicks(given_id or derive_id(points, *about), points, path_class, plane)
    if kind in LINES:
        points = read_scribble(several)
        mark_id = given_id or derive_id("scribble", points, *about)
        return Clicks(mark_id, points, path_class, plane, is_scribble=True)
    area = read_area(several)
    area_id = given_id or derive_id(_content(area), *about)
    if path_class is not None and path_class.is_ignored:
        outline = area.polygon if isinstance(area, Box) else area
        return Background(area_id, outline, path_class, plane)
    if isinstance(area, Box):
        return Area(area_id, l0_box=area, path_class=path_class, plane=plane)
    return Area(area_id, l0_outline=area, path_class=path_class, plane=plane)


def _content(area: Box | Polygon | MultiPolygon) -> tuple[float, ...] | str:
    if isinstance(area, Box):
        return (area.x0, area.y0, area.x1, area.y1)
    wkb: str = shapely.to_wkb(area, hex=True, byte_order=1)
    return wkb


def _make_id_distinct(mark: Mark, seen: Counter[str]) -> Mark:
    """Give a mark another id if its own was seen before."""
    distinct = mark.id
    while seen[distinct]:
        seen[mark.id] += 1
        distinct = derive_id(mark.id, "again", seen[mark.id])
    seen[distinct] += 1
    return replace(mark, id=distinct) if distinct != mark.id else mark
