"""Choose the next click where a prediction is most wrong, as RITM and its successors do."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Click:
    """A pixel of a mask, and whether it lies inside of the object."""

    column: int
    row: int
    is_positive: bool


def next_click(
    truth: Mask, predicted: Mask, clicked: Mask, known: Mask | None = None
) -> Click | None:
    """Choose the deepest point of the larger error.

    False negatives and false positives are measured by an exact Euclidean distance transform in
    which the border of the image counts as outside. Of equally deep errors the negative click is
    taken; of equally deep points the first, row by row.

    Args:
        truth, predicted: H x W masks.
        clicked: H x W, pixels that were clicked before; they are never clicked again.
        known: H x W, pixels where the annotation is known; errors elsewhere do not count. None is
            everywhere.

    Returns:
        None where no error is left to click on.
    """
    missed, extra = truth & ~predicted, predicted & ~truth
    if known is not None:
        missed, extra = missed & known, extra & known
    missed_depth, extra_depth = (_depth(error) * ~clicked for error in (missed, extra))
    is_positive = bool(missed_depth.max() > extra_depth.max())
    depth = missed_depth if is_positive else extra_depth
    row, column = np.unravel_index(int(depth.argmax()), depth.shape)
    if depth[row, column] == 0:
        return None
    return Click(int(column), int(row), is_positive)


def _depth(error: Mask) -> NDArray[np.float64]:
    """Distance of each wrong pixel to the nearest right one, or to the border; 0 elsewhere."""
    if not error.any():
        return np.zeros(error.shape)
    depth: NDArray[np.float64] = distance_transform_edt(np.pad(error, 1))[1:-1, 1:-1]
    return depth
