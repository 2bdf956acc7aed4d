"""Repair geometries so that GEOS and JTS, which QuPath uses, accept them."""

from __future__ import annotations

import numpy as np
import shapely
from shapely.geometry import MultiPolygon, Polygon

CROSSINGS_MAX = 50_000
"""Most crossings of one outline that are repaired. A ring of 300 vertices has up to 45,000; one
drawn by a person has a few."""

_EDGES_LOOKED_AT = 64


class TangledError(ValueError):
    """An outline crosses itself too often to be repaired in a short time."""


def keep_polygons(geometry: shapely.Geometry) -> Polygon | MultiPolygon:
    """Keep the parts of a valid geometry that have an area; an empty polygon if there are none."""
    if isinstance(geometry, (Polygon, MultiPolygon)):
        return geometry
    # Twice, since a collection may hold a multipolygon.
    members = shapely.get_parts(shapely.get_parts(geometry))
    return shapely.union_all(members[shapely.get_dimensions(members) == 2])


def make_valid(outline: Polygon | MultiPolygon) -> Polygon | MultiPolygon:
    """Remove crossings: all that a ring runs around is inside, and parts without an area go.

    The time grows with the number of crossings, 50 µs each; GEOS's other method, which takes what
    a ring runs around twice for outside, needs a minute for 20,000.

    Raises:
        TangledError: it crosses itself more often than :data:`CROSSINGS_MAX`.
    """
    if outline.is_valid:
        return outline
    if crossings(outline) > CROSSINGS_MAX:
        raise TangledError(f"it crosses itself more than {CROSSINGS_MAX} times")
    # Part by part: repaired together, two that overlap would cut a hole where both are.
    parts = shapely.make_valid(shapely.get_parts(outline), method="structure", keep_collapsed=False)
    return shapely.union_all([keep_polygons(part) for part in parts])


def crossings(outline: Polygon | MultiPolygon) -> int:
    """Estimate how often the edges of an outline cross each other, from some of them."""
    all_rings = shapely.get_rings(shapely.get_parts(outline))
    points, rings = shapely.get_coordinates(all_rings, return_index=True)
    inside_ring = rings[1:] == rings[:-1]
    ends = np.stack([points[:-1], points[1:]], axis=1)[inside_ring]
    if len(ends) * (len(ends) - 1) // 2 <= CROSSINGS_MAX:
        return 0  # or fewer than anybody minds
    edges = shapely.linestrings(ends)
    # At random, since edges of one kind may follow in any rhythm; always the same ones.
    looked_at = np.random.default_rng(0).integers(0, len(edges), _EDGES_LOOKED_AT)
    found = shapely.STRtree(edges).query(edges[looked_at], predicate="crosses")
    return int(found.shape[1] / len(looked_at) * len(edges) / 2)
