"""Dice by kind of prompt on the validation views, with the same prompts each time."""

from __future__ import annotations

import zlib
from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from wsisam_qupath.prompts import PromptKind

from .draws import Plan, PromptMix, first_prompts
from .learner import Learner, Wanted
from .losses import true_iou
from .views import SeenTruth

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
    """Mean Dice of each kind, their mean as ``dice``, and the correlation of the predicted IoU.

    The answer is the mask with the highest predicted IoU; it is compared with the whole object.
    """
    dices: defaultdict[str, list[float]] = defaultdict(list)
    ious: list[tuple[float, float]] = []
    for index in range(len(views)):
        loaded = views.load(index)
        objects = list(range(min(_OBJECTS, len(loaded.truth.hr_masks))))
        images = views.images(loaded, learner, place.device)
        wanted = wanted_of(loaded.truth, objects, learner.patches, place)
        for name, plan in plans(mix).items():
            rng = np.random.default_rng((index, zlib.crc32(name.encode())))
            prompts = first_prompts(loaded.truth, objects, plan, mix, size_px, rng)
            with place.autocast():
                answer = learner.answer(images, prompts)
            iou = true_iou(answer.logits, *wanted)
            chosen = answer.iou.argmax(dim=1, keepdim=True)
            best = iou.gather(1, chosen)[:, 0]
            dices[name] += (2 * best / (1 + best)).tolist()
            ious += zip(answer.iou.float().ravel().tolist(), iou.ravel().tolist(), strict=True)
    means = {name: 100 * float(np.mean(values)) for name, values in dices.items()}
    predicted, true = np.array(ious).T
    varies = predicted.std() > 0 and true.std() > 0
    correlated = float(np.corrcoef(predicted, true)[0, 1]) if varies else 0.0
    return {**means, "dice": float(np.mean(list(means.values()))), "iou_correlation": correlated}


def wanted_of(
    truth: SeenTruth, objects: Sequence[int] | NDArray[np.intp], patches: int, place: Place
) -> Wanted:
    """The truth of some objects of a view over the patches that are read, on the device."""
    masks = np.stack([truth.hr_masks[objects], truth.lr_masks[objects]], axis=1)[:, :patches]
    known = np.stack([truth.hr_known, truth.lr_known])[None, :patches]
    whole_px = truth.hr_whole_px[objects][:, None] * np.array([1.0, 0.25])[:patches]
    return Wanted(
        *(
            torch.from_numpy(array.astype(np.float32)).to(place.device)
            for array in (masks, known, whole_px)
        )
    )
