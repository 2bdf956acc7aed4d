"""What was found already, so that no object is found twice."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

import shapely
from shapely.geometry import MultiPolygon, Polygon

MOST_SHARED = 0.5
"""Two outlines are of one object if they share more than this of the smaller one."""


class FoundOutlines:
    """Outlines by where they are, in cells of a grid.

    Args:
        l0_cell: side of a cell, level-0 px; about that of an object.
    """

    def __init__(self, l0_cell: float) -> None:
        self._l0_cell = l0_cell
        self._cells: defaultdict[tuple[int, int], list[Polygon | MultiPolygon]] = defaultdict(list)

    def add(self, outline: Polygon | MultiPolygon) -> None:
        """Keep an outline."""
        for cell in self._list_cells(outline):
            self._cells[cell].append(outline)

    def has(self, outline: Polygon | MultiPolygon) -> bool:
        """Whether an outline is of an object that is there already."""
        near = {id(one): one for cell in self._list_cells(outline) for one in self._cells[cell]}
        return any(_is_same_object(outline, one) for one in near.values())

    def _list_cells(self, outline: Polygon | MultiPolygon) -> Iterator[tuple[int, int]]:
        x0, y0, x1, y1 = (int(bound // self._l0_cell) for bound in outline.bounds)
        return ((x, y) for x in range(x0, x1 + 1) for y in range(y0, y1 + 1))


def _is_same_object(one: Polygon | MultiPolygon, other: Polygon | MultiPolygon) -> bool:
    shared = shapely.intersection(one, other).area
    return bool(shared > MOST_SHARED * min(one.area, other.area))
