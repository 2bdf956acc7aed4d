"""Rasterize polygons exactly: the covered share of each pixel, or whether its center is inside."""

from __future__ import annotations

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry import MultiPolygon, Polygon

from .frames import FloatArray
from .validity import keep_polygons

IntArray = NDArray[np.intp]
BoolArray = NDArray[np.bool_]


def pixel_coverage(polygon: Polygon | MultiPolygon, side_px: int) -> FloatArray:
    """Compute the covered share of each pixel, by the signed-area method of font renderers.

    Every edge is cut where it crosses a line between pixels. A piece that rises by dy covers dy
    of the row to its right: in full from the next pixel on, in its own from its middle on. The
    sum along a row, over edges that rise and edges that fall, is the share inside.

    Args:
        polygon: valid, in pixels of the raster: pixel (i, j) covers [i, i + 1) x [j, j + 1).
        side_px: rows and columns of the raster.

    Returns:
        side_px x side_px, 0 to 1.
    """
    inside = keep_polygons(shapely.intersection(polygon, shapely.box(0, 0, side_px, side_px)))
    # One column more takes what lies right of an edge on the raster's right edge.
    gains = np.zeros((side_px + 1) * (side_px + 2))
    if not inside.is_empty:
        # GEOS leaves corners that lie outside of the box by less than any pixel shows.
        start, end = (np.clip(points, 0, side_px) for points in _edges(inside))
        x0, y0, x1, y1 = _pieces(start, end)
        rise, middle = y1 - y0, (x0 + x1) / 2
        column = np.floor(middle).astype(np.intp)
        cell = np.floor((y0 + y1) / 2).astype(np.intp) * (side_px + 2) + column
        past = rise * (middle - column)
        gains += np.bincount(cell, rise - past, len(gains))
        gains += np.bincount(cell + 1, past, len(gains))
    rows = gains.reshape(side_px + 1, side_px + 2)[:side_px]
    covered: FloatArray = np.clip(np.cumsum(rows, axis=1)[:, :side_px], 0.0, 1.0)
    return covered


def find_inside(
    polygon: Polygon | MultiPolygon, x0: int, y0: int, width_px: int, height_px: int, step: int = 1
) -> BoolArray:
    """Find the pixels of a raster that have their center inside of a polygon.

    Along a row of centers, what lies behind an odd number of edges is inside.

    Args:
        polygon: valid, in pixels of any resolution.
        x0, y0: the first pixel of the raster.
        width_px, height_px: size of the raster, 0 or more.
        step: how many pixels of the polygon are as wide as one of the raster.

    Returns:
        height_px x width_px.
    """
    points, ring = shapely.get_coordinates(
        shapely.get_rings(shapely.get_parts(polygon)), return_index=True
    )
    points = points / step - (x0 + 0.5, y0 + 0.5)  # now the centers are at whole numbers
    same = ring[1:] == ring[:-1]
    start, end = points[:-1][same], points[1:][same]
    low, high = np.minimum(start[:, 1], end[:, 1]), np.maximum(start[:, 1], end[:, 1])
    # An edge holds its lower end and not its upper one, so that each vertex counts once.
    first, stop = (np.clip(np.ceil(y), 0, height_px).astype(np.intp) for y in (low, high))
    counts = stop - first
    edge = np.repeat(np.arange(len(start)), counts)
    row = first[edge] + np.arange(len(edge)) - np.repeat(np.cumsum(counts) - counts, counts)
    (start_x, start_y), (end_x, end_y) = start[edge].T, end[edge].T
    x = start_x + (row - start_y) / (end_y - start_y) * (end_x - start_x)
    column = np.clip(np.ceil(x), 0, width_px).astype(np.intp)
    size = height_px * (width_px + 1)
    crossed = np.bincount(row * (width_px + 1) + column, minlength=size)
    behind = np.cumsum(crossed.reshape(height_px, width_px + 1), axis=1)[:, :width_px]
    inside: BoolArray = behind % 2 == 1
    return inside


def _edges(polygon: Polygon | MultiPolygon) -> tuple[FloatArray, FloatArray]:
    """List start and end of each edge, N x 2 each; where y grows, the inside lies to larger x."""
    rings = []
    for part in shapely.get_parts(polygon):
        for number, ring in enumerate((part.exterior, *part.interiors)):
            points = shapely.get_coordinates(ring)
            rings.append(points[::-1] if ring.is_ccw == (number == 0) else points)
    return np.concatenate([r[:-1] for r in rings]), np.concatenate([r[1:] for r in rings])


def _pieces(start: FloatArray, end: FloatArray) -> tuple[FloatArray, ...]:
    """Cut all edges into pieces within one pixel each: x0, y0, x1, y1."""
    count = len(start)
    cuts = [_crossings(start[:, axis], end[:, axis]) for axis in (0, 1)]
    edge = np.concatenate([np.tile(np.arange(count), 2), *(edges for edges, _ in cuts)])
    t = np.concatenate([np.repeat((0.0, 1.0), count), *(shares for _, shares in cuts)])
    order = np.lexsort((t, edge))
    edge, t = edge[order], t[order]
    at = start[edge] + t[:, None] * (end - start)[edge]
    same = edge[1:] == edge[:-1]
    (x0, y0), (x1, y1) = at[:-1][same].T, at[1:][same].T
    return x0, y0, x1, y1


def _crossings(start: FloatArray, end: FloatArray) -> tuple[IntArray, FloatArray]:
    """Find where N edges cross an integer on one axis: index of the edge, share of its length."""
    low, high = np.minimum(start, end), np.maximum(start, end)
    first = np.floor(low) + 1
    counts = np.maximum(np.ceil(high) - first, 0).astype(np.intp)
    edge = np.repeat(np.arange(len(start)), counts)
    number_on_edge = np.arange(len(edge)) - np.repeat(np.cumsum(counts) - counts, counts)
    return edge, (first[edge] + number_on_edge - start[edge]) / (end - start)[edge]
