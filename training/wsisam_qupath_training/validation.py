"""Dice by kind of prompt on the validation views, with the same prompts each time."""

from __future__ import annotations

import zlib
from collections import defaultdict
from typing import TYPE_CHECKING

import numpy as np
import torch

from wsisam_qupath.prompts import PromptKind

from .draws import Plan, PromptMix, first_prompts
from .learner import Learner
from .losses import true_iou

if TYPE_CHECKING:
    from .loop import Place, Views

_OBJECTS = 2
"""Of each view."""


def plans(mix: PromptMix) -> dict[str, Plan]:
    """What is measured, by name: the kinds that the mix teaches."""
    found: dict[str, Plan] = {}
    if mix.box:
        found["box"] = Plan(PromptKind.BOX)
    if mix.outline:
        found["outline"] = Plan(PromptKind.OUTLINE)
    if mix.points:
        found |= {f"{n}_points": Plan(PromptKind.POINTS, positives=n) for n in (1, 3, 10)}
    if mix.box_points:
        found["box_points"] = Plan(PromptKind.BOX_POINTS, positives=1)
    return found


@torch.no_grad()
def validate(
    learner: Learner, views: Views, mix: PromptMix, size_px: int, place: Place
) -> dict[str, float]:
    """Mean Dice of each kind, their mean as ``dice``, and the correlation of the predicted IoU."""
    dices: defaultdict[str, list[float]] = defaultdict(list)
    ious: list[tuple[float, float]] = []
    for index in range(len(views)):
        loaded = views.load(index)
        objects = list(range(min(_OBJECTS, len(loaded.truth.hr_masks))))
        images = views.images(loaded, learner, place.device)
        known = _mask(loaded.truth.hr_known[None], place)
        truth = _mask(loaded.truth.hr_masks[objects], place)
        for name, plan in plans(mix).items():
            rng = np.random.default_rng((index, zlib.crc32(name.encode())))
            prompts = first_prompts(loaded.truth, objects, plan, mix, size_px, rng)
            with place.autocast():
                answer = learner.answer(images, prompts)
            iou = true_iou(answer.hr_logits, truth, known)
            dices[name] += (2 * iou / (1 + iou)).tolist()
            ious += zip(answer.iou.float().tolist(), iou.tolist(), strict=True)
    means = {name: 100 * float(np.mean(values)) for name, values in dices.items()}
    predicted, true = np.array(ious).T
    varies = predicted.std() > 0 and true.std() > 0
    correlated = float(np.corrcoef(predicted, true)[0, 1]) if varies else 0.0
    return {**means, "dice": float(np.mean(list(means.values()))), "iou_correlation": correlated}


def _mask(mask: np.ndarray, place: Place) -> torch.Tensor:
    return torch.from_numpy(mask.astype(np.float32)).to(place.device)
