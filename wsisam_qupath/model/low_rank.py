"""Low-rank adaptation of an image encoder (LoRA, Hu et al. 2022). PyTorch.

To the weight of each linear layer behind the early features, ``out x in``, the product of two
narrow matrices is added: ``up``, ``out x rank``, and ``down``, ``rank x in``. What comes before
stays as in the base, so that kept early features go on to hold.
"""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional as F

from .encoder import VitEncoder
from .tiny_vit import TinyVitEncoder

_PARTS = ("down", "up")


class LowRankLinear(nn.Linear):
    """A linear layer with its two narrow matrices beside it, which begins as the plain layer.

    Args:
        plain: the layer, which becomes part of this one.
        rank: rank of the matrices.
    """

    def __init__(self, plain: nn.Linear, rank: int) -> None:
        super().__init__(plain.in_features, plain.out_features, plain.bias is not None, "meta")
        self.weight, self.bias = plain.weight, plain.bias
        self.down = nn.Parameter(torch.empty(rank, plain.in_features))
        self.up = nn.Parameter(torch.zeros(plain.out_features, rank))
        nn.init.kaiming_uniform_(self.down, a=math.sqrt(5))  # as the authors' own layers begin

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Apply the layer and what is added to it."""
        return super().forward(tokens) + F.linear(F.linear(tokens, self.down), self.up)

    def merge(self) -> nn.Linear:
        """Make a plain layer that answers the same."""
        plain = nn.Linear(self.in_features, self.out_features, self.bias is not None)
        plain.weight.copy_(self.weight + self.up @ self.down)
        if self.bias is not None:
            plain.bias = self.bias
        return plain


def find_late_layers(encoder: TinyVitEncoder | VitEncoder) -> dict[str, nn.Linear]:
    """Find the linear layers behind the early features, by their names in the encoder."""
    return {
        f"{part}.{name}": layer
        for part in encoder.late_parts
        for name, layer in encoder.get_submodule(part).named_modules()
        if isinstance(layer, nn.Linear)
    }


def name_low_rank(encoder: TinyVitEncoder | VitEncoder) -> list[str]:
    """Name all narrow matrices that are added to an encoder: ``stages.2.blocks.0.mlp.fc1.up``."""
    return [f"{layer}.{part}" for layer in find_late_layers(encoder) for part in _PARTS]


def is_low_rank(name: str) -> bool:
    """Whether a tensor of an encoder with narrow matrices is one of them, by its name."""
    return name.endswith(tuple(f".{part}" for part in _PARTS))


def add_low_rank(encoder: TinyVitEncoder | VitEncoder, rank: int) -> None:
    """Put narrow matrices beside the layers behind the early features; they change nothing yet."""
    for name, layer in find_late_layers(encoder).items():
        _replace(encoder, name, LowRankLinear(layer, rank))


@torch.no_grad()
def merge_low_rank(encoder: TinyVitEncoder | VitEncoder) -> None:
    """Put plain layers in place of those with narrow matrices, with the products added."""
    for name, layer in find_late_layers(encoder).items():
        if isinstance(layer, LowRankLinear):
            _replace(encoder, name, layer.merge())


def _replace(encoder: nn.Module, name: str, layer: nn.Linear) -> None:
    owner, _, own = name.rpartition(".")
    setattr(encoder.get_submodule(owner), own, layer)
