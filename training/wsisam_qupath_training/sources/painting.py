"""Lay outlines over each other as CATCH's own tools do: inner ones cover outer ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import shapely
from numpy.typing import NDArray

from wsisam_qupath.geometry.validity import keep_polygons

from ..dataset import Truth

_SAME = 0.01
"""Areas that differ by less, as a share of the larger, are the same: corners are whole pixels."""


@dataclass(frozen=True)
class AreaCheck:
    """Compares the areas that a file states with those of its outlines.

    Attributes:
        enclosing: number of outlines that enclose others and have a stated area.
        reduced: number of these with a stated area that leaves out what they enclose.
        differing: ids of outlines with a stated area that is neither their own nor that without
            what they enclose.
    """

    enclosing: int = 0
    reduced: int = 0
    differing: tuple[str, ...] = ()

    @property
    def leaves_out_enclosed(self) -> bool:
        """Whether the file states the visible area of an outline, as CATCH does."""
        return self.reduced > self.enclosing / 2

    def __add__(self, other: AreaCheck) -> AreaCheck:
        return AreaCheck(
            self.enclosing + other.enclosing,
            self.reduced + other.reduced,
            (*self.differing, *other.differing),
        )


def check_areas(truths: Sequence[Truth], stated: Mapping[str, float]) -> AreaCheck:
    """Compare the areas of one image's outlines with those that a file states, px by id."""
    inside = _find_enclosed(truths)
    enclosing = reduced = 0
    differing = []
    for index, truth in enumerate(truths):
        if truth.id not in stated:
            continue
        whole = truth.l0_outline.area
        enclosed = [truths[i].l0_outline for i in inside[index]]
        visible = whole - shapely.union_all(enclosed).area
        area = stated[truth.id]
        enclosing += bool(enclosed)
        reduced += abs(area - visible) < abs(area - whole)
        if not _is_same(area, visible) and not _is_same(area, whole):
            differing.append(truth.id)
    return AreaCheck(enclosing, reduced, tuple(differing))


@dataclass(frozen=True)
class Painted:
    """The visible parts of one image's outlines.

    Attributes:
        truths: the objects that are visible.
        cut: number of objects that lost a part.
        hidden: ids of the objects that others cover wholly.
    """

    truths: tuple[Truth, ...]
    cut: int
    hidden: tuple[str, ...]


def paint(truths: Sequence[Truth]) -> Painted:
    """Lay the outlines over each other, the outermost first, others in the order of the file."""
    depths = np.zeros(len(truths), dtype=int)
    for enclosed in _find_enclosed(truths):
        depths[enclosed] += 1
    order = np.argsort(depths, kind="stable")
    position = np.argsort(order)
    outlines = np.array([truth.l0_outline for truth in truths], dtype=object)
    meeting = _query(outlines, "intersects")
    painted: dict[int, Truth | None] = {}
    for index, truth in enumerate(truths):
        above = [i for i in meeting[index] if position[i] > position[index]]
        painted[index] = _cut(truth, outlines[above]) if above else truth
    found = tuple(left for i in order if (left := painted[int(i)]) is not None)
    cut = sum(one is not truths[i] for i, one in painted.items() if one is not None)
    hidden = tuple(truths[i].id for i, one in painted.items() if one is None)
    return Painted(found, cut, hidden)


def _cut(truth: Truth, above: NDArray[np.object_]) -> Truth | None:
    """Cut one outline out of another; None if nothing is left."""
    left = keep_polygons(truth.l0_outline.difference(shapely.union_all(above)))
    if left.is_empty:
        return None
    return truth if left.area == truth.l0_outline.area else replace(truth, l0_outline=left)


def _find_enclosed(truths: Sequence[Truth]) -> list[NDArray[np.intp]]:
    """For each outline, the indices of those wholly inside of it; of equal ones the later."""
    outlines = np.array([truth.l0_outline for truth in truths], dtype=object)
    inside = _query(outlines, "contains")
    return [
        np.array(
            [
                i
                for i in found
                if i > index or index not in inside[i]  # else both are the same
            ],
            dtype=np.intp,
        )
        for index, found in enumerate(inside)
    ]


def _query(outlines: NDArray[np.object_], predicate: str) -> list[NDArray[np.intp]]:
    """For each outline, the indices of the others for which a predicate holds."""
    pairs = shapely.STRtree(outlines).query(outlines, predicate=predicate)
    return [pairs[1][(pairs[0] == i) & (pairs[1] != i)] for i in range(len(outlines))]


def _is_same(one: float, other: float) -> bool:
    return abs(one - other) <= _SAME * max(one, other)
