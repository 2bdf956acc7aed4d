"""Everything that decides what a training run does; the paper's values where they hold."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from wsisam_qupath.model.card import DecoderCard, Route, SecondPass
from wsisam_qupath.prompts import PromptKind

from .draws import PromptMix
from .views import ViewSettings

Scope = Literal["adapter", "decoder", "encoder+decoder", "whole"]


class DecoderSettings(BaseModel):
    """One decoder of an adapter: what it is, what of it learns, and how.

    Attributes:
        scope: ``adapter`` leaves all of SAM frozen (WSI-SAM, section 2.3); ``decoder`` tunes the
            mask decoder and what embeds prompts; ``encoder+decoder`` the image encoder too, but
            not what embeds prompts; ``whole`` everything.
        card: the network; see :class:`.DecoderCard`.
        mix: what is asked.
        steps: of the optimiser, at most.
        objects_per_step: prompts of one view in a step, on each device.
        wsi_rate: learning rate of what WSI-SAM adds; the paper has 0.001.
        decoder_rate, prompt_rate, encoder_rate: of SAM's mask decoder, of what embeds prompts,
            and of the image encoder.
        weight_decay, warm_up_steps, clip_norm: of AdamW and its cosine schedule.
        ema: decay of the running mean of the weights, which is what is validated and kept.
        hr_share: λ, the share of the HR loss beside the LR loss (section 2.3).
        cross_entropy_weight: beside the Dice loss; the paper adds them as they are.
        iou_weight: of the squared error of the predicted IoU.
        windowed_share: of the steps of WSI-SAM, those whose loss looks only round the objects.
        patience: validations without a better Dice after which training stops.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    scope: Scope = "adapter"
    card: DecoderCard = DecoderCard(architecture="wsi-sam")
    mix: PromptMix = PromptMix()
    steps: int = Field(default=3000, ge=1)
    objects_per_step: int = Field(default=4, ge=1)
    wsi_rate: float = Field(default=1e-3, gt=0)
    decoder_rate: float = Field(default=2e-4, gt=0)
    prompt_rate: float = Field(default=1e-3, gt=0)
    encoder_rate: float = Field(default=2e-5, gt=0)
    weight_decay: float = Field(default=0.01, ge=0)
    warm_up_steps: int = Field(default=100, ge=0)
    clip_norm: float = Field(default=1.0, gt=0)
    ema: float = Field(default=0.995, ge=0, lt=1)
    hr_share: float = Field(default=0.5, ge=0, le=1)
    cross_entropy_weight: float = Field(default=2.0, ge=0)
    iou_weight: float = Field(default=0.5, ge=0)
    windowed_share: float = Field(default=0.75, ge=0, le=1)
    patience: int = Field(default=6, ge=1)

    @model_validator(mode="after")
    def _something_learns(self) -> DecoderSettings:
        if self.scope == "adapter" and self.card.architecture == "sam" and not self.card.enhanced:
            raise ValueError("scope adapter leaves all of SAM frozen, and sam adds nothing to it")
        return self

    @property
    def tunes_encoder(self) -> bool:
        """Whether features change from step to step, so that none can be kept."""
        return self.scope in {"encoder+decoder", "whole"}


_BOXES = DecoderSettings(
    scope="adapter",
    card=DecoderCard(architecture="wsi-sam", add_sam_logits=False, iou_head=True),
    mix=PromptMix(box=0.65, outline=0.25, box_points=0.1, points=0.0, sequence_share=0.0),
    steps=1800,
)
_POINTS = DecoderSettings(
    scope="decoder", card=DecoderCard(architecture="sam"), mix=PromptMix(), steps=2800
)


_DECODERS = {"boxes": _BOXES, "points": _POINTS}
_ROUTES = {
    PromptKind.BOX: Route(decoder="boxes"),
    PromptKind.OUTLINE: Route(decoder="boxes"),
    PromptKind.POINTS: Route(decoder="points", second_pass=SecondPass.OWN_MASK),
    PromptKind.BOX_POINTS: Route(decoder="points"),
    PromptKind.OUTLINE_POINTS: Route(decoder="points"),
}


class Recipe(BaseModel):
    """A whole adapter.

    Without anything said, prompts are routed: boxes and outlines to WSI-SAM on a frozen SAM, and
    points to a tuned mask decoder.

    Attributes:
        decoders: by name.
        routes: which decoder answers which kind of prompt, and what follows.
        views, val_views: how many patch pairs are sampled for training and for validation.
        sampling: how.
        hr_mpp: µm per encoder pixel that bare points get, about which objects are sampled.
        validate_every: steps between two validations.
        seed: of everything.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    decoders: dict[str, DecoderSettings] = Field(default_factory=_DECODERS.copy)
    routes: dict[PromptKind, Route] = Field(default_factory=_ROUTES.copy)
    views: int = Field(default=1000, ge=1)
    val_views: int = Field(default=60, ge=1)
    sampling: ViewSettings = ViewSettings()
    hr_mpp: float = Field(default=1.0, gt=0)
    validate_every: int = Field(default=400, ge=1)
    seed: int = 0

    @model_validator(mode="after")
    def _encoder_has_one_decoder(self) -> Recipe:
        if len(self.decoders) > 1 and any(s.tunes_encoder for s in self.decoders.values()):
            raise ValueError("a tuned image encoder goes with one decoder")
        return self


def one_decoder(settings: DecoderSettings, **others: object) -> Recipe:
    """A recipe whose single decoder answers every kind of prompt."""
    name = "all"
    routes = {kind: Route(decoder=name) for kind in PromptKind}
    return Recipe.model_validate({**others, "decoders": {name: settings}, "routes": routes})
