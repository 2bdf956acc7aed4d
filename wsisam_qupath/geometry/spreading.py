"""Choose some of many points that lie far apart."""

from __future__ import annotations

import numpy as np

from . import FloatArray


def choose_far_apart(points: FloatArray, count: int, *, first: int = 0) -> list[int]:
    """Choose points, each as far as possible from those chosen before.

    Args:
        points: N x 2, at least one.
        count: how many to choose; all if there are no more.
        first: index of the point that is chosen first.

    Returns:
        Their indices, as they were chosen.
    """
    chosen = [first]
    distances = np.linalg.norm(points - points[first], axis=1)
    while len(chosen) < min(count, len(points)):
        chosen.append(int(distances.argmax()))
        distances = np.minimum(distances, np.linalg.norm(points - points[chosen[-1]], axis=1))
    return chosen
