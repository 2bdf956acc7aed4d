"""The validation cases that trained decoders answered worst, as pictures."""

from __future__ import annotations

import heapq
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from shapely.geometry import MultiPolygon, Polygon

from wsisam_qupath.geometry import Box, Mpp, PatchPair
from wsisam_qupath.overlay import Rgb, Sketch
from wsisam_qupath.polygons import mask_to_polygon
from wsisam_qupath.prompts import Prompt
from wsisam_qupath.tokens import MASK_PX, NEGATIVE, POSITIVE, MaskArray

from .draws import PromptBatch, chosen_answers, first_prompts
from .learner import Learner
from .loop import Place, Views
from .losses import true_iou
from .material import Material
from .validation import plans, wanted_of
from .views import Mask, View, ViewSettings, read_patches, see

PICTURE_PX = 320
TRUTH_RGB: Rgb = (48, 209, 88)
ANSWER_RGB: Rgb = (10, 132, 255)

_OBJECTS = 2
"""Of each view, as in validation."""

_FRAME = PatchPair(MASK_PX / 2, MASK_PX / 2, 1.0, MASK_PX, Mpp(1.0, 1.0))
"""A pair whose level-0 pixels are mask pixels."""


@dataclass(frozen=True)
class Answered:
    """An answer on a validation view.

    Attributes:
        decoder, kind: who answered, and what was asked; see :func:`.plans`.
        view, number: index of the view, and of the object in it.
        dice: percent.
        prompts: of all objects of the view that were asked for.
        truth, logits: 256 x 256.
    """

    decoder: str
    kind: str
    view: int
    number: int
    dice: float
    prompts: PromptBatch
    truth: Mask
    logits: MaskArray


@dataclass(frozen=True)
class Case:
    """An answer to look at.

    Attributes:
        decoder, kind, dice: see :class:`Answered`.
        dataset, image: of the field.
        jpeg: the HR patch with the prompt, the truth and the answer.
    """

    decoder: str
    kind: str
    dice: float
    dataset: str
    image: str
    jpeg: bytes


def worst_answers(
    decoder: str, learner: Learner, views: Views, *, size_px: int, place: Place, count: int
) -> list[Answered]:
    """The answers with the lowest Dice, the worst first: of each object only one.

    Args:
        decoder: its name.
        learner: with its trained weights.
        views: of the validation; they are asked what validation asks.
        size_px: of the base's input.
    """
    answers = (
        answer
        for index in range(len(views))
        for answer in _worst_of_view(decoder, learner, views, index, size_px, place)
    )
    return heapq.nsmallest(count, answers, key=lambda answer: answer.dice)


def seen_views(
    material: Material, settings: ViewSettings, without: Sequence[str]
) -> tuple[View, ...]:
    """The views of a part that hold an object, in the order in which they are trained with."""
    return tuple(
        view
        for view in material.views
        if (field := material.fields[view.field]).dataset not in without
        and len(see(field, view, settings).hr_masks)
    )


def picture(answer: Answered, view: View, material: Material) -> Case:
    """Draw an answer on the pixels that it was given on.

    Raises:
        SlideError: they cannot be read.
    """
    field, slide = material.fields[view.field], material.slides[view.field]
    patch, _ = read_patches(slide, view)
    drawn = Image.fromarray(patch).resize((PICTURE_PX, PICTURE_PX), Image.Resampling.BICUBIC)
    sketch = Sketch(drawn.convert("RGBA"), Box(0, 0, MASK_PX, MASK_PX), line_px=2)
    if (answered := _outline(answer.logits)) is not None:
        sketch.fill(answered, ANSWER_RGB)
        sketch.trace(answered, ANSWER_RGB)
    if (wanted := _outline(np.where(answer.truth, 1, -1).astype(np.float32))) is not None:
        sketch.trace(wanted, TRUTH_RGB)
    sketch.prompt(_asked(answer.prompts, answer.number, view.pair.size_px))
    encoded = io.BytesIO()
    sketch.picture.convert("RGB").save(encoded, format="JPEG", quality=88)
    return Case(
        answer.decoder, answer.kind, answer.dice, field.dataset, field.name, encoded.getvalue()
    )


@torch.no_grad()
def _worst_of_view(
    decoder: str, learner: Learner, views: Views, index: int, size_px: int, place: Place
) -> list[Answered]:
    """For each object the kind of prompt that was answered worst."""
    loaded, mix = views.load(index), learner.settings.mix
    truth = loaded.truth
    objects = list(range(min(_OBJECTS, len(truth.hr_masks))))
    images = views.images(loaded, learner, place.device)
    wanted = wanted_of(truth, objects, learner.patches, place)
    answers: list[list[Answered]] = [[] for _ in objects]
    for kind, plan in plans(mix).items():
        rng = np.random.default_rng((index, len(kind)))  # as in validation: the same prompts
        prompts = first_prompts(truth, objects, plan, mix, size_px, rng)
        with place.autocast():
            answer = learner.answer(images, prompts)
        chosen = answer.iou.argmax(dim=1, keepdim=True)
        iou = true_iou(answer.logits, *wanted).gather(1, chosen)[:, 0]
        dices = (200 * iou / (1 + iou)).tolist()
        masks = chosen_answers(*(part.float().cpu().numpy() for part in answer)).hr
        for number, mask in zip(objects, masks, strict=True):
            answers[number].append(
                Answered(
                    decoder, kind, index, number, dices[number], prompts,
                    truth.hr_masks[number], mask,
                )
            )  # fmt: skip
    return [min(own, key=lambda answer: answer.dice) for own in answers]


def _asked(prompts: PromptBatch, row: int, size_px: int) -> Prompt:
    """One prompt of a batch, in mask px."""
    mask_per_hr = MASK_PX / size_px
    points = [(float(x), float(y)) for x, y in prompts.points[row] * mask_per_hr]
    labelled = list(zip(points, prompts.point_labels[row].tolist(), strict=True))
    box = None
    if prompts.boxes is not None:
        box = Box(*(prompts.boxes[row] * mask_per_hr).ravel().tolist())
    return Prompt(
        str(row),
        l0_box=box,
        l0_outline=None if prompts.hr_masks is None else _outline(prompts.hr_masks[row]),
        l0_positives=tuple(point for point, label in labelled if label == POSITIVE),
        l0_negatives=tuple(point for point, label in labelled if label == NEGATIVE),
    )


def _outline(logits: MaskArray) -> Polygon | MultiPolygon | None:
    return mask_to_polygon(logits, _FRAME, simplify_um=0.25, min_area_um2=0.0)
