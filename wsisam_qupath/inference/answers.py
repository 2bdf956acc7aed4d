"""Turn the masks of a patch pair into an answer: choose one, judge its fit, list alternatives.

An answer that runs into the edge of its patch is not an answer: it would be cut off straight. Then
the other patch answers or, where that is cut off too, the same prompt is asked on the coarser
pair, which has the LR patch of this one as its HR patch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry import MultiPolygon, Polygon

from ..geometry import Box, PatchPair
from ..geometry.polygons import mask_to_polygon, smooth_mask, stability_score
from ..geometry.validity import keep_polygons
from ..options import OutlineOptions
from ..prompts import Prompt
from ..prompts.encoding import MaskArray
from ..slide import PixelSource
from .backends import Patch, Prediction

CUT_SHARE = 0.02
"""An answer is cut off if it covers more than this share of the length of one edge of its patch."""

MOST_ESCALATIONS = 6
"""How often a prompt is asked on a coarser pair: from 0.25 to 16 µm per pixel."""

CRUMB_SHARE = 0.1
"""Share of the area of an answer's largest part below which another part is a crumb of the mask."""

_SAME_IOU = 0.8
"""IoU above which two outlines are one candidate."""


@dataclass(frozen=True)
class Outline:
    """One mask of an answer as an outline.

    Attributes:
        polygon: valid polygon, level-0 px; cut at the edge of the slide.
        predicted_iou, stability_score: see :class:`.Result`.
        pair, patch: patch pair, and the patch of it that the mask covers.
    """

    polygon: Polygon | MultiPolygon
    predicted_iou: float
    stability_score: float
    pair: PatchPair
    patch: Patch


@dataclass(frozen=True)
class Answer:
    """Outlines that answer a prompt, the best first.

    Attributes:
        outlines: none where the model sees no object, or one that is too small.
        is_too_small: whether all parts of the mask are smaller than the options allow.
    """

    outlines: tuple[Outline, ...]
    is_too_small: bool = False

    def explain_nothing(self, options: OutlineOptions) -> str:
        """Say why there is no outline, in a few words for the user."""
        if not self.is_too_small:
            return "the model sees no object there"
        return (
            f"what the model sees there is smaller than {options.min_area_um2:g} µm², the minimum "
            "area; is the pixel size of the image right?"
        )


@dataclass(frozen=True)
class Question:
    """A prompt, and how it was answered on finer pairs.

    Attributes:
        fits_hr: see :meth:`.Planner.fits_hr`; as it was for the first pair.
        earlier: masks that answered on finer pairs, each with its pair.
    """

    prompt: Prompt
    fits_hr: bool = False
    earlier: tuple[tuple[PatchPair, Prediction], ...] = ()
    escalations: int = 0

    def keep(self, pair: PatchPair, predictions: Sequence[Prediction]) -> Question:
        """Make the same question for a coarser pair."""
        added = tuple((pair, prediction) for prediction in predictions)
        return replace(self, earlier=(*self.earlier, *added), escalations=self.escalations + 1)


def choose_answer(
    slide: PixelSource,
    pair: PatchPair,
    question: Question,
    predictions: Sequence[Prediction],
    options: OutlineOptions,
) -> Answer | None:
    """Choose the answer to a prompt on its pair.

    Args:
        predictions: masks over the patches of the pair, the best first.

    Returns:
        None where the prompt has to be asked on the coarser pair.
    """
    whole = [p for p in predictions if not is_cut_off(p, pair, slide.l0_box)]
    best = _find_best(predictions, whole)
    if best is None:
        if question.escalations < MOST_ESCALATIONS and _can_be_coarser(
            pair, predictions, slide.l0_box
        ):
            return None
        best = predictions[-1] if predictions[-1].patch == "lr" else predictions[0]
    ranked = [(pair, best)]
    if options.candidates > 1 and question.prompt.l0_extent is None:
        others = [(pair, p) for p in whole if p is not best]
        others += [(p, m) for p, m in question.earlier if not is_cut_off(m, p, slide.l0_box)]
        ranked += sorted(others, key=lambda one: -one[1].predicted_iou)
    background = question.prompt.l0_background
    outlines = (make_outline(slide, p, mask, options) for p, mask in ranked)
    cut = (one and _cut_background(one, background) for one in outlines)
    found = [_drop_crumbs(one, question.prompt) for one in cut if one is not None]
    kept = tuple(_drop_repeated(found)[: options.candidates])
    return Answer(kept, is_too_small=not kept and _is_too_small(slide, pair, best, options))


def is_cut_off(prediction: Prediction, pair: PatchPair, l0_box: Box) -> bool:
    """Whether a mask runs into an edge of its patch that does not lie outside of the slide."""
    inside = prediction.mask_logits > 0
    patch_l0_box = _find_patch_l0_box(pair, prediction.patch)
    edges: tuple[tuple[bool, NDArray[np.bool_]], ...] = (
        (patch_l0_box.x0 > l0_box.x0, inside[:, 0]),
        (patch_l0_box.y0 > l0_box.y0, inside[0]),
        (patch_l0_box.x1 < l0_box.x1, inside[:, -1]),
        (patch_l0_box.y1 < l0_box.y1, inside[-1]),
    )
    least = CUT_SHARE * len(inside)
    return any(is_in_slide and edge.sum() > least for is_in_slide, edge in edges)


def _find_best(predictions: Sequence[Prediction], whole: Sequence[Prediction]) -> Prediction | None:
    """Find the best uncut mask; an empty one only if all are empty, None if all are cut off.

    A whole HR mask goes before a better LR mask that is cut off: it needs no further encode.
    """
    if all(prediction.is_empty for prediction in predictions):
        return predictions[0]
    return next((prediction for prediction in whole if not prediction.is_empty), None)


def _can_be_coarser(pair: PatchPair, predictions: Sequence[Prediction], l0_box: Box) -> bool:
    """Whether the coarsest patch that was read leaves out a part of the slide."""
    is_lr_read = any(prediction.patch == "lr" for prediction in predictions)
    read = _find_patch_l0_box(pair, "lr" if is_lr_read else "hr")
    return read.x0 > l0_box.x0 or read.y0 > l0_box.y0 or read.x1 < l0_box.x1 or read.y1 < l0_box.y1


def _find_patch_l0_box(pair: PatchPair, patch: Patch) -> Box:
    return pair.hr_l0_box if patch == "hr" else pair.lr_l0_box


def make_outline(
    slide: PixelSource, pair: PatchPair, prediction: Prediction, options: OutlineOptions
) -> Outline | None:
    """Trace the outline of a mask over a patch of a pair; None if nothing is left of it."""
    mask: MaskArray = prediction.mask_logits
    polygon = mask_to_polygon(
        smooth_mask(mask),
        pair if prediction.patch == "hr" else pair.coarser,
        simplify_um=options.simplify_um,
        min_area_um2=options.min_area_um2,
    )
    if polygon is not None:
        polygon = _clip_to_slide(polygon, slide.l0_box)
    if polygon is None:
        return None
    return Outline(polygon, prediction.predicted_iou, stability_score(mask), pair, prediction.patch)


def _is_too_small(
    slide: PixelSource, pair: PatchPair, prediction: Prediction, options: OutlineOptions
) -> bool:
    """Whether a mask has an outline where parts of any size may stay, and none where not."""
    of_any_size = replace(options, min_area_um2=0.0)
    return (
        make_outline(slide, pair, prediction, options) is None
        and make_outline(slide, pair, prediction, of_any_size) is not None
    )


def _clip_to_slide(polygon: Polygon | MultiPolygon, l0_box: Box) -> Polygon | MultiPolygon | None:
    """Cut an outline at the slide's edge: a patch may reach over it."""
    cut = keep_polygons(shapely.intersection(polygon, l0_box.polygon))
    return None if cut.is_empty else cut


def _cut_background(outline: Outline, background: Polygon | MultiPolygon | None) -> Outline | None:
    """Cut the background out of an outline; None if nothing is left of it."""
    if background is None:
        return outline
    left = keep_polygons(shapely.difference(outline.polygon, background))
    return None if left.is_empty else replace(outline, polygon=left)


def _drop_crumbs(outline: Outline, prompt: Prompt) -> Outline:
    """Drop parts far smaller than the largest one.

    Those in which a positive point lies stay, and those that the outline to refine or correct has.
    """
    if isinstance(outline.polygon, Polygon):
        return outline
    parts = outline.polygon.geoms
    least = CRUMB_SHARE * max(part.area for part in parts)
    clicks = shapely.points(np.reshape(prompt.l0_positives, (-1, 2)))
    given = prompt.l0_earlier or prompt.l0_outline
    meant = [*clicks, *_list_smaller_parts(given)]
    kept = [part for part in parts if part.area >= least or part.intersects(meant).any()]
    return replace(outline, polygon=kept[0] if len(kept) == 1 else MultiPolygon(kept))


def _list_smaller_parts(polygon: Polygon | MultiPolygon | None) -> list[Polygon]:
    """List the parts of an outline but for the largest one."""
    if not isinstance(polygon, MultiPolygon):
        return []
    return sorted(polygon.geoms, key=lambda part: part.area)[:-1]


def _drop_repeated(outlines: Sequence[Outline]) -> list[Outline]:
    """Drop outlines that are nearly the same as a better one."""
    kept: list[Outline] = []
    for outline in outlines:
        if all(_overlap(outline, other) < _SAME_IOU for other in kept):
            kept.append(outline)
    return kept


def _overlap(one: Outline, other: Outline) -> float:
    shared = shapely.intersection(one.polygon, other.polygon).area
    return float(shared / (one.polygon.area + other.polygon.area - shared))
