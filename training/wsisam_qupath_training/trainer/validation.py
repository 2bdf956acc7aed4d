"""Dice by kind of prompt on the validation views, with the same prompts each time."""

from __future__ import annotations

import zlib
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from wsisam_qupath.model.decoders import Decoded
from wsisam_qupath.prompts import PromptKind

from ..sampling.prompt_sampling import Plan, PromptBatch, PromptMix, draw_first_prompts
from ..sampling.samples import SampleMasks
from .distributed import DistributedContext
from .losses import true_iou
from .sample_sources import SampleSource
from .targets import make_targets
from .trainable_decoder import TrainableDecoder

_OBJECTS = 2
"""Number of objects of each view that are asked for."""


@dataclass(frozen=True)
class ViewAnswer:
    """A decoder's answers to one kind of prompt about the first objects of a view.

    Attributes:
        view: index of the view.
        kind: kind of prompt, a name of :func:`plans`.
        prompts: one prompt per object, in the order of the view.
        truth: masks of all objects of the view.
        decoded: all masks of the answer to each prompt.
        ious: objects x masks, IoU of each mask with the whole object.
        dices: Dice by object, 0 to 1, of the mask with the highest predicted IoU.
    """

    view: int
    kind: str
    prompts: PromptBatch
    truth: SampleMasks
    decoded: Decoded
    ious: torch.Tensor
    dices: list[float]


def plans(mix: PromptMix) -> dict[str, Plan]:
    """Plans of the prompts that are measured, by name: the kinds that the mix teaches."""
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


def answer_views(
    trainable: TrainableDecoder,
    samples: SampleSource,
    mix: PromptMix,
    size_px: int,
    context: DistributedContext,
) -> Iterator[ViewAnswer]:
    """Ask a decoder all that a validation asks, view by view; the prompts are always the same.

    Args:
        size_px: side of the base's input, px.
    """
    for view in range(len(samples)):
        yield from _answer_view(trainable, samples, view, mix, size_px, context)


@torch.no_grad()
def _answer_view(
    trainable: TrainableDecoder,
    samples: SampleSource,
    view: int,
    mix: PromptMix,
    size_px: int,
    context: DistributedContext,
) -> list[ViewAnswer]:
    loaded = samples.load(view)
    truth = loaded.truth
    objects = list(range(min(_OBJECTS, len(truth.hr_masks))))
    with context.autocast():
        features = samples.features(loaded, trainable, context.device)
    wanted = make_targets(truth, objects, trainable.patch_count, context.device)
    answers = []
    for kind, plan in plans(mix).items():
        if plan.kind is PromptKind.POINTS and plan.positives < loaded.least_points:
            continue
        rng = np.random.default_rng((view, zlib.crc32(kind.encode())))
        prompts = draw_first_prompts(truth, objects, plan, mix, size_px, rng)
        with context.autocast():
            decoded = trainable.predict(features, prompts)
        ious = true_iou(decoded.logits, *wanted)
        best = ious.gather(1, decoded.iou.argmax(dim=1, keepdim=True))[:, 0]
        dices = (2 * best / (1 + best)).tolist()
        answers.append(ViewAnswer(view, kind, prompts, truth, decoded, ious, dices))
    return answers


def validate(
    trainable: TrainableDecoder,
    samples: SampleSource,
    mix: PromptMix,
    size_px: int,
    context: DistributedContext,
) -> dict[str, float]:
    """Compute the mean Dice of each kind, their mean, and the correlation of the predicted IoU.

    The answer is the mask with the highest predicted IoU; it is compared with the whole object.
    """
    dices: defaultdict[str, list[float]] = defaultdict(list)
    ious: list[tuple[float, float]] = []
    for answer in answer_views(trainable, samples, mix, size_px, context):
        dices[answer.kind] += answer.dices
        predicted, true = answer.decoded.iou, answer.ious
        answering = predicted.isfinite()
        ious += zip(predicted[answering].tolist(), true[answering].tolist(), strict=True)
    means = {name: 100 * float(np.mean(values)) for name, values in dices.items()}
    all_predicted, all_true = np.array(ious).T
    varies = all_predicted.std() > 0 and all_true.std() > 0
    correlated = float(np.corrcoef(all_predicted, all_true)[0, 1]) if varies else 0.0
    return {**means, "dice": float(np.mean(list(means.values()))), "iou_correlation": correlated}
