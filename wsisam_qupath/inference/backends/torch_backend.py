"""PyTorch: the backend of GPUs, and of a CPU that OpenVINO does not serve."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import chain, islice

import numpy as np
import torch
from numpy.typing import NDArray

from ...model.build import Networks
from ...model.decoders import Decoded, SamDecoder, WsiSamDecoder
from ...options import Precision
from ...prompts.encoding import EncodedPrompt
from . import (
    Embedding,
    Encoded,
    EncodedPatch,
    ImageArray,
    PatchSource,
    Prediction,
    pack_predictions,
)

_PAIRS_ON_GPU = 8


class TorchBackend:
    """Runs a model on a PyTorch device: float32 on a CPU, mixed precision on a CUDA device.

    Args:
        networks: base and decoders in evaluation mode; moved to the device.
        device: PyTorch's name of it: "cpu", "cuda", "cuda:1", "mps".
        precision: "f32" computes in float32 even on a CUDA device.
    """

    def __init__(self, networks: Networks, device: str, precision: Precision = "bf16") -> None:
        self._device = torch.device(device)
        self._is_mixed = self._device.type == "cuda" and precision != "f32"
        self._encoder = networks.encoder.to(self._device)
        self._decoders = {name: d.to(self._device) for name, d in networks.decoders.items()}
        self._cards = networks.cards
        if self._device.type == "cuda":
            self._encoder = self._encoder.to(memory_format=torch.channels_last)
            torch.backends.cudnn.benchmark = True  # all patches have one size

    @property
    def name(self) -> str:
        """See :class:`.Backend`."""
        return f"PyTorch on {self._device}, {'mixed precision' if self._is_mixed else 'float32'}"

    @property
    def precision(self) -> Precision:
        """See :class:`.Backend`."""
        return "bf16" if self._is_mixed else "f32"

    @property
    def pairs_at_once(self) -> int:
        """See :class:`.Backend`."""
        return 1 if self._device.type == "cpu" else _PAIRS_ON_GPU

    @torch.inference_mode()
    def encode(self, patches: Sequence[ImageArray]) -> Encoded:
        """See :class:`.Backend`."""
        with self._autocast():
            tokens, early = self._encoder(self._upload(patches))
        return Encoded(tokens.float().cpu().numpy(), early.float().cpu().numpy())

    @torch.inference_mode()
    def embed(self, pairs: Sequence[Sequence[PatchSource]]) -> list[Embedding]:
        """See :class:`.Backend`."""
        with self._autocast():
            encoded = iter(self._encode_missing([patch for pair in pairs for patch in pair]))
            return [self._make_embedding(tuple(islice(encoded, len(pair)))) for pair in pairs]

    def take(self, encoded: Encoded) -> EncodedPatch:
        """See :class:`.Backend`."""
        return EncodedPatch(*(torch.from_numpy(array).to(self._device) for array in encoded))

    @torch.inference_mode()
    def decode(
        self, decoder: str, embedding: Embedding, prompts: Sequence[EncodedPrompt]
    ) -> list[tuple[Prediction, ...]]:
        """See :class:`.Backend`."""
        with self._autocast():
            answer = self._run_decoder(decoder, embedding, prompts)
        logits = answer.logits.float().cpu().numpy()
        ious = answer.iou.float().cpu().numpy()
        return [pack_predictions(*one) for one in zip(logits, ious, strict=True)]

    def read_tokens(self, patch: EncodedPatch) -> NDArray[np.float32]:
        """See :class:`.Backend`."""
        tokens: NDArray[np.float32] = patch.tokens[0].float().cpu().numpy()
        return tokens

    def _encode_missing(self, patches: Sequence[PatchSource]) -> list[EncodedPatch]:
        """Encode the patches that are still pixels, in one batch; keep the others as they are."""
        pixels = [patch for patch in patches if not isinstance(patch, EncodedPatch)]
        made: Iterator[EncodedPatch] = iter(())
        if pixels:
            tokens, early = self._encoder(self._upload(pixels))
            made = map(EncodedPatch, tokens.split(1), early.split(1))
        return [patch if isinstance(patch, EncodedPatch) else next(made) for patch in patches]

    def _run_decoder(
        self, decoder: str, embedding: Embedding, prompts: Sequence[EncodedPrompt]
    ) -> Decoded:
        module = self._decoders[decoder]
        coords = self._stack_arrays([p.point_coords for p in prompts])
        labels = self._stack_arrays([p.point_labels for p in prompts])
        hr_mask = self._stack_arrays([p.mask_input for p in prompts])
        lr_mask = self._stack_arrays([p.lr_mask_input for p in prompts])
        count = self._cards[decoder].count_patches(fits_hr=prompts[0].fits_hr)
        tokens = [patch.tokens for patch in embedding.patches[:count]]
        masks = None if hr_mask is None else [hr_mask, lr_mask][:count]
        answer: Decoded
        if isinstance(module, SamDecoder):
            answer = module(tokens, coords, labels, masks)
        else:
            answer = module(tokens, embedding.features[decoder], coords, labels, masks)
        return answer

    def _make_embedding(self, patches: tuple[EncodedPatch, ...]) -> Embedding:
        features = {
            name: tuple(
                resolution.image_features(*patch)
                for resolution, patch in zip(decoder.resolutions, patches, strict=False)
            )
            for name, decoder in self._decoders.items()
            if isinstance(decoder, WsiSamDecoder) and decoder.patch_count <= len(patches)
        }
        arrays = [*chain(*patches), *chain(*features.values())]
        nbytes = sum(array.numel() * array.element_size() for array in arrays)
        return Embedding(patches, features, nbytes)

    def _stack_arrays(self, arrays: Sequence[np.ndarray | None]) -> torch.Tensor | None:
        present = [array for array in arrays if array is not None]
        return self._upload(present) if present else None

    def _upload(self, arrays: Sequence[np.ndarray]) -> torch.Tensor:
        stacked = torch.from_numpy(np.stack(arrays))
        if self._device.type != "cuda":
            return stacked.to(self._device)
        # From pinned memory the GPU fetches them itself, while the CPU prepares what comes next.
        return stacked.pin_memory().to(self._device, non_blocking=True)

    def _autocast(self) -> AbstractContextManager[object]:
        if not self._is_mixed:
            return nullcontext()
        native = torch.cuda.is_bf16_supported()
        return torch.autocast("cuda", torch.bfloat16 if native else torch.float16)
