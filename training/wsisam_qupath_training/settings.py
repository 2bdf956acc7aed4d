"""All settings of a training run, with the paper's values where they hold."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, field_validator, model_validator
from pydantic import Field as Limited

from wsisam_qupath.model.card import (
    DecoderCard,
    Route,
    Routes,
    SecondPass,
    check_decoder_names,
)
from wsisam_qupath.options import MOST_RANK
from wsisam_qupath.prompts import PromptKind

from .sampling.prompt_sampling import PromptMix
from .sampling.samples import SamplingSettings

Scope = Literal["adapter", "mask-decoder", "decoder", "encoder+decoder", "whole"]


class DecoderSettings(BaseModel):
    """Settings of one decoder of an adapter: its network, what of it learns, and how.

    Attributes:
        scope: which weights learn: ``adapter`` leaves all of SAM frozen (WSI-SAM, section 2.3);
            ``mask-decoder`` tunes the mask decoder alone, ``decoder`` also what embeds prompts;
            ``encoder+decoder`` the mask decoder and the image encoder; ``whole`` everything. Of
            SAM's own decoder ``adapter`` leaves nothing to learn but the matrices of a
            ``lora_rank``: all decoders that training starts from stay as they are.
        lora_rank: rank of the matrices that learn beside the image encoder's layers behind the
            early features (LoRA, Hu et al. 2022), where the scope leaves it frozen; 0 is none.
        card: description of the network; see :class:`.DecoderCard`.
        mix: mix of training prompts; see :class:`.PromptMix`.
        steps: largest number of optimizer steps.
        objects_per_step: number of prompts of one view in a step, on each device.
        wsi_rate: learning rate of the parts that WSI-SAM adds; the paper has 0.001.
        decoder_rate, prompt_rate, encoder_rate, lora_rate: learning rates of SAM's mask decoder, of
            its prompt embedding, of the image encoder, and of the matrices beside its layers.
        weight_decay, warm_up_steps, clip_norm: weight decay of AdamW, warm-up of its cosine
            schedule, and largest norm of the gradients.
        cycles: number of cosine schedules within the steps, each starting from the last weights
            (SGDR, Loshchilov and Hutter 2017).
        ema: decay of the running mean of the weights, which is validated and kept.
        hr_share: λ, the share of the HR loss beside the LR loss (section 2.3). A mask that has no
            share in the loss learns nothing, and is no answer: see :attr:`trained_card`.
        cross_entropy_weight: weight of the cross-entropy beside the Dice loss; the paper adds both
            as they are.
        iou_weight: weight of the squared error of the predicted IoU.
        windowed_share: share of WSI-SAM's steps in which its fused masks are computed in windows
            only: around the objects or, where SAM's logits are added, in windows of ``window_px``
            at their edges.
        window_px: side of those windows at edges, mask px.
        sam_weight: weight of the loss of SAM's own whole masks where they are added to the fused
            ones; the paper, which leaves SAM frozen, has none.
        patience: number of validations without a better Dice after which training stops.
        start_shares: shares of the starting weights to try in the result; the best on the
            validation part is mixed in (Wortsman et al. 2022), or the last one where nobody is left
            to validate on. Few data teach less than they make forget.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    scope: Scope = "adapter"
    lora_rank: int = Limited(default=0, ge=0, le=MOST_RANK)
    card: DecoderCard = DecoderCard(architecture="wsi-sam")
    mix: PromptMix = PromptMix()
    steps: int = Limited(default=3000, ge=1)
    objects_per_step: int = Limited(default=4, ge=1)
    wsi_rate: float = Limited(default=1e-3, gt=0)
    decoder_rate: float = Limited(default=2e-4, gt=0)
    prompt_rate: float = Limited(default=1e-3, gt=0)
    encoder_rate: float = Limited(default=2e-5, gt=0)
    lora_rate: float = Limited(default=5e-4, gt=0)
    weight_decay: float = Limited(default=0.01, ge=0)
    warm_up_steps: int = Limited(default=100, ge=0)
    cycles: int = Limited(default=1, ge=1)
    clip_norm: float = Limited(default=1.0, gt=0)
    ema: float = Limited(default=0.995, ge=0, lt=1)
    hr_share: float = Limited(default=0.5, ge=0, le=1)
    cross_entropy_weight: float = Limited(default=2.0, ge=0)
    iou_weight: float = Limited(default=0.5, ge=0)
    windowed_share: float = Limited(default=0.75, ge=0, le=1)
    window_px: int = Limited(default=96, ge=32, le=256)
    sam_weight: float = Limited(default=0.0, ge=0)
    patience: int = Limited(default=6, ge=1)
    start_shares: tuple[float, ...] = (0.0,)

    @field_validator("start_shares")
    @classmethod
    def _check_shares(cls, shares: tuple[float, ...]) -> tuple[float, ...]:
        if not shares or not all(0 <= share <= 1 for share in shares):
            raise ValueError("start_shares are one or more numbers from 0 to 1")
        return shares

    @model_validator(mode="after")
    def _check_encoder_learns_once(self) -> DecoderSettings:
        if self.lora_rank and self.tunes_encoder:
            raise ValueError(
                f"scope {self.scope} tunes the whole image encoder: leave out lora_rank, or name a "
                "scope that leaves the encoder frozen"
            )
        return self

    @model_validator(mode="after")
    def _check_something_learns(self) -> DecoderSettings:
        if self._adds_nothing and not self.lora_rank:
            raise ValueError("scope adapter leaves all of SAM frozen, and sam adds nothing to it")
        return self

    @property
    def _adds_nothing(self) -> bool:
        is_plain = self.card.architecture == "sam" and not self.card.enhanced
        return self.scope == "adapter" and is_plain

    @property
    def keeps_decoders(self) -> bool:
        """Whether the encoder's matrices learn alone, under all decoders of the start."""
        return self._adds_nothing and self.lora_rank > 0

    @property
    def trained_card(self) -> DecoderCard:
        """The card, in which only masks with a share in the loss may answer."""
        if not self.card.reads_lr or 0 < self.hr_share < 1:
            return self.card
        return self.card.model_copy(update={"answers": "lr" if self.hr_share == 0 else "hr"})

    @property
    def measured_shares(self) -> tuple[float, ...]:
        """The shares that are measured after training; none of the start is measured in it."""
        return tuple(filter(None, self.start_shares)) if len(self.start_shares) > 1 else ()

    @property
    def tunes_encoder(self) -> bool:
        """Whether features change from step to step, so that none can be kept."""
        return self.scope in {"encoder+decoder", "whole"}

    @property
    def brings_encoder(self) -> bool:
        """Whether the adapter has an image encoder of its own, made for this decoder alone."""
        return self.tunes_encoder or self.lora_rank > 0


class Blend(BaseModel):
    """A decoder mixed from the weights of a trained one and those of the base.

    What it learned is kept in part, and what it forgot comes back in part.

    Attributes:
        decoder: name of the trained decoder, of architecture sam.
        base_share: share of the base's weights.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    decoder: str
    base_share: float = Limited(default=0.5, ge=0, le=1)


_ONE = "all"
"""Name of the only decoder of a recipe with one decoder."""


def routes_to(decoder: str) -> dict[PromptKind, Route]:
    """Route all prompts to one decoder; points are answered twice, which helps them most."""
    routes = {kind: Route(decoder=decoder) for kind in PromptKind}
    twice = Route(decoder=decoder, second_pass=SecondPass.OWN_MASK)
    return routes | {PromptKind.POINT: twice, PromptKind.POINTS: twice}


def _make_best_decoders() -> dict[str, DecoderSettings]:
    """The decoders that were best of all that was tried; see the shipped adapter's card."""
    card = DecoderCard(architecture="sam", both_patches=True)
    return {"points": DecoderSettings(scope="decoder", card=card, steps=5600, cycles=2, patience=8)}


def _make_best_routes() -> dict[PromptKind, Route]:
    boxes = Route(decoder="boxes")
    return routes_to("points") | {PromptKind.BOX: boxes, PromptKind.OUTLINE: boxes}


class Recipe(BaseModel):
    """The settings of a whole adapter.

    Without anything said, a mask decoder is tuned and answers points; mixed with the base it
    answers boxes and outlines, of which the base knows more than any training set.

    Attributes:
        decoders: settings of the trained decoders, by name.
        blends: decoders that are mixed from trained ones, by name.
        routes: which decoder answers which kind of prompt, and whether a second pass follows.
        views, val_views: number of patch pairs sampled for training and for validation; the second
            is never larger than the first.
        views_per_image: number of patch pairs per training image, instead of ``views``.
        sampling: how patch pairs are sampled from the images.
        hr_mpp: µm per encoder pixel that bare points get; objects are sampled around this scale.
        validate_every: number of steps between two validations.
        compared_objects: about how many objects of the validation part are compared with the
            adapter before training; 0 compares nothing, and keeps nothing of that adapter.
        cross_validated_below: number of patients below which, without a given split, all are
            trained on, and models that each did not see some of them say what was learned.
        seed: random seed for splitting, sampling and training.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    decoders: dict[str, DecoderSettings] = Limited(default_factory=_make_best_decoders)
    blends: dict[str, Blend] = Limited(
        default_factory=lambda: {"boxes": Blend(decoder="points", base_share=0.5)}
    )
    routes: Routes = Limited(default_factory=_make_best_routes)
    views: int = Limited(default=1000, ge=1)
    views_per_image: int | None = Limited(default=None, ge=1)
    val_views: int = Limited(default=60, ge=1)
    sampling: SamplingSettings = SamplingSettings()
    hr_mpp: float = Limited(default=1.0, gt=0)
    validate_every: int = Limited(default=400, ge=1)
    compared_objects: int = Limited(default=60, ge=0)
    cross_validated_below: int = Limited(default=0, ge=0)
    seed: int = 0

    def count_views(self, images: int) -> int:
        """Count the patch pairs that are sampled from a number of training images."""
        return self.views if self.views_per_image is None else self.views_per_image * images

    @property
    def brings_encoder(self) -> bool:
        """Whether the adapter has an image encoder of its own."""
        return any(settings.brings_encoder for settings in self.decoders.values())

    @property
    def keeps_decoders(self) -> bool:
        """Whether all decoders of the start stay, and only the image encoder learns."""
        return any(settings.keeps_decoders for settings in self.decoders.values())

    @model_validator(mode="after")
    def _decoders_have_names(self) -> Recipe:
        check_decoder_names((*self.decoders, *self.blends))
        if paths := [name for name in self.decoders if "/" in name or "\\" in name]:
            raise ValueError(f"the decoder name {paths[0]!r} has a slash, and names a folder")
        return self

    @model_validator(mode="after")
    def _encoder_has_one_decoder(self) -> Recipe:
        if len(self.decoders) > 1 and self.brings_encoder:
            raise ValueError(
                "a tuned image encoder goes with one decoder: leave the others out of the recipe, "
                "or choose a scope that leaves the encoder frozen, without lora_rank"
            )
        return self

    @model_validator(mode="after")
    def _blends_have_their_decoder(self) -> Recipe:
        for name, blend in self.blends.items():
            source = self.decoders.get(blend.decoder)
            if name in self.decoders or source is None:
                raise ValueError(f"the blend {name} needs a name and a trained decoder of its own")
            if source.card.architecture != "sam" or source.card.enhanced:
                raise ValueError(f"the blend {name} needs a plain decoder of architecture sam")
            if source.brings_encoder:
                raise ValueError(
                    f"the blend {name} mixes in the base's decoder, which knows no other image "
                    "encoder than the base's: leave the blend out of the recipe"
                )
        return self

    @property
    def cards(self) -> dict[str, DecoderCard]:
        """The cards of all decoders, by name."""
        trained = {name: settings.trained_card for name, settings in self.decoders.items()}
        return trained | {name: trained[blend.decoder] for name, blend in self.blends.items()}

    @model_validator(mode="after")
    def _routes_lead_to_decoders(self) -> Recipe:
        named = {name for r in self.routes.values() for name in (r.decoder, r.last_decoder)}
        if unknown := sorted(named - set(self.decoders) - set(self.blends)):
            raise ValueError(f"a route names {', '.join(unknown)}, which is no decoder of it")
        return self


def one_decoder(settings: DecoderSettings, **others: object) -> Recipe:
    """Make a recipe with a single decoder that answers every kind of prompt."""
    return Recipe.model_validate(
        {**others, "decoders": {_ONE: settings}, "blends": {}, "routes": routes_to(_ONE)}
    )
