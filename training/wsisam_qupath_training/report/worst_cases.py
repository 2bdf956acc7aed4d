"""Pictures of the validation cases that trained decoders answered worst."""

from __future__ import annotations

import heapq
import io
from dataclasses import dataclass
from itertools import groupby

import numpy as np
from PIL import Image
from shapely.geometry import MultiPolygon, Polygon

from wsisam_qupath.geometry import Box, Mpp, PatchPair
from wsisam_qupath.geometry.polygons import mask_to_polygon
from wsisam_qupath.prompts import Prompt
from wsisam_qupath.prompts.encoding import MASK_PX, NEGATIVE, POSITIVE, MaskArray
from wsisam_qupath.report.overlay import Rgb, Sketch

from ..sampling.prompt_sampling import PromptBatch, choose_masks
from ..sampling.samples import Mask, Sample, SamplingSettings, name_objects, read_patches
from ..trainer.distributed import DistributedContext
from ..trainer.sample_sources import SampleSource
from ..trainer.trainable_decoder import TrainableDecoder
from ..trainer.training_data import TrainingData
from ..trainer.validation import ViewAnswer, answer_views

PICTURE_PX = 320
TRUTH_RGB: Rgb = (48, 209, 88)
ANSWER_RGB: Rgb = (10, 132, 255)

_FRAME = PatchPair(MASK_PX / 2, MASK_PX / 2, 1.0, MASK_PX, Mpp(1.0, 1.0))
"""A pair with mask pixels as its level-0 pixels."""


@dataclass(frozen=True)
class WorstPrediction:
    """An answer with a low Dice on a validation view.

    Attributes:
        decoder, kind: the decoder that answered, and the kind of prompt; see :func:`.plans`.
        sample, number: index of the view, and of the object in it.
        dice: Dice of the answer, percent.
        prompts: the prompts of all objects of the view that were asked for.
        truth, logits: 256 x 256 true mask, and logits of the answer.
    """

    decoder: str
    kind: str
    sample: int
    number: int
    dice: float
    prompts: PromptBatch
    truth: Mask
    logits: MaskArray


@dataclass(frozen=True)
class Case:
    """A bad answer, drawn for the report.

    Attributes:
        decoder, kind, dice: see :class:`WorstPrediction`.
        dataset, image: names of the dataset and the image.
        object_id: name of the object in its image; QuPath's id for objects of QuPath.
        jpeg: picture of the HR patch with the prompt, the truth and the answer.
    """

    decoder: str
    kind: str
    dice: float
    dataset: str
    image: str
    object_id: str
    jpeg: bytes


def find_worst_predictions(
    decoder: str,
    trainable: TrainableDecoder,
    samples: SampleSource,
    *,
    size_px: int,
    context: DistributedContext,
    count: int,
) -> list[WorstPrediction]:
    """Find the answers with the lowest Dice, the worst first, one per object of a view.

    Args:
        decoder: name of the decoder.
        trainable: the network, with its trained weights.
        samples: validation views; they are asked the same as in a validation.
        size_px: side of the base's input, px.
    """
    answers = answer_views(trainable, samples, trainable.settings.mix, size_px, context)
    worst = (
        min(own, key=lambda prediction: prediction.dice)
        for _, of_view in groupby(answers, key=lambda answer: answer.view)
        for own in zip(*(_list_predictions(decoder, answer) for answer in of_view), strict=True)
    )
    return heapq.nsmallest(count, worst, key=lambda prediction: prediction.dice)


def _list_predictions(decoder: str, answer: ViewAnswer) -> list[WorstPrediction]:
    """List the answers about each object that was asked for."""
    masks = choose_masks(*(part.float().cpu().numpy() for part in answer.decoded)).hr
    return [
        WorstPrediction(
            decoder, answer.kind, answer.view, number, 100 * dice, answer.prompts,
            answer.truth.hr_masks[number], mask,
        )
        for number, (dice, mask) in enumerate(zip(answer.dices, masks, strict=True))
    ]  # fmt: skip


def picture(
    prediction: WorstPrediction, sample: Sample, data: TrainingData, settings: SamplingSettings
) -> Case:
    """Draw an answer on the pixels that it was given on.

    Raises:
        SlideError: they cannot be read.
    """
    image, slide = data.images[sample.image], data.slides[sample.image]
    patch, _ = read_patches(slide, sample)
    drawn = Image.fromarray(patch).resize((PICTURE_PX, PICTURE_PX), Image.Resampling.BICUBIC)
    sketch = Sketch(drawn.convert("RGBA"), Box(0, 0, MASK_PX, MASK_PX), line_px=2)
    if (answered := _outline(prediction.logits)) is not None:
        sketch.fill(answered, ANSWER_RGB)
        sketch.trace(answered, ANSWER_RGB)
    if (wanted := _outline(np.where(prediction.truth, 1, -1).astype(np.float32))) is not None:
        sketch.trace(wanted, TRUTH_RGB)
    sketch.prompt(_make_prompt(prediction.prompts, prediction.number, sample.pair.size_px))
    encoded = io.BytesIO()
    sketch.picture.convert("RGB").save(encoded, format="JPEG", quality=88)
    return Case(
        prediction.decoder,
        prediction.kind,
        prediction.dice,
        image.dataset,
        image.name,
        name_objects(image, sample, settings)[prediction.number],
        encoded.getvalue(),
    )


def _make_prompt(prompts: PromptBatch, row: int, size_px: int) -> Prompt:
    """Make one prompt of a batch, in mask px."""
    mask_per_hr = MASK_PX / size_px
    points = [(float(x), float(y)) for x, y in prompts.points[row] * mask_per_hr]
    labelled = list(zip(points, prompts.click_labels[row].tolist(), strict=True))
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
