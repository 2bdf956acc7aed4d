"""How well an outline fits an annotated object, by areas and distances of boundaries."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import shapely
from shapely.affinity import scale
from shapely.geometry import MultiPolygon, Polygon

from wsisam_qupath.geometry import Mpp
from wsisam_qupath.geometry.validity import keep_polygons

Outline: TypeAlias = Polygon | MultiPolygon

TOLERANCE_UM = 5.0
"""Boundaries that run at most this far apart count as the same."""


@dataclass(frozen=True)
class Fit:
    """How well an answer fits the truth where the annotation is known; all values are 0 to 1.

    Attributes:
        dice, iou: overlap of the areas of answer and truth.
        surface_dice: normalized surface Dice (Nikolov et al. 2021): the share of both boundaries
            that runs at most :data:`TOLERANCE_UM` from the other one.
    """

    dice: float
    iou: float
    surface_dice: float


NOTHING = Fit(0.0, 0.0, 0.0)
"""Fit of an empty answer, or of one that misses the object."""


def measure_fit(l0_truth: Outline, l0_answer: Outline | None, l0_known: Outline, mpp: Mpp) -> Fit:
    """Compare an answer with the whole object; unannotated areas do not count.

    Args:
        l0_truth, l0_answer: valid outlines, level-0 px; None is an empty answer.
        l0_known: area in which the annotation is known; see :func:`.find_known_part`.
        mpp: pixel size of the slide.
    """
    if l0_answer is None:
        return NOTHING
    truth, answer = (
        keep_polygons(shapely.intersection(o, l0_known)) for o in (l0_truth, l0_answer)
    )
    shared = float(shapely.intersection(truth, answer).area)
    if not shared:
        return NOTHING
    total = truth.area + answer.area
    return Fit(2 * shared / total, shared / (total - shared), _measure_surface(truth, answer, mpp))


def _measure_surface(truth: Outline, answer: Outline, mpp: Mpp) -> float:
    lines = [scale(outline, mpp.x, mpp.y, origin=(0, 0)).boundary for outline in (truth, answer)]
    near = sum(
        shapely.intersection(line, other.buffer(TOLERANCE_UM)).length
        for line, other in (lines, reversed(lines))
    )
    return float(near / sum(line.length for line in lines))
