"""Export PyTorch modules as OpenVINO graphs, once per base and adapter. PyTorch and OpenVINO."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ...model.bases import Base
from ...model.build import Networks
from ...model.decoders import (
    MASK_CHANNELS,
    TOKEN_DIM,
    Decoded,
    PromptedSam,
    ResolutionDecoder,
    SamDecoder,
    WsiSamDecoder,
)
from ...model.prompted_sam import fold_image_attention
from ...prompts.encoding import MASK_PX
from .openvino_backend import FEATURE_GRAPHS
from .openvino_runtime import convert, save_graph

_TOKENS_PX = 64
_EMBEDDING = (1, _TOKENS_PX**2, TOKEN_DIM)
_FEATURES = (1, MASK_PX, MASK_PX, MASK_CHANNELS)
_MASK = (1, MASK_PX, MASK_PX)
_trace: Callable[..., Any] = torch.jit.trace


class _ImageFeatures(nn.Module):
    """What a WSI-SAM decoder computes from the image of one patch alone."""

    def __init__(self, resolution: ResolutionDecoder) -> None:
        super().__init__()
        self.resolution = resolution

    def forward(self, tokens: torch.Tensor, early: torch.Tensor) -> torch.Tensor:
        return self.resolution.image_features(tokens, early)


class _FlatWsiSam(nn.Module):
    """A WSI-SAM decoder that takes embeddings, features, coordinates and labels one by one."""

    def __init__(self, decoder: WsiSamDecoder) -> None:
        super().__init__()
        self.decoder = decoder

    def forward(self, *inputs: torch.Tensor) -> Decoded:
        *images, coords, labels = inputs
        count = self.decoder.patch_count
        answer: Decoded = self.decoder(images[:count], images[count:], coords, labels)
        return answer


class _OnePatchSam(nn.Module):
    """SAM's own decoder on one patch, the coordinates in px of that patch."""

    def __init__(self, decoder: SamDecoder) -> None:
        super().__init__()
        self.decoder = decoder

    def forward(
        self, embedding: torch.Tensor, coords: torch.Tensor, labels: torch.Tensor
    ) -> Decoded:
        answer: Decoded = self.decoder([embedding], coords, labels)
        return answer


class _MaskPrompt(nn.Module):
    """What a mask prompt adds to an embedding, less what is added without one."""

    def __init__(self, sam: PromptedSam) -> None:
        super().__init__()
        self.sam = sam

    def forward(self, mask: torch.Tensor) -> torch.Tensor:
        return self.sam.dense(mask) - self.sam.dense(None)


def export_decoders(networks: Networks, folder: Path) -> None:
    """Write the graphs of each decoder, two to four of it."""
    for name, decoder in networks.decoders.items():
        if isinstance(decoder, WsiSamDecoder):
            for graph, resolution in zip(FEATURE_GRAPHS, decoder.resolutions, strict=False):
                export_features(resolution, networks.base, folder / f"{name}.{graph}.xml")
        export_mask(decoder, folder / f"{name}.mask.xml")
        export_decoder(decoder, folder / f"{name}.decoder.xml")


def export_encoder(networks: Networks, path: Path) -> None:
    """Write the patch encoder's graph: 1 x S x S x 3 uint8 to tokens and early features."""
    size_px = networks.base.size_px
    patch = torch.zeros((1, size_px, size_px, 3), dtype=torch.uint8)
    _save(networks.encoder, (patch,), path)


def export_features(resolution: ResolutionDecoder, base: Base, path: Path) -> None:
    """Write the graph of all that a WSI-SAM decoder computes from one patch's image alone."""
    early = torch.zeros((1, base.early_channels, _TOKENS_PX, _TOKENS_PX))
    _save(_ImageFeatures(resolution), (torch.zeros(_EMBEDDING), early), path)


def export_mask(decoder: SamDecoder | WsiSamDecoder, path: Path) -> None:
    """Write the graph of what a mask prompt, 1 x 256 x 256, changes in an embedding."""
    _save(_MaskPrompt(decoder.sam), (torch.zeros(_MASK),), path)


def export_decoder(decoder: SamDecoder | WsiSamDecoder, path: Path) -> None:
    """Write a decoder's graph: one prompt of any number of tokens, without a mask."""
    tokens = 3
    decoder = copy.deepcopy(decoder)
    fold_image_attention(decoder)
    coords, labels = torch.zeros((1, tokens, 2)), torch.ones((1, tokens), dtype=torch.int64)
    embedding = torch.zeros(_EMBEDDING)
    if isinstance(decoder, WsiSamDecoder):
        count = decoder.patch_count
        images: tuple[torch.Tensor, ...] = (embedding,) * count + (torch.zeros(_FEATURES),) * count
        module: nn.Module = _FlatWsiSam(decoder)
    else:
        images, module = (embedding,), _OnePatchSam(decoder)
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
    with _silence(), torch.inference_mode():
        # OpenVINO would trace it too, but check itself by running the module three times more.
        traced = _trace(module.eval(), example, strict=False, check_trace=False)
        graph = convert(traced, example, inputs)
    save_graph(graph, path)


@contextmanager
def _silence() -> Iterator[None]:
    # Tracing warns about every size that it takes for a constant. They are constants here.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
