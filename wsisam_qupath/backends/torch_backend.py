"""PyTorch: the backend of GPUs, and of a CPU that OpenVINO does not serve."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TypeAlias

import numpy as np
import torch

from ..model.build import Model
from ..model.decoders import Decoded, SamDecoder, WsiSamDecoder
from ..tokens import Tokens
from . import Embedding, Encoded, ImageArray, Prediction

_PAIRS_ON_GPU = 8

_Encoded: TypeAlias = tuple[torch.Tensor, torch.Tensor]
"""One patch: tokens, 1 x 4096 x 256, and early features, 1 x C x 64 x 64."""


class TorchBackend:
    """Runs a model on a PyTorch device: float32 on a CPU, mixed precision on a CUDA device.

    Args:
        model: in evaluation mode; moved to the device.
        device: "cpu", "cuda", "cuda:1", "mps".
    """

    def __init__(self, model: Model, device: str) -> None:
        self._device = torch.device(device)
        self._encoder = model.encoder.to(self._device)
        self._decoders = {name: d.to(self._device) for name, d in model.decoders.items()}
        if self._device.type == "cuda":
            self._encoder = self._encoder.to(memory_format=torch.channels_last)

    @property
    def name(self) -> str:
        """See :class:`.Backend`."""
        precision = "mixed precision" if self._device.type == "cuda" else "float32"
        return f"PyTorch on {self._device}, {precision}"

    @property
    def pairs_at_once(self) -> int:
        """See :class:`.Backend`."""
        return 1 if self._device.type == "cpu" else _PAIRS_ON_GPU

    @torch.inference_mode()
    def encode(self, patches: Sequence[ImageArray]) -> Encoded:
        """See :class:`.Backend`."""
        stacked = torch.from_numpy(np.stack(patches)).to(self._device)
        with self._autocast():
            tokens, early = self._encoder(stacked)
        return Encoded(tokens.float().cpu().numpy(), early.float().cpu().numpy())

    @torch.inference_mode()
    def embed(
        self, hr_patches: Sequence[ImageArray], lr_patches: Sequence[ImageArray]
    ) -> list[Embedding]:
        """See :class:`.Backend`."""
        patches = torch.from_numpy(np.stack([*hr_patches, *lr_patches])).to(self._device)
        with self._autocast():
            tokens, early = self._encoder(patches)
            encoded = list(zip(tokens.split(1), early.split(1), strict=True))
            hr, lr = encoded[: len(hr_patches)], encoded[len(hr_patches) :]
            return [
                self._embedding(of_hr, lr[index] if lr_patches else None)
                for index, of_hr in enumerate(hr)
            ]

    @torch.inference_mode()
    def decode(
        self, decoder: str, embedding: Embedding, prompts: Sequence[Tokens]
    ) -> list[Prediction]:
        """See :class:`.Backend`."""
        with self._autocast():
            answer = self._answer(decoder, embedding, prompts)
        logits = answer.hr_logits.float().cpu().numpy()
        ious = answer.iou.float().cpu().numpy()
        return [Prediction(mask, float(iou)) for mask, iou in zip(logits, ious, strict=True)]

    def _answer(self, decoder: str, embedding: Embedding, prompts: Sequence[Tokens]) -> Decoded:
        module = self._decoders[decoder]
        prompt = [
            self._stacked([p.coords for p in prompts]),
            self._stacked([p.labels for p in prompts]),
            self._stacked([p.hr_mask for p in prompts]),
        ]
        answer: Decoded
        if isinstance(module, SamDecoder):
            answer = module(embedding.hr, *prompt)
            return answer
        features = embedding.features[decoder]
        lr_masks = self._stacked([p.lr_mask for p in prompts])
        answer = module(
            embedding.hr, embedding.lr, features[:1], *prompt, lr_masks, lr_features=features[1:]
        )
        return answer

    def _embedding(self, hr: _Encoded, lr: _Encoded | None) -> Embedding:
        features = {
            name: _features(decoder, hr, lr)
            for name, decoder in self._decoders.items()
            if isinstance(decoder, WsiSamDecoder)
        }
        lr_tokens = None if lr is None else lr[0]
        arrays = [hr[0], *features.values(), *([] if lr_tokens is None else [lr_tokens])]
        nbytes = sum(array.numel() * array.element_size() for array in arrays)
        return Embedding(hr[0], lr_tokens, features, nbytes)

    def _stacked(self, arrays: Sequence[np.ndarray | None]) -> torch.Tensor | None:
        present = [array for array in arrays if array is not None]
        return torch.from_numpy(np.stack(present)).to(self._device) if present else None

    def _autocast(self) -> AbstractContextManager[object]:
        if self._device.type != "cuda":
            return nullcontext()
        native = torch.cuda.is_bf16_supported()
        return torch.autocast("cuda", torch.bfloat16 if native else torch.float16)


def _features(decoder: WsiSamDecoder, hr: _Encoded, lr: _Encoded | None) -> torch.Tensor:
    """What :attr:`.Embedding.features` holds: 1 or 2 x 32 x 256 x 256."""
    of_hr = decoder.hr.image_features(*hr)
    if not decoder.mixes_features:
        return of_hr
    assert decoder.lr is not None
    assert lr is not None
    return torch.cat([of_hr, decoder.lr.image_features(*lr)])
