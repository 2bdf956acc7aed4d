"""A decoder in training: which of its tensors learn, and its loss on a batch of prompts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from wsisam_qupath.inference.backends import Patch
from wsisam_qupath.model.adapter import Adapter
from wsisam_qupath.model.bases import Base
from wsisam_qupath.model.build import build_decoder, build_networks, encoder_state
from wsisam_qupath.model.card import SamLogits
from wsisam_qupath.model.decoders import Decoded, SamDecoder, WsiSamDecoder
from wsisam_qupath.model.encoder import PatchEncoder
from wsisam_qupath.model.low_rank import is_low_rank
from wsisam_qupath.model.prompted_sam import fold_image_attention

from ..sampling.prompt_sampling import PromptBatch
from ..settings import DecoderSettings
from .kept_decoders import KeptDecoders
from .losses import mask_loss, true_iou
from .starting import add_matrices, check_start, start_decoder
from .targets import TargetMasks
from .windows import Windows, draw_edge_windows, find_windows

_PATCHES: tuple[Patch, ...] = ("hr", "lr")

_UNUSED = tuple(f"mask_decoder.output_hypernetworks_mlps.{index}." for index in (1, 2, 3))
"""Parameters of SAM's other three masks, which nobody asks for here."""


class SampleFeatures(NamedTuple):
    """The features of one sample, float32, HR patch first; the LR patch where it is read.

    Attributes:
        tokens: R times 1 x 4096 x 256 final tokens.
        early: R times 1 x C x 64 x 64 early features.
    """

    tokens: tuple[torch.Tensor, ...]
    early: tuple[torch.Tensor, ...]


@dataclass(frozen=True)
class Loss:
    """The loss of a batch: the sum that is minimized, and its parts for the log."""

    total: torch.Tensor
    parts: Mapping[str, float]


class TrainableDecoder(nn.Module):
    """A decoder on its base, with the tensors of its scope set to learn.

    Args:
        base: base that the decoder stands on.
        state: tensors of the base's weights file.
        settings: settings of the network and its scope.
        start: adapter that training starts from; None is the bare base.

    Raises:
        AdapterError: the adapter has other networks than the settings ask for.
    """

    def __init__(
        self,
        base: Base,
        state: Mapping[str, torch.Tensor],
        settings: DecoderSettings,
        start: Adapter | None = None,
    ) -> None:
        super().__init__()
        self.settings = settings
        check_start(settings, start)
        networks = build_networks(base, state, None)
        (plain,) = networks.decoders.values()
        self.decoder: SamDecoder | WsiSamDecoder = build_decoder(base, plain.sam, settings.card)
        fold_image_attention(self.decoder)  # its tensors keep their names
        if start is not None and (settings.tunes_encoder or settings.keeps_decoders):
            started = build_networks(base, state, start)
        else:
            started = networks
        # A frozen encoder stays out of the module: neither checkpoints nor gradients need it.
        self.encoder: PatchEncoder | None = None
        if settings.tunes_encoder:
            self.encoder = started.encoder
        elif settings.lora_rank:
            self.encoder = networks.encoder
            add_matrices(self.encoder, settings.lora_rank, start)
        for name, parameter in self.named_parameters():
            parameter.requires_grad_(_learns(name, settings))
        self.kept: KeptDecoders | None = None
        if start is not None and settings.keeps_decoders:
            self.kept = KeptDecoders(started, start.card.routes)
        elif start is not None:
            start_decoder(self.decoder, start)
        self.eval()  # neither dropout nor running statistics: TinyViT's stay as they are

    @property
    def reads_lr(self) -> bool:
        """Whether it looks at the LR patch."""
        return self.settings.card.reads_lr

    def list_learning(self) -> dict[str, nn.Parameter]:
        """The parameters that learn, by name."""
        return {name: p for name, p in self.named_parameters() if p.requires_grad}

    def rates(self) -> list[dict[str, Any]]:
        """Parameter groups for the optimizer, each with its learning rate."""
        groups: dict[float, list[nn.Parameter]] = {}
        for name, parameter in self.list_learning().items():
            groups.setdefault(_rate(name, self.settings), []).append(parameter)
        return [{"params": members, "lr": rate} for rate, members in groups.items()]

    @property
    def patch_count(self) -> int:
        """R, the number of patches of a pair that it reads."""
        return self.decoder.patch_count

    def encode(self, patches: Sequence[torch.Tensor]) -> SampleFeatures:
        """Encode the patches of one sample, 1 x S x S x 3 uint8 each, HR first.

        They go through the encoder that learns.
        """
        assert self.encoder is not None
        encoded = [self.encoder(patch) for patch in patches[: self.patch_count]]
        tokens, early = zip(*encoded, strict=True)
        return SampleFeatures(tokens, early)

    def continue_from(self, early: tuple[torch.Tensor, ...]) -> SampleFeatures:
        """Encode one sample from its early features on, which no learning layer comes before."""
        assert self.encoder is not None
        tokens = self.encoder.continue_from(torch.cat(early))
        return SampleFeatures(torch.split(tokens, 1), early)

    def predict(self, features: SampleFeatures, prompts: PromptBatch) -> Decoded:
        """Answer B prompts on one view; a mask that is no answer has a predicted IoU of -inf."""
        predicted = self._decode(features, prompts)
        card = self.settings.trained_card
        hidden = [not card.may_answer(patch) for patch in _PATCHES[: self.patch_count]]
        iou = predicted.iou.masked_fill(torch.tensor(hidden, device=self._device), -torch.inf)
        return Decoded(predicted.logits, iou)

    def _decode(self, features: SampleFeatures, prompts: PromptBatch) -> Decoded:
        point_coords, point_labels, masks = self._prompt(prompts)
        predicted: Decoded
        decoder = self.decoder if self.kept is None else self.kept.choose(prompts)
        if isinstance(decoder, SamDecoder):
            predicted = decoder(features.tokens, point_coords, point_labels, masks)
        else:
            image_features = self._image_features(decoder, features)
            predicted = decoder(features.tokens, image_features, point_coords, point_labels, masks)
        return predicted

    def forward(
        self,
        features: SampleFeatures,
        prompts: PromptBatch,
        wanted: TargetMasks,
        windows_seed: int | None = None,
    ) -> Loss:
        """Compute λ·L_HR + (1 - λ)·L_LR (WSI-SAM, section 2.3), and the error of the predicted IoU.

        Args:
            windows_seed: compute the fused masks in windows only, drawn with this seed, where the
                decoder allows that; None is whole masks.
        """
        decoder = self.decoder
        if windows_seed is None or isinstance(decoder, SamDecoder) or decoder.mixes_features:
            predicted = self._decode(features, prompts)
            return self._loss(predicted.logits, predicted.iou, wanted, predicted.logits)
        return self._compute_windowed_loss(decoder, features, prompts, wanted, windows_seed)

    def _compute_windowed_loss(
        self,
        decoder: WsiSamDecoder,
        features: SampleFeatures,
        prompts: PromptBatch,
        wanted: TargetMasks,
        seed: int,
    ) -> Loss:
        """Compute the loss with WSI-SAM's costly convolutions in windows only."""
        updated = decoder.update(features.tokens, *self._prompt(prompts))
        own = decoder.predict_as_sam(updated)
        image_features = self._image_features(decoder, features)
        windows = self._choose_windows(decoder, wanted, seed)
        if windows is None:
            fused = decoder.fuse(updated, [u.upscaled for u in updated], image_features)
            logits = decoder.add_sam(fused, own.logits)
            return self._loss(logits, decoder.predict_iou(updated, own.iou), wanted, logits, own)
        fused = decoder.fuse(
            updated,
            [w.cut(u.upscaled) for w, u in zip(windows, updated, strict=True)],
            [w.cut(f) for w, f in zip(windows, image_features, strict=True)],
        )
        logits = decoder.add_sam(fused, _cut_each(windows, own.logits))
        whole = torch.stack(
            [
                w.put(own.logits[:, r].detach(), logits[:, r].detach())
                for r, w in enumerate(windows)
            ],
            dim=1,
        )
        cut = TargetMasks(
            _cut_each(windows, wanted.truth), _cut_each(windows, wanted.known), wanted.whole_px
        )
        iou = decoder.predict_iou(updated, own.iou)
        return self._loss(logits, iou, cut, whole, own, wanted)

    def _choose_windows(
        self, decoder: WsiSamDecoder, wanted: TargetMasks, seed: int
    ) -> list[Windows] | None:
        """Choose windows of one size on each patch; None where whole masks are needed."""
        truths = wanted.truth.unbind(dim=1)
        if decoder.sam_logits is SamLogits.BOTH or (
            decoder.sam_logits is SamLogits.HR and decoder.lr is None
        ):
            rng = np.random.default_rng(seed)
            return [draw_edge_windows(truth, self.settings.window_px, rng) for truth in truths]
        found = [find_windows(truth) for truth in truths]
        if None in found:
            return None
        side = max(w.side for w in found if w is not None)
        return [w for t in truths if (w := find_windows(t, side)) is not None]

    def _image_features(
        self, decoder: WsiSamDecoder, features: SampleFeatures
    ) -> list[torch.Tensor]:
        return [
            resolution.image_features(tokens, early)
            for resolution, tokens, early in zip(
                decoder.resolutions, features.tokens, features.early, strict=True
            )
        ]

    def _loss(
        self,
        logits: torch.Tensor,
        iou: torch.Tensor,
        wanted: TargetMasks,
        whole: torch.Tensor,
        own: Decoded | None = None,
        wanted_whole: TargetMasks | None = None,
    ) -> Loss:
        """Put the parts of the loss together.

        Args:
            logits, wanted: B x R x H x W each, whole masks or windows.
            whole: B x R x 256 x 256 logits, of which the true IoU is measured.
            own: SAM's own answers, if they have a loss of their own.
            wanted_whole: targets over whole patches; None if ``wanted`` has them.
        """
        settings, wanted_whole = self.settings, wanted_whole or wanted
        true = true_iou(whole.detach(), wanted_whole.truth, wanted_whole.known, wanted.whole_px)
        iou_error = ((iou.float() - true) ** 2).mean()
        total, parts = self._mask_loss(logits, wanted)
        parts |= {"iou_error": iou_error.item(), "iou": true.max(dim=1).values.mean().item()}
        total = total + settings.iou_weight * iou_error
        if own is not None and settings.sam_weight:
            of_sam, _ = self._mask_loss(own.logits, wanted_whole)
            parts["sam"] = of_sam.item()
            total = total + settings.sam_weight * of_sam
        return Loss(total, parts)

    def _mask_loss(
        self, logits: torch.Tensor, wanted: TargetMasks
    ) -> tuple[torch.Tensor, dict[str, float]]:
        weight = self.settings.cross_entropy_weight
        losses = [
            mask_loss(
                logits[:, r],
                wanted.truth[:, r],
                wanted.known[:, r].expand_as(logits[:, r]),
                cross_entropy_weight=weight,
            )
            for r in range(logits.shape[1])
        ]
        parts = {name: loss.item() for name, loss in zip(("hr", "lr"), losses, strict=False)}
        if len(losses) == 1:
            return losses[0], parts
        share = self.settings.hr_share
        return share * losses[0] + (1 - share) * losses[1], parts

    def _prompt(
        self, prompts: PromptBatch
    ) -> tuple[torch.Tensor, torch.Tensor, list[torch.Tensor] | None]:
        """Coordinates, labels, and mask prompts of each patch."""
        device = self._device
        masks = None
        if prompts.hr_masks is not None and prompts.lr_masks is not None:
            both = (prompts.hr_masks, prompts.lr_masks)[: self.patch_count]
            masks = [_tensor(mask, device) for mask in both]
        return _tensor(prompts.point_coords, device), _tensor(prompts.point_labels, device), masks

    @property
    def _device(self) -> torch.device:
        return next(self.parameters()).device


def _cut_each(windows: Sequence[Windows], maps: torch.Tensor) -> torch.Tensor:
    """Cut B or 1 x R x 256 x 256 to windows, B x R x side x side."""
    return torch.stack([w.cut(maps[:, r]) for r, w in enumerate(windows)], dim=1)


def decoder_tensors(state: Mapping[str, torch.Tensor]) -> dict[str, NDArray[np.float16]]:
    """Tensors that an adapter keeps of a decoder, float16, by the adapter's names.

    Args:
        state: parameters by the learner's names, such as their running means.
    """
    return {
        _strip_kept_name(name): _half(tensor)
        for name, tensor in state.items()
        if not name.startswith("encoder.")
    }


def encoder_tensors(
    trainable: TrainableDecoder, state: Mapping[str, torch.Tensor]
) -> dict[str, NDArray[np.float16]]:
    """Tensors of an image encoder that learned, by the adapter's names; none of a frozen one.

    That is the whole encoder, or only the matrices that learned beside its layers. Normalization
    layers keep their running statistics, which no step changes.
    """
    if trainable.encoder is None:
        return {}
    learned = {name.removeprefix("encoder."): tensor for name, tensor in state.items()}
    kept = encoder_state(trainable.encoder)
    if trainable.settings.lora_rank:
        kept = {name: tensor for name, tensor in kept.items() if name in learned}
    return {name: _half(learned.get(name, tensor)) for name, tensor in kept.items()}


def _strip_kept_name(name: str) -> str:
    """Turn ``decoder.sam.…`` into ``…``, and other names into ``wsi.…``."""
    own = name.removeprefix("decoder.")
    return own.removeprefix("sam.") if own.startswith("sam.") else f"wsi.{own}"


def _half(tensor: torch.Tensor) -> NDArray[np.float16]:
    return tensor.detach().float().cpu().numpy().astype(np.float16)


def _learns(name: str, settings: DecoderSettings) -> bool:
    """Whether a parameter learns, by its name: ``decoder.sam.mask_decoder.…``, ``decoder.hr.…``."""
    if name.startswith("encoder."):
        return settings.tunes_encoder or is_low_rank(name)
    own = name.removeprefix("decoder.")
    if not own.startswith("sam."):
        return True
    own = own.removeprefix("sam.")
    if own.startswith("enhancement."):
        return True
    if settings.scope == "adapter" or own.startswith(_UNUSED):
        return False
    if own.startswith("prompt_encoder."):
        return settings.scope not in {"mask-decoder", "encoder+decoder"}
    return True


def _rate(name: str, settings: DecoderSettings) -> float:
    if name.startswith("encoder."):
        return settings.lora_rate if settings.lora_rank else settings.encoder_rate
    if name.startswith("decoder.sam.prompt_encoder."):
        return settings.prompt_rate
    if name.startswith("decoder.sam.mask_decoder."):
        return settings.decoder_rate
    return settings.wsi_rate


def _tensor(array: NDArray[Any], device: torch.device) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(array)).to(device)
