"""Repair geometries so that GEOS and JTS, which QuPath uses, accept them."""

from __future__ import annotations

import shapely
from shapely.geometry import MultiPolygon, Polygon


def keep_polygons(geometry: shapely.Geometry) -> Polygon | MultiPolygon:
    """Keep the parts of a valid geometry that have an area; an empty polygon if there are none."""
    if isinstance(geometry, (Polygon, MultiPolygon)):
        return geometry
    # Twice, since a collection may hold a multipolygon.
    members = shapely.get_parts(shapely.get_parts(geometry))
    return shapely.union_all(members[shapely.get_dimensions(members) == 2])


def make_valid(outline: Polygon | MultiPolygon) -> Polygon | MultiPolygon:
    """Make an outline valid: divide it where it crosses itself, and drop parts without area."""
    if outline.is_valid:
        return outline
    # Part by part: repaired together, two that overlap would cut a hole where both are.
    parts = shapely.make_valid(shapely.get_parts(outline))
    return shapely.union_all([keep_polygons(part) for part in parts])
