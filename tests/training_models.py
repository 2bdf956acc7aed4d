"""Training in small: fields of rectangles, features by formula in place of an encoder's, runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch

from evaluate_models import SQUARE, TALL, make_field
from models import PLAIN_BASE
from wsisam_qupath.backends import Encoded, ImageArray
from wsisam_qupath.model.bases import Base
from wsisam_qupath.model.card import DecoderCard
from wsisam_qupath.slide import Slide
from wsisam_qupath_training.draws import PromptMix
from wsisam_qupath_training.feature_cache import FeatureCache, fill_cache
from wsisam_qupath_training.fields import Field
from wsisam_qupath_training.learner import Learner
from wsisam_qupath_training.loop import Place, Run, Trained, Views
from wsisam_qupath_training.settings import DecoderSettings
from wsisam_qupath_training.views import View, ViewSettings, sample_views

OBJECT_RGB, TISSUE_RGB = (140, 80, 150), (230, 200, 220)
"""Of a field that :func:`.make_field` makes."""

PLAIN_VIEWS = ViewSettings(
    zoomed_share=0,
    default_share=1,
    scale_jitter=0,
    centre_jitter=0.05,
    on_point_share=0,
    stain_jitter=0,
    mixing_jitter=0,
)
"""At 1 µm/px, with neither jitter of scale nor of stain; centres and turns differ."""

ONLY_BOXES = PromptMix(box=1, points=0, box_points=0, outline=0, box_noise=0)
ONLY_POINTS = PromptMix(box=0, points=1, box_points=0, outline=0, sequence_share=1, most_clicks=2)

TUNED_SAM = DecoderSettings(
    scope="decoder",
    card=DecoderCard(architecture="sam"),
    mix=ONLY_BOXES,
    steps=4,
    objects_per_step=1,
    warm_up_steps=0,
)
WSI_SAM = DecoderSettings(
    scope="adapter",
    card=DecoderCard(architecture="wsi-sam", add_sam_logits=False, iou_head=True),
    mix=ONLY_BOXES,
    steps=4,
    objects_per_step=1,
    warm_up_steps=0,
)

CPU = Place(torch.device("cpu"))
_TOKENS = 64
_COLOURS = np.random.default_rng(0).normal(size=(3, 1024))
"""How red, green and blue show in each channel of the features."""


class FormulaEncoder:
    """Tells the colour of each place; an encoder that needs no time.

    Attributes:
        encoded: how many patches were.
        fails_after: so many patches are encoded, then the process is interrupted.
    """

    name = "formula"

    def __init__(self, base: Base = PLAIN_BASE, fails_after: int | None = None) -> None:
        self._base = base
        self.encoded = 0
        self.fails_after = fails_after

    def encode(self, patches: Sequence[ImageArray]) -> Encoded:
        if self.fails_after is not None and self.encoded >= self.fails_after:
            raise KeyboardInterrupt
        self.encoded += len(patches)
        side = self._base.size_px // _TOKENS
        blocks = np.stack(patches).reshape(len(patches), _TOKENS, side, _TOKENS, side, 3)
        colours = blocks.mean(axis=(2, 4)) / 255 - 0.7
        tokens = colours.reshape(len(patches), -1, 3) @ _COLOURS[:, :256]
        early = np.moveaxis(colours @ _COLOURS[:, -self._base.early_channels :], -1, 1)
        return Encoded(tokens.astype(np.float32), early.astype(np.float32))


@contextmanager
def sampled(
    field: Field,
    count: int,
    *,
    settings: ViewSettings = PLAIN_VIEWS,
    size_px: int = 256,
    seed: int = 0,
) -> Iterator[tuple[Slide, tuple[View, ...]]]:
    """A field's slide, open, with views of it."""
    with field.slide.open() as slide:
        views = sample_views(
            [field],
            [slide],
            count,
            size_px=size_px,
            hr_mpp=1.0,
            weights={},
            settings=settings,
            seed=seed,
        )
        yield slide, tuple(views)


def make_cache(
    folder: Path, count: int = 2, *, base: Base = PLAIN_BASE, seed: int = 0
) -> FeatureCache:
    """Views of a field of two rectangles, with features by formula."""
    field = make_field(folder, outlines=(SQUARE, TALL))
    hr_scale = PLAIN_VIEWS.model_copy(update={"widest_share": 0.64})  # 256 µm of 400, at any size
    with sampled(field, count, settings=hr_scale, size_px=base.size_px, seed=seed) as (
        slide,
        views,
    ):
        return fill_cache(
            folder / "features", FormulaEncoder(base), base, [field], [slide], views, hr_scale
        )


def make_run(
    folder: Path,
    settings: DecoderSettings,
    views: Views,
    state: Mapping[str, torch.Tensor],
    *,
    base: Base = PLAIN_BASE,
    made_for: str = "tiny",
    validate_every: int = 2,
) -> Run:
    """Trained on and validated with the same views."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    learner = Learner(base, state, settings)
    return Run(
        learner, views, views, base.size_px, 0, folder, made_for, validate_every, CPU
    )  # fmt: skip


def nothing(step: int, row: Mapping[str, float]) -> None:
    """What need not be told."""


def losses_of(run: Run) -> tuple[Trained, list[float]]:
    """Train, and the loss of each step."""
    losses: list[float] = []

    def on_step(step: int, row: Mapping[str, float]) -> None:
        if "dice" not in row:
            losses.append(row["loss"])

    return run.train(on_step), losses
