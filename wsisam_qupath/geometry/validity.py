"""Geometries that GEOS, and so JTS in QuPath, accept."""

from __future__ import annotations

import shapely
from shapely.geometry import MultiPolygon, Polygon


def keep_polygons(geometry: shapely.Geometry) -> Polygon | MultiPolygon:
    """The parts of a valid geometry that have an area, as one; an empty polygon without any."""
    if isinstance(geometry, (Polygon, MultiPolygon)):
        return geometry
    # Twice, since a collection may hold a multipolygon.
    members = shapely.get_parts(shapely.get_parts(geometry))
    return shapely.union_all(members[shapely.get_dimensions(members) == 2])


def make_valid(outline: Polygon | MultiPolygon) -> Polygon | MultiPolygon:
    """The outline, divided where it crosses itself; what has no area is lost."""
    if outline.is_valid:
        return outline
    # Part by part: repaired together, two that overlap would cut a hole where both are.
    parts = shapely.make_valid(shapely.get_parts(outline))
    return shapely.union_all([keep_polygons(part) for part in parts])
