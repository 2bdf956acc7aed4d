"""Where objects may be: tops of the map of likeness, each with the ground that belongs to it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...geometry import Box, PatchPair, find_bounding_box
from ...geometry.polygons import blur
from ...prompts import Point
from .likeness import Map
from .tiles import list_places

LEAST_LIKENESS = 0.15
"""Lowest likeness of a top that is asked about."""

_BLUR_SHARE, _LEAST_BLUR = 0.08, 0.7
"""Blur of the map, as a share of an object's size and at least in places: smaller tops within an
object are no objects."""

_SLOPE_SHARE = 0.4
"""Share of the height of a top that its ground goes down to."""

_LEAST_GROUND = 4
"""Smallest ground, in places, that makes a rectangle to ask about."""

_OUTSIDE = -9.0


@dataclass(frozen=True)
class Place:
    """A place where an object may be.

    Attributes:
        l0_point: top of the hill of likeness, level-0 px.
        l0_box: box around the ground of that hill; None if it is too small.
        likeness: likeness at the top, -1 to 1.
    """

    l0_point: Point
    l0_box: Box | None
    likeness: float


def find_places(
    likeness: Map, unwanted: Map, pair: PatchPair, l0_middle: Box, size_um: float
) -> Iterator[Place]:
    """Find the tops of a map of likeness that lie in the middle of a tile.

    Args:
        likeness, unwanted: 64 x 64, over the HR patch: with what is looked for, and with what is
            not. Places that look more like the latter are left out.
        size_um: length of the objects, µm.
    """
    side = len(likeness)
    place_um = pair.hr_mpp * pair.size_px / side
    smooth = blur(likeness, max(_LEAST_BLUR, _BLUR_SHARE * size_um / place_um))
    top_of = _climb(smooth)
    l0_places = list_places(pair, side)
    for top in np.unique(top_of).tolist():
        row, column = divmod(top, side)
        height = float(smooth[row, column])
        x, y = l0_places[row, column].tolist()
        if height < LEAST_LIKENESS or not _owns(l0_middle, x, y):
            continue
        if unwanted[row, column] > likeness[row, column]:
            continue
        ground = (top_of == top) & (likeness > _SLOPE_SHARE * height)
        yield Place((x, y), _bound_ground(ground, pair), height)


def spread_places(pair: PatchPair, l0_middle: Box, step_um: float) -> Iterator[Place]:
    """Spread places on a regular grid, if nothing but the size of the objects is known."""
    mpp = pair.mpp
    for row in range(*_count_steps(l0_middle.y0 * mpp.y, l0_middle.y1 * mpp.y, step_um)):
        for column in range(*_count_steps(l0_middle.x0 * mpp.x, l0_middle.x1 * mpp.x, step_um)):
            yield Place((column * step_um / mpp.x, row * step_um / mpp.y), None, 0.0)


def _count_steps(start_um: float, end_um: float, step_um: float) -> tuple[int, int]:
    return int(np.ceil(start_um / step_um)), int(np.ceil(end_um / step_um))


def _owns(box: Box, x: float, y: float) -> bool:
    """Whether a point is in a box; the far edges of a box belong to the next one."""
    return box.x0 <= x < box.x1 and box.y0 <= y < box.y1


def _climb(field: Map) -> NDArray[np.intp]:
    """Find the top, as an index of the flat map, that each place reaches by going uphill."""
    rows, columns = field.shape
    padded = np.pad(field, 1, constant_values=_OUTSIDE)
    steps = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]
    around = np.stack([padded[1 + dy :, 1 + dx :][:rows, :columns] for dy, dx in steps])
    chosen = np.array(steps)[around.argmax(axis=0)]
    y, x = np.indices(field.shape)
    target: NDArray[np.intp] = ((y + chosen[..., 0]) * columns + x + chosen[..., 1]).ravel()
    while not np.array_equal(further := target[target], target):
        target = further
    return target.reshape(field.shape)


def _bound_ground(ground: NDArray[np.bool_], pair: PatchPair) -> Box | None:
    """Compute the box around places of a patch, level-0 px."""
    if ground.sum() < _LEAST_GROUND:
        return None
    rows, columns = np.nonzero(ground)
    edges = np.array([[columns.min(), rows.min()], [columns.max() + 1, rows.max() + 1]])
    return find_bounding_box(pair.hr_to_l0(edges * (pair.size_px / len(ground))))
