"""Draw training prompts: boxes with noise, points, coarse masks, and further clicks.

All prompts of a step have the same kind and the same number of tokens, so that they run as one
batch without padding, which would change the answers. HR px; masks are 256 x 256.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict
from pydantic import Field as Limited
from shapely.geometry import MultiPolygon, Polygon

from wsisam_qupath.geometry import Mpp, PatchPair
from wsisam_qupath.geometry.polygons import mask_to_polygon, outline_to_mask
from wsisam_qupath.prompts import PromptKind
from wsisam_qupath.prompts.encoding import (
    BOTTOM_RIGHT,
    CLAMP_LOGIT,
    MASK_PX,
    NEGATIVE,
    OUTLINE_LOGIT,
    PADDING,
    POSITIVE,
    TOP_LEFT,
    MaskArray,
    project_mask_to_hr,
    project_mask_to_lr,
)

from .clicker import next_click
from .noise import BoxNoise, add_box_noise, bend_edge, find_tight_box, roughen_edge
from .samples import SampleMasks

Mask = NDArray[np.bool_]
Rng = np.random.Generator

_FRAME = PatchPair(MASK_PX / 2, MASK_PX / 2, 1.0, MASK_PX, Mpp(1.0, 1.0))
"""A pair with mask pixels as its level-0 pixels."""

_LR_FRAME = replace(_FRAME, hr_mpp=2.0)
"""The LR patch of that pair as the HR patch of another."""


class PromptMix(BaseModel):
    """Which prompts are asked in training, and how often.

    Attributes:
        box, points, box_points, outline: how often each kind begins a step, relative to the others.
        box_noise, box_noise_kind: size, as a share of the box's side, and kind of the noise of its
            edges; see :func:`.add_box_noise`.
        cut_boxes: whether boxes and coarse masks are also drawn for objects that the patch cuts
            off; otherwise only where no object of the view is whole.
        single_point_share: share of the steps with points that have a single one.
        most_points: largest number of points in the other steps; the number is drawn uniformly from
            2 to this.
        deepest_share: share of the first points that lie at the deepest place of their object.
        negative_share: share of the steps with points that have one to three negative ones.
        sequence_share: share of the steps with points (box_points too) that have further clicks.
        most_clicks: largest number of further clicks; it is drawn uniformly from 1 to this.
        clicker_share: share of the further clicks that lie in the deepest error; the others are
            random pixels of an error.
        outline_feedback_share: share of the answers fed back as mask prompts that come back as an
            outline, as in QuPath; the others come back as logits.
        outline_noise: standard deviation of a coarse mask's edge, as a share of the object's size;
            see :func:`.bend_edge`.
        outline_band_px: instead, add noise to each pixel that is so near to the boundary, mask px;
            see :func:`.roughen_edge`.
        outline_box_share: share of the steps with coarse masks in which each comes with the box
            around it, as in use.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    box: float = Limited(default=0.2, ge=0)
    points: float = Limited(default=0.55, ge=0)
    box_points: float = Limited(default=0.15, ge=0)
    outline: float = Limited(default=0.1, ge=0)
    box_noise: float = Limited(default=0.05, ge=0, le=0.5)
    box_noise_kind: BoxNoise = "normal"
    cut_boxes: bool = False
    single_point_share: float = Limited(default=0.4, ge=0, le=1)
    most_points: int = Limited(default=10, ge=2)
    deepest_share: float = Limited(default=0.25, ge=0, le=1)
    negative_share: float = Limited(default=0.3, ge=0, le=1)
    sequence_share: float = Limited(default=0.6, ge=0, le=1)
    most_clicks: int = Limited(default=6, ge=1)
    clicker_share: float = Limited(default=0.6, ge=0, le=1)
    outline_feedback_share: float = Limited(default=0.5, ge=0, le=1)
    outline_noise: float = Limited(default=0.08, ge=0)
    outline_band_px: float | None = Limited(default=None, gt=0)
    outline_box_share: float = Limited(default=1.0, ge=0, le=1)


@dataclass(frozen=True)
class Plan:
    """What all prompts of one step share.

    Attributes:
        kind: kind of the first prompt; never outline+points.
        positives, negatives: number of points inside and outside of the object.
        clicks: number of further clicks.
        feeds_outlines: whether answers are fed back as outlines.
        has_box: whether a coarse mask comes with the box around it.
    """

    kind: PromptKind
    positives: int = 0
    negatives: int = 0
    clicks: int = 0
    feeds_outlines: bool = False
    has_box: bool = True


@dataclass(frozen=True)
class PromptBatch:
    """B prompts of one kind on one view.

    Attributes:
        points, click_labels: B x P x 2 float32 (x, y), HR px, and B x P: all clicks so far, and
            their labels.
        boxes: B x 2 x 2 corners, HR px; None without boxes.
        hr_masks, lr_masks: B x 256 x 256 mask logits over the patches; both or neither.
    """

    points: NDArray[np.float32]
    click_labels: NDArray[np.int64]
    boxes: NDArray[np.float32] | None = None
    hr_masks: MaskArray | None = None
    lr_masks: MaskArray | None = None

    @cached_property
    def point_coords(self) -> NDArray[np.float32]:
        """B x N x 2: points, then the box or one padding token, as in :func:`.encode_prompt`.

        A mask alone has no tokens, as in SAM.
        """
        last = self.boxes
        if last is None:
            last = np.zeros((len(self.points), self._n_padding, 2), dtype=np.float32)
        return np.concatenate([self.points, last], axis=1).astype(np.float32)

    @cached_property
    def point_labels(self) -> NDArray[np.int64]:
        """B x N labels of the points and corners, as in :func:`.encode_prompt`."""
        last = [TOP_LEFT, BOTTOM_RIGHT]
        if self.boxes is None:
            last = [PADDING] * self._n_padding
        tail = np.tile(np.array(last, dtype=np.int64), (len(self.points), 1))
        return np.concatenate([self.click_labels, tail], axis=1)

    @property
    def _n_padding(self) -> int:
        return int(self.points.shape[1] > 0)


def draw_plan(mix: PromptMix, rng: Rng, least_points: int = 1) -> Plan:
    """Draw the plan of one step.

    Args:
        least_points: of a prompt that has points alone.
    """
    kinds = (PromptKind.BOX, PromptKind.POINTS, PromptKind.BOX_POINTS, PromptKind.OUTLINE)
    shares = np.array([mix.box, mix.points, mix.box_points, mix.outline])
    kind = kinds[int(rng.choice(len(kinds), p=shares / shares.sum()))]
    if kind in {PromptKind.BOX, PromptKind.OUTLINE}:
        has_box = kind is PromptKind.BOX or mix.outline_box_share >= 1
        return Plan(kind, has_box=has_box or bool(rng.random() < mix.outline_box_share))
    is_single = rng.random() < mix.single_point_share
    positives = 1 if is_single else int(rng.integers(2, mix.most_points + 1))
    if kind is PromptKind.POINTS:
        positives = max(positives, least_points)
    negatives = int(rng.integers(1, 4)) if rng.random() < mix.negative_share else 0
    clicks = int(rng.integers(1, mix.most_clicks + 1)) if rng.random() < mix.sequence_share else 0
    feeds_outlines = bool(rng.random() < mix.outline_feedback_share)
    return Plan(kind, positives, negatives, clicks, feeds_outlines)


def draw_objects(
    masks: SampleMasks, plan: Plan, mix: PromptMix, count: int, rng: Rng
) -> NDArray[np.intp]:
    """Draw the objects of a view that are asked for, with repetition.

    A box is drawn around a whole object, unless the mix says otherwise; where none is whole, parts
    must do.
    """
    allowed = np.arange(len(masks.hr_masks))
    if plan.kind is not PromptKind.POINTS and not mix.cut_boxes and masks.is_whole.any():
        allowed = np.flatnonzero(masks.is_whole)
    if len(allowed) >= count:
        return rng.choice(allowed, size=count, replace=False)
    return np.concatenate([allowed, rng.choice(allowed, size=count - len(allowed))])


def draw_first_prompts(
    masks: SampleMasks, objects: Sequence[int], plan: Plan, mix: PromptMix, size_px: int, rng: Rng
) -> PromptBatch:
    """Draw the first prompt of each object."""
    hr_per_mask = size_px / MASK_PX
    truths = [masks.hr_masks[index] for index in objects]
    if plan.kind is PromptKind.OUTLINE:
        coarse = [_coarsen_mask(mask, mix, rng) for mask in truths]
        return make_outline_prompts(coarse, size_px, with_boxes=plan.has_box)
    clicks = [_clicks(masks, mask, plan, mix, rng) for mask in truths]
    boxes = None
    if plan.kind is not PromptKind.POINTS:
        boxes = _draw_boxes(truths, mix, rng) * hr_per_mask
    return PromptBatch(
        np.stack([points for points, _ in clicks]).astype(np.float32) * np.float32(hr_per_mask),
        np.stack([point_labels for _, point_labels in clicks]),
        None if boxes is None else boxes.astype(np.float32),
    )


class PairMasks(NamedTuple):
    """Answers as mask logits over both patches of a pair, B x 256 x 256 each.

    Attributes:
        is_lr: B, whether the answer was given over the LR patch; otherwise it ends where the HR
            patch does.
    """

    hr: MaskArray
    lr: MaskArray
    is_lr: NDArray[np.bool_]


def choose_masks(logits: MaskArray, ious: NDArray[np.float32]) -> PairMasks:
    """Choose the mask with the highest predicted IoU, and project it to both patches.

    Args:
        logits: B x R x 256 x 256 mask logits.
        ious: B x R predicted IoUs.
    """
    is_lr = ious.argmax(axis=1) == 1
    hr = [a[1] if lr else a[0] for a, lr in zip(logits, is_lr, strict=True)]
    return PairMasks(
        np.stack([project_mask_to_hr(m) if lr else m for m, lr in zip(hr, is_lr, strict=True)]),
        np.stack([m if lr else project_mask_to_lr(m) for m, lr in zip(hr, is_lr, strict=True)]),
        is_lr,
    )


def add_clicks(
    batch: PromptBatch,
    answers: PairMasks,
    masks: SampleMasks,
    objects: Sequence[int],
    plan: Plan,
    mix: PromptMix,
    size_px: int,
    rng: Rng,
) -> PromptBatch:
    """Add one click to each prompt, and the last answers as mask prompts.

    Args:
        answers: the last answers.
    """
    hr_per_mask = size_px / MASK_PX
    points, point_labels = [], []
    for index, answer in zip(objects, answers.hr, strict=True):
        truth, predicted = masks.hr_masks[index], answer > 0
        column, row, label = _choose_correction(truth, predicted, masks.hr_known, mix, rng)
        points.append(((column + 0.5) * hr_per_mask, (row + 0.5) * hr_per_mask))
        point_labels.append(label)
    added = np.array(points, dtype=np.float32)[:, None]
    clicked = replace(
        batch,
        points=np.concatenate([batch.points, added], axis=1),
        click_labels=np.concatenate(
            [batch.click_labels, np.array(point_labels, dtype=np.int64)[:, None]], axis=1
        ),
    )
    return _feed_back(clicked, answers, plan, size_px)


def make_outline_prompts(
    masks: Sequence[Mask], size_px: int, *, with_boxes: bool = True
) -> PromptBatch:
    """Make prompts of coarse masks: a mask prompt, and the box around it if wanted."""
    count, hr_per_mask = len(masks), size_px / MASK_PX
    boxes = np.stack([find_tight_box(m) for m in masks]).astype(np.float32)
    hr_masks = np.stack([np.where(m, OUTLINE_LOGIT, -OUTLINE_LOGIT) for m in masks])
    return PromptBatch(
        np.zeros((count, 0, 2), dtype=np.float32),
        np.zeros((count, 0), dtype=np.int64),
        boxes * np.float32(hr_per_mask) if with_boxes else None,
        hr_masks.astype(np.float32),
        np.stack([_lr_outline(m.astype(np.float32)) for m in hr_masks]),
    )


def _draw_boxes(masks: Sequence[Mask], mix: PromptMix, rng: Rng) -> NDArray[np.float64]:
    """Draw boxes with noise, B x 2 x 2, mask px."""
    return np.stack([add_box_noise(m, mix.box_noise, rng, mix.box_noise_kind) for m in masks])


def _coarsen_mask(mask: Mask, mix: PromptMix, rng: Rng) -> Mask:
    if mix.outline_band_px is not None:
        return roughen_edge(mask, mix.outline_band_px, rng)
    return bend_edge(mask, mix.outline_noise, rng)


def _clicks(
    masks: SampleMasks, mask: Mask, plan: Plan, mix: PromptMix, rng: Rng
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Draw positive, then negative points, mask px."""
    positives = _pixels(mask, plan.positives, rng)
    if plan.positives and rng.random() < mix.deepest_share:
        nothing = np.zeros_like(mask)
        deepest = next_click(mask, nothing, nothing)
        if deepest is not None:
            positives[0] = deepest.column + 0.5, deepest.row + 0.5
    neighbors = masks.hr_objects & ~mask
    elsewhere = masks.hr_known & ~mask
    area = neighbors if neighbors.any() and rng.random() < 0.5 else elsewhere
    negatives = _pixels(area if area.any() else ~mask, plan.negatives, rng)
    point_labels = [POSITIVE] * plan.positives + [NEGATIVE] * plan.negatives
    return np.concatenate([positives, negatives]), np.array(point_labels, dtype=np.int64)


def _pixels(area: Mask, count: int, rng: Rng) -> NDArray[np.float64]:
    """Points anywhere in the pixels of an area, count x 2 (x, y); the middle where it is empty."""
    inside = np.argwhere(area)
    if not len(inside):
        return np.full((count, 2), MASK_PX / 2)
    chosen = inside[rng.integers(len(inside), size=count)]
    points: NDArray[np.float64] = chosen[:, ::-1] + rng.random((count, 2))
    return points


def _choose_correction(
    truth: Mask, predicted: Mask, known: Mask, mix: PromptMix, rng: Rng
) -> tuple[int, int, int]:
    """Choose column, row and label of a click on an error; on the object if there is none."""
    errors = (truth ^ predicted) & known
    if errors.any() and rng.random() >= mix.clicker_share:
        row, column = np.argwhere(errors)[rng.integers(int(errors.sum()))]
        return int(column), int(row), POSITIVE if truth[row, column] else NEGATIVE
    click = next_click(truth, predicted, np.zeros_like(truth), known)
    if click is None:
        click = next_click(truth, np.zeros_like(truth), np.zeros_like(truth))
    if click is None:
        return MASK_PX // 2, MASK_PX // 2, POSITIVE
    return click.column, click.row, POSITIVE if click.is_positive else NEGATIVE


def _feed_back(batch: PromptBatch, answers: PairMasks, plan: Plan, size_px: int) -> PromptBatch:
    """Turn answers into the mask prompts of the next click."""
    if plan.feeds_outlines:
        found = [_trace_outline(answers, index) for index in range(len(answers.hr))]
        outlines = [outline for outline in found if outline is not None]
        if len(outlines) == len(found):
            hr_masks = np.stack([_outline_logits(o, 1.0) for o in outlines])
            boxes = np.stack([np.reshape(o.bounds, (2, 2)) for o in outlines])
            return replace(
                batch,
                boxes=(boxes * (size_px / MASK_PX)).astype(np.float32),
                hr_masks=hr_masks,
                lr_masks=np.stack([_outline_logits(o, 2.0) for o in outlines]),
            )
    hr_masks, lr_masks = (
        np.clip(masks, -CLAMP_LOGIT, CLAMP_LOGIT).astype(np.float32) for masks in answers[:2]
    )
    return replace(batch, hr_masks=hr_masks, lr_masks=lr_masks)


def _trace_outline(answers: PairMasks, index: int) -> Polygon | MultiPolygon | None:
    """Trace an answer's outline, HR mask px; it may reach beyond the HR patch."""
    masks, frame = (answers.lr, _LR_FRAME) if answers.is_lr[index] else (answers.hr, _FRAME)
    return mask_to_polygon(masks[index], frame, simplify_um=0.25, min_area_um2=0.0)


def _outline_logits(outline: Polygon | MultiPolygon, zoom: float) -> MaskArray:
    return outline_to_mask(outline, _FRAME, zoom=zoom, magnitude=OUTLINE_LOGIT)


def _lr_outline(hr_mask: MaskArray) -> MaskArray:
    """Draw an outline over the LR patch; everything beyond the HR patch is outside of it."""
    lr_mask: MaskArray = np.maximum(project_mask_to_lr(hr_mask), np.float32(-OUTLINE_LOGIT))
    return lr_mask
