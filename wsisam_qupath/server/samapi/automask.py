"""Find all objects of a view: ask a grid of clicks, each on its own patch, and choose."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from shapely.geometry import MultiPolygon, Polygon

from ...geometry import Box, FloatArray, PatchPair
from ...geometry.polygons import stability_score
from ...inference.answers import is_cut_off, make_outline
from ...inference.backends import Embedding, Prediction
from ...inference.find.tiles import STEP_SHARE
from ...inference.segmenter import PROMPTS_AT_ONCE, Segmenter
from ...prompts import Point, Prompt
from ..client_pixels import SentPixels
from ..config import Limits
from ..problems import ProblemError
from ..queue import QueueSlot
from .schemas import AutoMaskRequest
from .view import outline_options

_MOST_SCALES = 8
"""Most scales, each twice as coarse as the one before, so that the last patch covers any view."""

_EDGE_PX = 1.0
"""Distance from the edge of the view below which an outline counts as cut by it."""


@dataclass(frozen=True)
class FoundObject:
    """One object of a view.

    Attributes:
        polygon: valid outline, pixels of the view.
        predicted_iou: the model's estimate of its IoU, 0 to 1.
        layer: number of the grid that found it, from 0.
    """

    polygon: Polygon | MultiPolygon
    predicted_iou: float
    layer: int


def find_everything(
    segmenter: Segmenter,
    view: SentPixels,
    request: AutoMaskRequest,
    slot: QueueSlot,
    limits: Limits,
) -> list[FoundObject]:
    """Ask a grid of clicks; keep what is sure, and the surest where boxes overlap.

    Raises:
        ProblemError: the grids have more clicks than a request may have prompts.
    """
    sides = count_points(request)
    count = sum(side**2 for side in sides)
    if count > limits.prompts:
        raise ProblemError(
            "too-large",
            f"These are {count} clicks, and {limits.prompts} are taken at a time. Choose fewer "
            "points per side, or fewer crop layers.",
        )
    asker = _Asker(segmenter, view, request, slot)
    found = [
        one
        for layer, side in enumerate(sides)
        for one in asker.find(layer, _spread_points(view.l0_box, side))
    ]
    return drop_overlapping(found, request)


class _Asker:
    """Asks the clicks of one view."""

    def __init__(
        self, segmenter: Segmenter, view: SentPixels, request: AutoMaskRequest, slot: QueueSlot
    ) -> None:
        self._segmenter, self._view, self._request, self._slot = segmenter, view, request, slot
        self._options = outline_options(view, min_area_px2=request.min_mask_region_area)
        self._planner = segmenter.planner(view, self._options)

    def find(self, layer: int, points: Sequence[Point]) -> Iterator[FoundObject]:
        """Find the objects at the points of one grid."""
        found: dict[Point, list[FoundObject]] = defaultdict(list)
        for point, pair, prediction in self._ask_whole(points, self._planner.hr_mpp / 2**layer):
            one = self._make_object(pair, prediction, layer)
            if one is not None:
                found[point].append(one)
        for candidates in found.values():
            yield from choose_candidates(candidates, self._request.output_type)

    def _ask_whole(
        self, points: Sequence[Point], hr_mpp: float
    ) -> Iterator[tuple[Point, PatchPair, Prediction]]:
        """Find masks that no patch cuts off: of one scale, or of two if several masks count."""
        asked = points
        for scale in range(_MOST_SCALES):
            cut = []
            for point, pair, prediction in self._ask(asked, hr_mpp * 2**scale):
                if is_cut_off(prediction, pair, self._view.l0_box):
                    cut.append(point)
                elif not prediction.is_empty:
                    yield point, pair, prediction
            is_second_wanted = scale == 0 and self._request.output_type != "single mask"
            asked = points if is_second_wanted else cut
            if not asked:
                return

    def _ask(
        self, points: Sequence[Point], hr_mpp: float
    ) -> Iterator[tuple[Point, PatchPair, Prediction]]:
        """Ask one mask for each point, on the patch with the point in its middle part."""
        by_pair: defaultdict[PatchPair, list[Point]] = defaultdict(list)
        for point in points:
            by_pair[self._find_tile(point, hr_mpp)].append(point)
        embedded = self._segmenter.embed_pairs(
            self._view, list(by_pair), turn=self._slot.turn, check=self._slot.check
        )
        for pair, embedding in embedded:
            for start in range(0, len(by_pair[pair]), PROMPTS_AT_ONCE):
                some = by_pair[pair][start : start + PROMPTS_AT_ONCE]
                for point, prediction in self._answer(pair, embedding, some):
                    yield point, pair, prediction

    def _find_tile(self, point: Point, hr_mpp: float) -> PatchPair:
        """Find the patch around a point; patches lie half of their length apart, to be shared."""
        step_um, mpp = STEP_SHARE * self._planner.size_px * hr_mpp, self._view.mpp
        x_um, y_um = (round(um / step_um) * step_um for um in (point[0] * mpp.x, point[1] * mpp.y))
        return self._planner.place_pair((x_um / mpp.x, y_um / mpp.y), hr_mpp)

    def _answer(
        self, pair: PatchPair, embedding: Embedding, points: Sequence[Point]
    ) -> Iterator[tuple[Point, Prediction]]:
        prompts = [Prompt("click", l0_positives=(point,)) for point in points]
        self._slot.check()
        with self._slot.turn():
            answers = self._segmenter.answer(pair, embedding, prompts)
        return zip(points, (predictions[0] for predictions in answers), strict=True)

    def _make_object(
        self, pair: PatchPair, prediction: Prediction, layer: int
    ) -> FoundObject | None:
        """Make the object of a mask; None if it is not sure enough, or not wanted."""
        request = self._request
        if prediction.predicted_iou < request.pred_iou_thresh:
            return None
        stability = stability_score(prediction.mask_logits, request.stability_score_offset)
        if stability < request.stability_score_thresh:
            return None
        outline = make_outline(self._view, pair, prediction, self._options)
        if outline is None:
            return None
        if not request.include_image_edge and _touches_edge(outline.polygon, self._view.l0_box):
            return None
        return FoundObject(outline.polygon, prediction.predicted_iou, layer)


def count_points(request: AutoMaskRequest) -> list[int]:
    """Count how many points the grid of each layer has along a side of the view."""
    return [_count_side(request, layer) for layer in range(request.crop_n_layers + 1)]


def _count_side(request: AutoMaskRequest, layer: int) -> int:
    per_crop = request.points_per_side // max(1, request.crop_n_points_downscale_factor) ** layer
    return int(max(1, per_crop) * 2**layer)


def _spread_points(l0_box: Box, side: int) -> list[Point]:
    """List the centers of side x side equal parts of a view, in its pixels."""
    steps = [(number + 0.5) / side for number in range(side)]
    return [(x * l0_box.width, y * l0_box.height) for y in steps for x in steps]


def _touches_edge(polygon: Polygon | MultiPolygon, l0_box: Box) -> bool:
    x0, y0, x1, y1 = polygon.bounds
    return bool(min(x0 - l0_box.x0, y0 - l0_box.y0, l0_box.x1 - x1, l0_box.y1 - y1) < _EDGE_PX)


def choose_candidates(candidates: Sequence[FoundObject], output_type: str) -> Sequence[FoundObject]:
    """Choose which answers to one point are wanted."""
    if output_type == "multi-mask (largest)":
        return [max(candidates, key=lambda one: one.polygon.area)]
    if output_type == "multi-mask (smallest)":
        return [min(candidates, key=lambda one: one.polygon.area)]
    if output_type == "multi-mask (best quality)":
        return [max(candidates, key=lambda one: one.predicted_iou)]
    return candidates


def drop_overlapping(found: Sequence[FoundObject], request: AutoMaskRequest) -> list[FoundObject]:
    """Drop objects with boxes that overlap the box of a surer one; the surest come first."""
    ranked = sorted(found, key=lambda each: -each.predicted_iou)
    boxes = np.array([one.polygon.bounds for one in ranked]).reshape(-1, 4)
    layers = np.array([one.layer for one in ranked])
    is_kept = np.ones(len(ranked), dtype=np.bool_)
    for number in range(len(ranked)):
        if is_kept[number]:
            rest = slice(number + 1, None)
            is_same_grid = layers[rest] == layers[number]
            limits = np.where(is_same_grid, request.box_nms_thresh, request.crop_nms_thresh)
            is_kept[rest] &= _measure_overlaps(boxes[number], boxes[rest]) <= limits
    return [one for one, kept in zip(ranked, is_kept, strict=True) if kept]


def _measure_overlaps(box: FloatArray, others: FloatArray) -> FloatArray:
    """Compute the intersection over union of a box with N others, XYXY: 4 and N x 4 give N."""
    sides = np.minimum(box[2:], others[:, 2:]) - np.maximum(box[:2], others[:, :2])
    shared = sides.clip(min=0).prod(axis=1)
    areas = (others[:, 2:] - others[:, :2]).prod(axis=1)
    overlaps: FloatArray = shared / ((box[2:] - box[:2]).prod() + areas - shared)
    return overlaps
