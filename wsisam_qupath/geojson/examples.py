"""Read objects that stand as examples of what is looked for, and areas in which to look."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import shapely
from shapely.geometry import MultiPolygon, Polygon

from ..errors import PromptError
from ..files import read_json
from ..geometry import Box
from ..geometry.validity import keep_polygons
from ..prompts import Prompt, PromptSet, Skipped, clip_to_slide
from ..prompts.grouping import Area, Clicks, make_polygon
from .reading import EXPORT_AGAIN, list_features, read_any_area, read_marks, require_features
from .shapes import UnusableError


@dataclass(frozen=True)
class Examples:
    """The objects of a file that are examples.

    Attributes:
        wanted, unwanted: what is looked for and what is not: objects of a class with a name that
            ends in ``*``, which QuPath ignores.
        skipped: parts of the file that are no objects.
    """

    wanted: tuple[Prompt, ...]
    unwanted: tuple[Prompt, ...]
    skipped: tuple[Skipped, ...]

    def clip_to_slide(self, l0_box: Box) -> Examples:
        """Leave out what lies outside of the slide; see :func:`.clip_to_slide`."""
        wanted, unwanted = (
            clip_to_slide(PromptSet(some), l0_box) for some in (self.wanted, self.unwanted)
        )
        skipped = (*self.skipped, *wanted.skipped, *unwanted.skipped)
        return Examples(wanted.prompts, unwanted.prompts, skipped)


def read_examples(path: str | os.PathLike[str]) -> Examples:
    """Read objects from a GeoJSON file: areas of every type and class, also earlier results.

    A rectangle stands for the object in it, and so does each point, and a line with bends.

    Raises:
        PromptError: the file is missing, unreadable, or not GeoJSON.
    """
    return examples_from_geojson(read_json(Path(path), fix=EXPORT_AGAIN), source=os.fspath(path))


def examples_from_geojson(document: object, *, source: str = "The GeoJSON") -> Examples:
    """Make examples of parsed GeoJSON; see :func:`read_examples`.

    Raises:
        PromptError: the document is not GeoJSON.
    """
    wanted: list[Prompt] = []
    unwanted: list[Prompt] = []
    skipped: list[Skipped] = []
    for number, feature in enumerate(_list_features(document, source), start=1):
        try:
            found = _read_objects(feature)
        except UnusableError as exc:
            skipped.append(Skipped(f"feature {number}", str(exc)))
            continue
        for one in found:
            is_unwanted = one.path_class is not None and one.path_class.is_ignored
            (unwanted if is_unwanted else wanted).append(one)
    return Examples(tuple(wanted), tuple(unwanted), tuple(skipped))


def read_region(path: str | os.PathLike[str]) -> Polygon | MultiPolygon:
    """Read the areas of a GeoJSON file as one region, level-0 px.

    Raises:
        PromptError: the file is missing, unreadable, not GeoJSON, or has no area.
    """
    return region_from_geojson(read_json(Path(path), fix=EXPORT_AGAIN), source=os.fspath(path))


def region_from_geojson(document: object, *, source: str = "The GeoJSON") -> Polygon | MultiPolygon:
    """Make a region of parsed GeoJSON; see :func:`read_region`.

    Raises:
        PromptError: the document is not GeoJSON, or has no area.
    """
    areas: list[Polygon | MultiPolygon] = []
    for feature in _list_features(document, source):
        try:
            area = read_any_area(feature)
        except UnusableError:
            continue
        areas.append(make_polygon(area))
    if not areas:
        raise PromptError(f"{source} has no area to look in: draw a rectangle or an outline.")
    return keep_polygons(shapely.union_all(areas))


def _list_features(document: object, source: str) -> Iterator[object]:
    require_features(document, source)
    return list_features(document)


def _make_example(area: Area) -> Prompt:
    return Prompt(
        area.id,
        l0_box=area.l0_box,
        l0_outline=area.l0_outline,
        path_class=area.path_class,
        plane=area.plane,
    )


def _read_objects(feature: object) -> list[Prompt]:
    """Read the objects of a feature: an area, a scribble, or one for each point.

    Raises:
        UnusableError: it has none.
    """
    marks, skipped = read_marks([feature])
    clicks = [mark for mark in marks if isinstance(mark, Clicks)]
    geometry = feature.get("geometry") if isinstance(feature, dict) else None
    if skipped and isinstance(geometry, dict) and "Line" in str(geometry.get("type")):
        raise UnusableError(skipped[0].reason)
    if not clicks:
        return [_make_example(read_any_area(feature))]
    (mark,) = clicks
    groups = [mark.l0_points] if mark.is_scribble else [(point,) for point in mark.l0_points]
    return [
        Prompt(
            f"{mark.id} {number}", l0_positives=some, path_class=mark.path_class, plane=mark.plane
        )
        for number, some in enumerate(groups, start=1)
    ]
