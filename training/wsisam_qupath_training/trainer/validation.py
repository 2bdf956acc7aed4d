"""Dice by kind of prompt on the validation views, with the same prompts each time."""

from __future__ import annotations

import zlib
from collections import defaultdict

import numpy as np
import torch

from wsisam_qupath.prompts import PromptKind

from ..sampling.prompt_sampling import Plan, PromptMix, draw_first_prompts
from .distributed import DistributedContext
from .losses import true_iou
from .sample_sources import SampleSource
from .targets import make_targets
from .trainable_decoder import TrainableDecoder

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
    trainable: TrainableDecoder,
    samples: SampleSource,
    mix: PromptMix,
    size_px: int,
    context: DistributedContext,
) -> dict[str, float]:
    """Mean Dice of each kind, their mean as ``dice``, and the correlation of the predicted IoU.

    The answer is the mask with the highest predicted IoU; it is compared with the whole object.
    """
    dices: defaultdict[str, list[float]] = defaultdict(list)
    ious: list[tuple[float, float]] = []
    for index in range(len(samples)):
        loaded = samples.load(index)
        objects = list(range(min(_OBJECTS, len(loaded.truth.hr_masks))))
        features = samples.features(loaded, trainable, context.device)
        wanted = make_targets(loaded.truth, objects, trainable.patch_count, context.device)
        for name, plan in plans(mix).items():
            rng = np.random.default_rng((index, zlib.crc32(name.encode())))
            prompts = draw_first_prompts(loaded.truth, objects, plan, mix, size_px, rng)
            with context.autocast():
                prediction = trainable.predict(features, prompts)
            iou = true_iou(prediction.logits, *wanted)
            chosen = prediction.iou.argmax(dim=1, keepdim=True)
            best = iou.gather(1, chosen)[:, 0]
            dices[name] += (2 * best / (1 + best)).tolist()
            answering = prediction.iou.isfinite()
            ious += zip(prediction.iou[answering].tolist(), iou[answering].tolist(), strict=True)
    means = {name: 100 * float(np.mean(values)) for name, values in dices.items()}
    predicted, true = np.array(ious).T
    varies = predicted.std() > 0 and true.std() > 0
    correlated = float(np.corrcoef(predicted, true)[0, 1]) if varies else 0.0
    return {**means, "dice": float(np.mean(list(means.values()))), "iou_correlation": correlated}
