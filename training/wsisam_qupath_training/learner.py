"""The network in training: which of its tensors learn, and what it loses on a batch of prompts."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from wsisam_qupath.model.bases import Base
from wsisam_qupath.model.build import build_decoder, build_model, encoder_state
from wsisam_qupath.model.decoders import SamDecoder, WsiSamDecoder
from wsisam_qupath.model.encoder import PatchEncoder

from .draws import PromptBatch
from .losses import mask_loss, true_iou
from .settings import DecoderSettings
from .windows import Windows, windows_round

_UNUSED = tuple(f"mask_decoder.output_hypernetworks_mlps.{index}." for index in (1, 2, 3))
"""They make SAM's other three masks, which nobody asks for here."""


class Images(NamedTuple):
    """The features of one view, float32: 1 x 4096 x 256 tokens, 1 x C x 64 x 64 early ones."""

    hr: torch.Tensor
    hr_early: torch.Tensor
    lr: torch.Tensor
    lr_early: torch.Tensor


class Wanted(NamedTuple):
    """Truth over both patches, B x 256 x 256 each, 0 or 1; what is known is one for all."""

    hr: torch.Tensor
    lr: torch.Tensor
    hr_known: torch.Tensor
    lr_known: torch.Tensor


class Answer(NamedTuple):
    """Mask logits, B x 256 x 256 each, and predicted IoU, B."""

    hr_logits: torch.Tensor
    lr_logits: torch.Tensor | None
    iou: torch.Tensor


@dataclass(frozen=True)
class _Cuts:
    """Windows of both patches; None is all of it."""

    hr_windows: Windows | None = None
    lr_windows: Windows | None = None

    def hr(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor if self.hr_windows is None else self.hr_windows.cut(tensor)

    def lr(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor if self.lr_windows is None else self.lr_windows.cut(tensor)


@dataclass(frozen=True)
class Loss:
    """What a batch cost: the sum that is minimised, and its parts for the log."""

    total: torch.Tensor
    parts: Mapping[str, float]


class Learner(nn.Module):
    """A decoder on its base, with the tensors of its scope set to learn.

    Args:
        base: what it stands on.
        state: tensors of the base's weights file.
        settings: the network and its scope.
    """

    def __init__(
        self, base: Base, state: Mapping[str, torch.Tensor], settings: DecoderSettings
    ) -> None:
        super().__init__()
        model = build_model(base, state, None)
        (plain,) = model.decoders.values()
        self.settings = settings
        self.decoder: SamDecoder | WsiSamDecoder = build_decoder(
            base, copy.deepcopy(plain.sam), settings.card
        )
        # A frozen encoder stays out of the module: neither checkpoints nor gradients need it.
        self.encoder: PatchEncoder | None = model.encoder if settings.tunes_encoder else None
        for name, parameter in self.named_parameters():
            parameter.requires_grad_(_learns(name, settings))
        self.eval()  # neither dropout nor running statistics: TinyViT's stay as they are

    @property
    def reads_lr(self) -> bool:
        """Whether it looks at the LR patch."""
        return self.settings.card.reads_lr

    def learning(self) -> dict[str, nn.Parameter]:
        """The parameters that learn, by name."""
        return {name: p for name, p in self.named_parameters() if p.requires_grad}

    def rates(self) -> list[dict[str, Any]]:
        """Parameter groups for the optimiser, each with its learning rate."""
        groups: dict[float, list[nn.Parameter]] = {}
        for name, parameter in self.learning().items():
            groups.setdefault(_rate(name, self.settings), []).append(parameter)
        return [{"params": members, "lr": rate} for rate, members in groups.items()]

    def encode(self, hr_patch: torch.Tensor, lr_patch: torch.Tensor) -> Images:
        """Features of one view, 1 x S x S x 3 uint8 each, through the encoder that learns."""
        assert self.encoder is not None
        hr, hr_early = self.encoder(hr_patch)
        if not self.reads_lr:
            return Images(hr, hr_early, hr, hr_early)
        return Images(hr, hr_early, *self.encoder(lr_patch))

    def answer(self, images: Images, prompts: PromptBatch) -> Answer:
        """Answer B prompts on one view."""
        if isinstance(self.decoder, SamDecoder):
            hr_prompt = _prompt(prompts, images.hr.device)[:3]
            own = self.decoder(images.hr, *hr_prompt)
            return Answer(own.hr_logits, None, own.iou)
        inputs = self._features(self.decoder, images)
        return Answer(*self.decoder.training_forward(*inputs, *_prompt(prompts, images.hr.device)))

    def _answer_in(
        self, decoder: WsiSamDecoder, images: Images, prompts: PromptBatch, cuts: _Cuts
    ) -> Answer:
        """The same with masks in windows only: the convolutions there cost the most."""
        hr, lr, hr_features, lr_features = self._features(decoder, images)
        tokens = decoder.tokens(hr, lr, *_prompt(prompts, images.hr.device))
        hr_logits = decoder.hr.logits(
            tokens.token, cuts.hr(tokens.hr_upscaled), cuts.hr(hr_features)
        )
        assert decoder.iou_head is not None
        iou = decoder.iou_head(tokens.token)[:, 0]
        if decoder.lr is None or lr_features is None or tokens.lr_upscaled is None:
            return Answer(hr_logits, None, iou)
        lr_logits = decoder.lr.logits(
            tokens.token, cuts.lr(tokens.lr_upscaled), cuts.lr(lr_features)
        )
        return Answer(hr_logits, lr_logits, iou)

    def _features(
        self, decoder: WsiSamDecoder, images: Images
    ) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor, torch.Tensor | None]:
        hr_features = decoder.hr.image_features(images.hr, images.hr_early)
        if decoder.lr is None:
            return images.hr, None, hr_features, None
        lr_features = decoder.lr.image_features(images.lr, images.lr_early)
        return images.hr, images.lr, hr_features, lr_features

    def forward(
        self, images: Images, prompts: PromptBatch, wanted: Wanted, is_windowed: bool = False
    ) -> Loss:
        """λ·L_HR + (1 - λ)·L_LR (WSI-SAM, section 2.3), and the error of the predicted IoU.

        Args:
            is_windowed: look only round the objects, where that is cheaper.
        """
        cuts = _Cuts()
        if is_windowed and _can_be_windowed(self.decoder):
            cuts = _Cuts(windows_round(wanted.hr), windows_round(wanted.lr))
            assert isinstance(self.decoder, WsiSamDecoder)
            answer = self._answer_in(self.decoder, images, prompts, cuts)
        else:
            answer = self.answer(images, prompts)
        hr_known, lr_known = (
            known.expand_as(truth)
            for known, truth in ((wanted.hr_known, wanted.hr), (wanted.lr_known, wanted.lr))
        )
        return self._loss(
            answer,
            (cuts.hr(wanted.hr), cuts.hr(hr_known)),
            (cuts.lr(wanted.lr), cuts.lr(lr_known)),
        )

    def _loss(
        self,
        answer: Answer,
        hr_wanted: tuple[torch.Tensor, torch.Tensor],
        lr_wanted: tuple[torch.Tensor, torch.Tensor],
    ) -> Loss:
        settings = self.settings
        weight = settings.cross_entropy_weight
        hr = mask_loss(answer.hr_logits, *hr_wanted, cross_entropy_weight=weight)
        iou = true_iou(answer.hr_logits.detach(), *hr_wanted)
        iou_error = ((answer.iou.float() - iou) ** 2).mean()
        parts = {"hr": hr.item(), "iou_error": iou_error.item(), "iou": iou.mean().item()}
        total = hr
        if answer.lr_logits is not None:
            lr = mask_loss(answer.lr_logits, *lr_wanted, cross_entropy_weight=weight)
            parts["lr"] = lr.item()
            total = settings.hr_share * hr + (1 - settings.hr_share) * lr
        return Loss(total + settings.iou_weight * iou_error, parts)


def _can_be_windowed(decoder: SamDecoder | WsiSamDecoder) -> bool:
    """Whether the masks come from WSI-SAM's own convolutions alone."""
    return (
        isinstance(decoder, WsiSamDecoder)
        and decoder.iou_head is not None
        and not decoder.add_sam_logits
        and not decoder.mixes_features
    )


def _prompt(
    prompts: PromptBatch, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
    hr_mask = None if prompts.hr_masks is None else _tensor(prompts.hr_masks, device)
    lr_mask = None if prompts.lr_masks is None else _tensor(prompts.lr_masks, device)
    return _tensor(prompts.coords, device), _tensor(prompts.labels, device), hr_mask, lr_mask


def decoder_tensors(state: Mapping[str, torch.Tensor]) -> dict[str, NDArray[np.float16]]:
    """What an adapter keeps of a decoder, float16, by the names that it uses.

    Args:
        state: parameters by the learner's names, such as their running means.
    """
    return {
        _kept_name(name): _half(tensor)
        for name, tensor in state.items()
        if not name.startswith("encoder.")
    }


def encoder_tensors(
    learner: Learner, state: Mapping[str, torch.Tensor]
) -> dict[str, NDArray[np.float16]]:
    """The same of an image encoder that learned, whole; none of a frozen one.

    Normalisation layers keep their running statistics, which no step changes.
    """
    if learner.encoder is None:
        return {}
    learned = {name.removeprefix("encoder."): tensor for name, tensor in state.items()}
    whole = encoder_state(learner.encoder)
    return {name: _half(learned.get(name, tensor)) for name, tensor in whole.items()}


def _kept_name(name: str) -> str:
    """``decoder.sam.…`` to ``…``, else ``wsi.…``."""
    own = name.removeprefix("decoder.")
    return own.removeprefix("sam.") if own.startswith("sam.") else f"wsi.{own}"


def _half(tensor: torch.Tensor) -> NDArray[np.float16]:
    return tensor.detach().float().cpu().numpy().astype(np.float16)


def _learns(name: str, settings: DecoderSettings) -> bool:
    """By the learner's parameter names: ``decoder.sam.mask_decoder.…``, ``decoder.hr.…``."""
    if name.startswith("encoder."):
        return True
    own = name.removeprefix("decoder.")
    if not own.startswith("sam."):
        return True
    own = own.removeprefix("sam.")
    if own.startswith("enhancement."):
        return True
    if settings.scope == "adapter" or own.startswith(_UNUSED):
        return False
    if own.startswith("prompt_encoder."):
        return settings.scope != "encoder+decoder"
    return True


def _rate(name: str, settings: DecoderSettings) -> float:
    if name.startswith("encoder."):
        return settings.encoder_rate
    if name.startswith("decoder.sam.prompt_encoder."):
        return settings.prompt_rate
    if name.startswith("decoder.sam.mask_decoder."):
        return settings.decoder_rate
    return settings.wsi_rate


def _tensor(array: NDArray[Any], device: torch.device) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(array)).to(device)


def images_of(arrays: Iterable[NDArray[np.float16]], device: torch.device) -> Images:
    """Cached features of one view as float32 tensors, with a batch of one."""
    return Images(*(_tensor(np.asarray(a, dtype=np.float32), device)[None] for a in arrays))
