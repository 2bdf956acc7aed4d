"""Areas that people mark as background, and points of them near an object. Level-0 px."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import shapely
from shapely.geometry import MultiPolygon, Polygon
from shapely.geometry.base import BaseGeometry

from ..geometry import Box, FloatArray
from ..geometry.spreading import choose_far_apart
from ..geometry.validity import keep_polygons
from .prompt import PathClass, Plane, Point

BACKGROUND_POINTS = 3
"""Number of outside points that an area stands for when it corrects an outline; the decoder has
learned from one to ten."""

_GRID = 12
"""Number of candidate points along each axis."""

_NEAR_SHARE = 0.3
"""Share of the candidates that is used, the nearest: what lies far from an object says little about
its edge."""


@dataclass(frozen=True, slots=True)
class Background:
    """A drawn area of a class that ends in ``*``: no object is there."""

    id: str
    l0_area: Polygon | MultiPolygon
    path_class: PathClass | None = None
    plane: Plane = field(default_factory=Plane)

    def is_around(self, l0_object: BaseGeometry) -> bool:
        """Whether an object lies inside: the area is then the frame of a region."""
        return bool(self.l0_area.contains(l0_object.representative_point()))

    def sample(self, l0_window: Box, l0_object: BaseGeometry) -> tuple[Point, ...]:
        """Choose points of the area in a window: near an object, and apart from each other.

        Returns:
            The same for the same areas; none where the area does not meet the window.
        """
        box = l0_window.polygon
        shared = keep_polygons(shapely.intersection(self.l0_area, box))
        if shared.is_empty:
            return ()
        points = _list_inside(shared)
        distances = shapely.distance(shapely.points(points), l0_object)
        order = np.argsort(distances, kind="stable")
        near = order[: max(BACKGROUND_POINTS, round(_NEAR_SHARE * len(points)))]
        apart = choose_far_apart(points[near], BACKGROUND_POINTS)
        return tuple((x, y) for x, y in points[near][apart].tolist())


def _list_inside(area: Polygon | MultiPolygon) -> FloatArray:
    """List points of a regular grid inside of an area, N x 2; at least one, however thin it is."""
    x0, y0, x1, y1 = area.bounds
    shares = (np.arange(_GRID) + 0.5) / _GRID
    x, y = np.meshgrid(x0 + shares * (x1 - x0), y0 + shares * (y1 - y0))
    grid = np.stack([x.ravel(), y.ravel()], axis=1)
    inside: FloatArray = grid[shapely.contains_xy(area, grid)]
    if len(inside):
        return inside
    one = area.representative_point()
    return np.array([[one.x, one.y]])
