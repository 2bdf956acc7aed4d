"""Objects that were found already, so that none is found twice."""

from __future__ import annotations

from collections import defaultdict

import shapely

from .tiles import Region

MOST_SHARED = 0.5
"""Share of the smaller of two outlines above which both are of one object."""

_MOST_CELLS = 64
"""Most cells that an outline may reach over; a larger one is compared with every other one."""


class FoundOutlines:
    """Outlines by the cells of a grid that they lie in.

    Args:
        l0_cell: side of a cell, level-0 px; about that of an object.
    """

    def __init__(self, l0_cell: float) -> None:
        self._l0_cell = l0_cell
        self._all: list[Region] = []
        self._large: list[Region] = []
        self._cells: defaultdict[tuple[int, int], list[Region]] = defaultdict(list)

    def add(self, outline: Region) -> None:
        """Keep an outline."""
        self._all.append(outline)
        cells = self._list_cells(outline)
        if cells is None:
            self._large.append(outline)
        for cell in cells or ():
            self._cells[cell].append(outline)

    def has(self, outline: Region) -> bool:
        """Whether an outline is of an object that is there already."""
        cells = self._list_cells(outline)
        if cells is None:
            return any(_is_same_object(outline, one) for one in self._all)
        near = {id(one): one for cell in cells for one in self._cells.get(cell, ())}
        return any(_is_same_object(outline, one) for one in (*near.values(), *self._large))

    def _list_cells(self, outline: Region) -> list[tuple[int, int]] | None:
        """The cells that an outline meets; None where they are many."""
        x0, y0, x1, y1 = (int(bound // self._l0_cell) for bound in outline.bounds)
        if (x1 - x0 + 1) * (y1 - y0 + 1) > _MOST_CELLS:
            return None
        return [(x, y) for x in range(x0, x1 + 1) for y in range(y0, y1 + 1)]


def _is_same_object(one: Region, other: Region) -> bool:
    shared = shapely.intersection(one, other).area
    return bool(shared > MOST_SHARED * min(one.area, other.area))
