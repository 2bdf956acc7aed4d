"""The view of QuPath as a slide that nothing else is known of, and one object in it."""

from __future__ import annotations

from contextlib import closing

from shapely.geometry import MultiPolygon, Polygon

from ...geojson.shapes import geometry_json, snap_to_grid
from ...geometry import Box, Mpp
from ...inference.segmenter import Segmenter
from ...options import MOST_CANDIDATES, OutlineOptions
from ...prompts import Plane, Point, Prompt, PromptSet, clip_to_slide, require_all_usable
from ...prompts.results import Result, list_candidates
from ..budget import Reservation
from ..client_pixels import SentImage, SentPixels
from ..config import Limits
from ..decoding import decode_image, make_field_problem
from ..queue import QueueSlot
from ..service import Record
from .schemas import SamRequest

VIEW_PX_PER_PATCH_PX = 2
"""Pixels of the view per encoder pixel of a click's patch: nothing says how large the objects are,
but people view an object at a size that is good to see."""

SIMPLIFY_PX, MIN_AREA_PX2 = 0.5, 40.0
"""How far an outline may stray, and the area below which parts are dropped, pixels of the view."""


def open_view(b64img: str, segmenter: Segmenter, limits: Limits, memory: Reservation) -> SentPixels:
    """Open the pixels of a view; its pixel size is where the weights are best.

    Raises:
        ProblemError: see :func:`.decode_image`.
    """
    rgb, sha256 = decode_image(b64img, "b64img", limits, memory)
    height, width = rgb.shape[:2]
    mpp = segmenter.predictor.hr_mpp / VIEW_PX_PER_PATCH_PX
    images = (SentImage(Box(0, 0, width, height), rgb, sha256),)
    return SentPixels(width, height, Mpp(mpp, mpp), images)


def outline_options(
    view: SentPixels, *, min_area_px2: float = MIN_AREA_PX2, candidates: int = 1
) -> OutlineOptions:
    """Choose how outlines are drawn, stated in the µm that the view pretends to have."""
    mpp = view.mpp.x
    return OutlineOptions(
        simplify_um=SIMPLIFY_PX * mpp, min_area_um2=min_area_px2 * mpp**2, candidates=candidates
    )


def outline_object(
    segmenter: Segmenter, view: SentPixels, request: SamRequest, slot: QueueSlot, limits: Limits
) -> list[Record]:
    """Outline the one object that a request marks.

    Returns:
        Features in pixels of the view, the likeliest first; none where the model sees no object.

    Raises:
        ProblemError: nothing marks an object, or a mask does.
        PromptError: what marks it lies outside of the view.
    """
    prompts = PromptSet((_make_prompt(request, limits),))
    usable = require_all_usable(clip_to_slide(prompts, view.l0_box))
    options = outline_options(view, candidates=MOST_CANDIDATES if request.multimask_output else 1)
    answers = segmenter.segment(view, usable, options, turn=slot.turn, check=slot.check)
    with closing(answers):
        return [
            make_feature(one.polygon, one.predicted_iou, segmenter)
            for answer in answers
            if isinstance(answer, Result)
            for one in list_candidates(answer)
        ]


def make_feature(
    polygon: Polygon | MultiPolygon, predicted_iou: float, segmenter: Segmenter
) -> Record:
    """Make a feature as the extension reads it.

    It makes a class of any ``object_idx`` that it gets, and a click has none to give.
    """
    predictor = segmenter.predictor
    return {
        "type": "Feature",
        "geometry": geometry_json(snap_to_grid(polygon), Plane()),
        "properties": {
            "objectType": "annotation",
            "object_idx": None,
            "label": "object",
            "quality": round(predicted_iou, 6),
            "sam_model": predictor.adapter.name if predictor.adapter else predictor.base.name,
        },
    }


def _make_prompt(request: SamRequest, limits: Limits) -> Prompt:
    points = request.point_coords or []
    labels = request.point_labels or []
    if len(points) != len(labels):
        raise make_field_problem(
            "point_labels", f"there are {len(labels)} for {len(points)} points"
        )
    if request.b64mask is not None:
        raise make_field_problem(
            "b64mask", "a mask is not taken here; mark with a rectangle or with points"
        )
    centers = [(x + 0.5, y + 0.5) for x, y in points]
    inside = tuple(p for p, label in zip(centers, labels, strict=True) if label == 1)
    outside = tuple(p for p, label in zip(centers, labels, strict=True) if label == 0)
    if request.bbox is None and not inside:
        raise make_field_problem(
            "point_coords",
            "neither a rectangle nor a point inside of the object lies in the part of the image "
            "that QuPath shows; move the view there",
        )
    if len(points) > limits.points:
        inside, outside = (_thin(some, limits.points // 2) for some in (inside, outside))
    box = None if request.bbox is None else _read_box(request.bbox)
    return Prompt("the object", l0_box=box, l0_positives=inside, l0_negatives=outside)


def _thin(points: tuple[Point, ...], most: int) -> tuple[Point, ...]:
    """Choose some of many points, evenly: of an outline, the extension sends every vertex."""
    step = -(-len(points) // most) or 1
    return points[::step]


def _read_box(bbox: tuple[float, float, float, float]) -> Box:
    x0, y0, x1, y1 = bbox
    box = Box(min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1))
    if min(box.width, box.height) < 1:
        raise make_field_problem(
            "bbox", "the rectangle is smaller than a pixel of the view; zoom in"
        )
    return box
