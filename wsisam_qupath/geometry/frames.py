"""The coordinate frames and the concentric patch pair. No I/O, no model.

One word per frame, used as a prefix everywhere:

``l0_``
    Level-0 pixels of the slide, as QuPath counts them: x to the right, y down, (0, 0) is the
    outer corner of the first pixel *inside the slide's bounds*, so pixel (i, j) covers
    [i, i + 1) x [j, j + 1).
``hr_``
    Encoder pixels of the high-resolution patch, [0, size_px] in both axes, same corner rule.
``lr_``
    Encoder pixels of the concentric low-resolution patch, which is twice as wide.
``mask_``
    Pixels of the 256 x 256 mask that the decoder answers with; it spans the whole HR patch.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry import Polygon
from shapely.geometry.base import BaseGeometry

FloatArray: TypeAlias = NDArray[np.float64]
"""Points, N x 2 float64, (x, y)."""


@dataclass(frozen=True)
class Mpp:
    """Pixel size of a slide's level 0, µm per pixel along each axis."""

    x: float
    y: float


@dataclass(frozen=True, slots=True)
class Box:
    """An axis-aligned rectangle, XYXY, in the frame that the variable's prefix names."""

    x0: float
    y0: float
    x1: float
    y1: float

    @property
    def width(self) -> float:
        return self.x1 - self.x0

    @property
    def height(self) -> float:
        return self.y1 - self.y0

    @property
    def center(self) -> tuple[float, float]:
        return (self.x0 + self.x1) / 2, (self.y0 + self.y1) / 2

    @property
    def polygon(self) -> Polygon:
        """The rectangle as a polygon."""
        polygon: Polygon = shapely.box(self.x0, self.y0, self.x1, self.y1)
        return polygon

    @classmethod
    def around(cls, geometry: BaseGeometry) -> Box:
        """Compute the bounding box of a geometry that is not empty."""
        return cls(*geometry.bounds)

    def corners(self) -> FloatArray:
        """Top left and bottom right, 2 x 2 (x, y)."""
        return np.array([[self.x0, self.y0], [self.x1, self.y1]], dtype=np.float64)

    def contains(self, x: float, y: float) -> bool:
        """Whether (x, y) lies inside or on the edge."""
        return self.x0 <= x <= self.x1 and self.y0 <= y <= self.y1

    def grow(self, x: float, y: float) -> Box:
        """Compute the rectangle that is larger by x and y on each side."""
        return Box(self.x0 - x, self.y0 - y, self.x1 + x, self.y1 + y)

    def intersection(self, other: Box) -> Box:
        """Compute the shared rectangle; its size is zero or negative if there is none."""
        return Box(
            max(self.x0, other.x0),
            max(self.y0, other.y0),
            min(self.x1, other.x1),
            min(self.y1, other.y1),
        )


def unite_boxes(boxes: Iterable[Box]) -> Box:
    """Compute the bounding box of boxes, of which there is at least one."""
    return find_bounding_box(np.concatenate([box.corners() for box in boxes]))


def find_bounding_box(points: FloatArray) -> Box:
    """Compute the bounding box of N x 2 points (N ≥ 1), in their own frame."""
    (x0, y0), (x1, y1) = points.min(axis=0), points.max(axis=0)
    return Box(float(x0), float(y0), float(x1), float(y1))


@dataclass(frozen=True)
class PatchPair:
    """Two concentric square patches: HR, and LR twice as wide (WSI-SAM, section 2.2).

    Hashable: together with the slide it names an embedding.

    Attributes:
        l0_x, l0_y: the common center, level-0 px.
        hr_mpp: µm per encoder pixel of the HR patch; the LR patch has twice that.
        size_px: side of each patch in encoder pixels (256 or 1024).
        mpp: pixel size of the slide's level 0.
    """

    l0_x: float
    l0_y: float
    hr_mpp: float
    size_px: int
    mpp: Mpp

    @property
    def hr_l0_box(self) -> Box:
        """The area that the HR patch covers, level-0 px."""
        return self._l0_box(1.0)

    @property
    def lr_l0_box(self) -> Box:
        """The area that the LR patch covers, level-0 px."""
        return self._l0_box(2.0)

    @property
    def l0_boxes(self) -> tuple[Box, Box]:
        """The areas that the HR and the LR patch cover, level-0 px."""
        return self.hr_l0_box, self.lr_l0_box

    @property
    def coarser(self) -> PatchPair:
        """The pair twice as coarse: its HR patch is this one's LR patch."""
        return replace(self, hr_mpp=2 * self.hr_mpp)

    @property
    def finer(self) -> PatchPair:
        """The pair twice as fine: its LR patch is this one's HR patch."""
        return replace(self, hr_mpp=self.hr_mpp / 2)

    def _l0_box(self, zoom: float) -> Box:
        half_x, half_y = (zoom * self.size_px / 2) * self._l0_per_hr
        return Box(self.l0_x - half_x, self.l0_y - half_y, self.l0_x + half_x, self.l0_y + half_y)

    @property
    def _l0_per_hr(self) -> FloatArray:
        return self.hr_mpp / np.array([self.mpp.x, self.mpp.y], dtype=np.float64)

    @property
    def _l0_origin(self) -> FloatArray:
        box = self.hr_l0_box
        return np.array([box.x0, box.y0], dtype=np.float64)

    def l0_to_hr(self, l0_points: FloatArray) -> FloatArray:
        """Convert N x 2 level-0 px to HR px."""
        scaled: FloatArray = (l0_points - self._l0_origin) / self._l0_per_hr
        return scaled

    def hr_to_l0(self, hr_points: FloatArray) -> FloatArray:
        """Convert N x 2 HR px to level-0 px."""
        scaled: FloatArray = hr_points * self._l0_per_hr + self._l0_origin
        return scaled
