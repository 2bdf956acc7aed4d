"""The card of an adapter: what it is, and which of its decoders answers which kind of prompt."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import Enum
from types import MappingProxyType
from typing import Annotated, Final, Literal, TypeAlias

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from ..options import MOST_RANK
from ..prompts import PromptKind

ENCODER = "encoder"
"""Prefix of the tensors of a tuned image encoder, so that no decoder may have that name."""

CARD_FORMAT: Final = 2
"""Format of the card, raised when the same tensors would be read as another network. 1 took
WSI-SAM's early features after 10 of TinyViT's 12 blocks, 2 takes them after 4."""

PLAIN = "sam"
"""Name of the one decoder, SAM's own, that answers where there is no adapter."""


class SecondPass(str, Enum):
    """What follows a first answer (both measured to help points, untrained)."""

    NONE = "none"
    SELF_BOX = "self-box"
    """The bounding box of the answer, alone, is the next prompt."""
    OWN_MASK = "own-mask"
    """The same prompt again, with the answer's logits as the mask prompt."""


class SamLogits(str, Enum):
    """The masks of WSI-SAM to which SAM's own mask logits are added."""

    NONE = "none"
    HR = "hr"
    """The HR mask alone, as the authors' inference does."""
    BOTH = "both"


class _Card(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class DecoderCard(_Card):
    """How the tensors of one decoder are put together.

    Attributes:
        architecture: SAM's own decoder, or WSI-SAM's on top of it.
        enhanced: whether SAM's decoder is the poster's enhanced one; see ``Enhancement``.
        both_patches: whether SAM's own decoder answers on the LR patch too, each patch by itself,
            where a prompt does not say how large its object is.
        aggregation, sam_logits, iou_head, hr_only: settings of WSI-SAM; see ``WsiSamDecoder``.
        answers: masks that may be the answer; of both, the one with the higher predicted IoU is.
    """

    architecture: Literal["sam", "wsi-sam"]
    enhanced: bool = False
    both_patches: bool = False
    aggregation: Literal["mean", "max", "concat", "features"] = "mean"
    sam_logits: SamLogits = SamLogits.HR
    iou_head: bool = False
    hr_only: bool = False
    answers: Literal["both", "hr", "lr"] = "both"

    @model_validator(mode="after")
    def _masks_are_made(self) -> DecoderCard:
        if self.both_patches and self.architecture != "sam":
            raise ValueError("both_patches is of SAM's own decoder; WSI-SAM's has hr_only")
        if self.answers == "lr" and not self.reads_lr:
            raise ValueError("the mask of the LR patch cannot be the answer: it is not read")
        return self

    @property
    def fuses_features(self) -> bool:
        """Whether the decoder has image features of its own, made once per patch pair."""
        return self.architecture == "wsi-sam"

    @property
    def reads_lr(self) -> bool:
        """Whether the decoder reads the LR patch."""
        return self.both_patches if self.architecture == "sam" else not self.hr_only

    @property
    def patches(self) -> int:
        """The patches of a pair that the decoder reads, and has masks over."""
        return 2 if self.reads_lr else 1

    def count_patches(self, *, fits_hr: bool) -> int:
        """Count the patches that are read for a prompt; see :class:`.EncodedPrompt`."""
        return 1 if fits_hr and self.both_patches else self.patches

    def may_answer(self, patch: Literal["hr", "lr"]) -> bool:
        """Whether the mask over a patch may be the answer."""
        return self.answers in ("both", patch)


PLAIN_CARD = DecoderCard(architecture="sam")
"""Card of the decoder that answers where there is no adapter."""


class Route(_Card):
    """Which decoder answers a kind of prompt, and what follows."""

    decoder: str
    second_pass: SecondPass = SecondPass.NONE
    second_decoder: str | None = None

    @property
    def last_decoder(self) -> str:
        """The decoder that gives the final answer."""
        if self.second_pass is SecondPass.NONE:
            return self.decoder
        return self.second_decoder or self.decoder


def _complete_routes(routes: dict[PromptKind, Route]) -> dict[PromptKind, Route]:
    if PromptKind.POINTS in routes:
        routes = {PromptKind.POINT: routes[PromptKind.POINTS], **routes}
    if missing := [kind.value for kind in PromptKind if kind not in routes]:
        raise ValueError(f"no route for {', '.join(missing)}")
    return routes


Routes: TypeAlias = Annotated[dict[PromptKind, Route], AfterValidator(_complete_routes)]
"""One route per kind of prompt; a single point goes where several go, unless it has its own."""


def check_decoder_names(names: Iterable[str]) -> None:
    """Check that the names of decoders can prefix their tensors.

    Raises:
        ValueError: one of them cannot.
    """
    for name in names:
        if "." in name or not name:
            raise ValueError(f"the decoder name {name!r} is empty or has a dot")
        if name == ENCODER:
            raise ValueError(f"a decoder is named {ENCODER!r}, as the image encoder's tensors are")


class AdapterCard(_Card):
    """What an adapter is, was trained on, and how it is to be used.

    Attributes:
        base, base_sha256: name and checksum of the only base that the adapter fits.
        hr_mpp: µm per encoder pixel of the HR patch it was trained at.
        decoders: decoders by name; the name prefixes the tensors.
        routes: which decoder answers which prompts; see :data:`Routes`.
        tunes_encoder: whether it brings an image encoder in place of the base's.
        lora_rank: rank of the matrices that it adds to the late layers of the base's image encoder,
            to make that encoder; 0 is none, as where it brings a whole one.
        training, recipe, licence, version: information for people; version is the program's.
    """

    format: Literal[2] = CARD_FORMAT
    base: str
    base_sha256: str
    hr_mpp: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    decoders: dict[str, DecoderCard]
    routes: Routes
    tunes_encoder: bool = False
    lora_rank: int = Field(default=0, ge=0, le=MOST_RANK)
    training: str = ""
    recipe: str = ""
    licence: str = ""
    version: str = ""

    @model_validator(mode="after")
    def _routes_lead_to_decoders(self) -> AdapterCard:
        named = {r.decoder for r in self.routes.values()}
        named |= {r.last_decoder for r in self.routes.values()}
        if unknown := sorted(named - set(self.decoders)):
            raise ValueError(f"a route names {', '.join(unknown)}, which is no decoder of it")
        check_decoder_names(self.decoders)
        if self.lora_rank and not self.tunes_encoder:
            raise ValueError("matrices of a lora_rank make an image encoder of its own")
        return self


PLAIN_ROUTES: Mapping[PromptKind, Route] = MappingProxyType(
    {kind: Route(decoder=PLAIN) for kind in PromptKind}
)
"""The routes where there is no adapter."""
