"""From PyTorch modules to OpenVINO graphs, once for each base and adapter. PyTorch and OpenVINO."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..model.bases import Base
from ..model.build import Model
from ..model.decoders import (
    MASK_CHANNELS,
    TOKEN_DIM,
    Decoded,
    PromptedSam,
    ResolutionDecoder,
    SamDecoder,
    WsiSamDecoder,
)
from ..tokens import MASK_PX
from .openvino_runtime import ov

_TOKENS_PX = 64
_EMBEDDING = (1, _TOKENS_PX**2, TOKEN_DIM)
_FEATURES = (MASK_PX, MASK_PX, MASK_CHANNELS)
_MASK = (1, MASK_PX, MASK_PX)
_trace: Callable[..., Any] = torch.jit.trace


class _FeaturesNhwc(nn.Module):
    """Image features with their channels last, as the CPU computes them: no copy in between."""

    def __init__(self, resolution: ResolutionDecoder) -> None:
        super().__init__()
        self.resolution = resolution

    def forward(self, embedding: torch.Tensor, early: torch.Tensor) -> torch.Tensor:
        return self.resolution.image_features(embedding, early).permute(0, 2, 3, 1)


class _WsiSamNhwc(nn.Module):
    """A WSI-SAM decoder that takes such features: after the embeddings, before the prompt."""

    def __init__(self, decoder: WsiSamDecoder) -> None:
        super().__init__()
        self.decoder = decoder

    def forward(self, hr: torch.Tensor, *others: torch.Tensor) -> Decoded:
        *lr, features_nhwc, coords, labels = others
        features, lr_features = features_nhwc.permute(0, 3, 1, 2), None
        if self.decoder.mixes_features:
            features, lr_features = torch.split(features, 1)
        answer: Decoded = self.decoder(
            hr, lr[0] if lr else None, features, coords, labels, lr_features=lr_features
        )
        return answer


class _MaskPrompt(nn.Module):
    """What a mask prompt adds to an embedding in place of what no mask adds."""

    def __init__(self, sam: PromptedSam) -> None:
        super().__init__()
        self.sam = sam

    def forward(self, mask: torch.Tensor) -> torch.Tensor:
        return self.sam.dense(mask) - self.sam.dense(None)


def export_model(model: Model, folder: Path) -> None:
    """Write all graphs of a model: the encoder's, and two to four of each decoder."""
    export_encoder(model, folder / "encoder.xml")
    for name, decoder in model.decoders.items():
        if isinstance(decoder, WsiSamDecoder):
            export_features(decoder.hr, model.base, folder / f"{name}.features.xml")
            if decoder.lr is not None and decoder.mixes_features:
                export_features(decoder.lr, model.base, folder / f"{name}.lr-features.xml")
        export_mask(decoder, folder / f"{name}.mask.xml")
        export_decoder(decoder, folder / f"{name}.decoder.xml")


def export_encoder(model: Model, path: Path) -> None:
    """Write the patch encoder's graph: 1 x S x S x 3 uint8 to tokens and early features."""
    size_px = model.base.size_px
    patch = torch.zeros((1, size_px, size_px, 3), dtype=torch.uint8)
    _save(model.encoder, (patch,), path)


def export_features(resolution: ResolutionDecoder, base: Base, path: Path) -> None:
    """Write the graph of all that a WSI-SAM decoder computes from one patch's image alone."""
    early = torch.zeros((1, base.early_channels, _TOKENS_PX, _TOKENS_PX))
    _save(_FeaturesNhwc(resolution), (torch.zeros(_EMBEDDING), early), path)


def export_mask(decoder: SamDecoder | WsiSamDecoder, path: Path) -> None:
    """Write the graph of what a mask prompt, 1 x 256 x 256, changes in an embedding."""
    _save(_MaskPrompt(decoder.sam), (torch.zeros(_MASK),), path)


def export_decoder(decoder: SamDecoder | WsiSamDecoder, path: Path) -> None:
    """Write a decoder's graph: one prompt of any number of tokens, without a mask."""
    tokens = 3
    coords, labels = torch.zeros((1, tokens, 2)), torch.ones((1, tokens), dtype=torch.int64)
    embedding = torch.zeros(_EMBEDDING)
    if isinstance(decoder, WsiSamDecoder):
        embeddings = (embedding,) if decoder.lr is None else (embedding, embedding)
        patches = 2 if decoder.mixes_features else 1
        images: tuple[torch.Tensor, ...] = (*embeddings, torch.zeros((patches, *_FEATURES)))
        module: nn.Module = _WsiSamNhwc(decoder)
    else:
        images, module = (embedding,), decoder
    _save(module, (*images, coords, labels), path, dynamic=(len(images), len(images) + 1))


def _save(
    module: nn.Module, example: tuple[torch.Tensor, ...], path: Path, dynamic: Sequence[int] = ()
) -> None:
    inputs: list[Any] = []
    for index, tensor in enumerate(example):
        shape = list(tensor.shape)
        if index in dynamic:
            shape[1] = -1
        inputs.append(shape)
    with _quiet(), torch.inference_mode():
        # OpenVINO would trace it too, but check itself by running the module three times more.
        traced = _trace(module.eval(), example, strict=False, check_trace=False)
        graph = ov.convert_model(traced, example_input=example, input=inputs)
    ov.save_model(graph, path, compress_to_fp16=False)


@contextmanager
def _quiet() -> Iterator[None]:
    # Tracing warns about every size that it takes for a constant. They are constants here.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
