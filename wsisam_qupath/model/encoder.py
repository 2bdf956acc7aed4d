"""Encode pixels: normalization and image encoder of a base, as one module. PyTorch."""

from __future__ import annotations

import torch
from segment_anything.modeling import ImageEncoderViT
from torch import nn

from .bases import IMAGENET_MEAN_RGB, IMAGENET_STD_RGB, Base
from .decoders import as_tokens
from .tiny_vit import TinyVitEncoder


class VitEncoder(nn.Module):
    """SAM's ViT with an early feature map: the output of its first global-attention block."""

    def __init__(self, vit: ImageEncoderViT) -> None:
        super().__init__()
        self.vit = vit
        self.early_block = next(i for i, b in enumerate(vit.blocks) if b.window_size == 0)
        late = range(self.early_block + 1, len(vit.blocks))
        self.late_parts = tuple(f"vit.blocks.{index}" for index in late)
        """Names of the transformer blocks behind the early features."""

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Encode B x 3 x 1024 x 1024: B x 256 x 64 x 64 and B x C x 64 x 64 early features."""
        tokens = self.vit.patch_embed(images) + self.vit.pos_embed
        for block in self.vit.blocks[: self.early_block + 1]:
            tokens = block(tokens)
        early = tokens.permute(0, 3, 1, 2)
        return self.continue_from(early), early

    def continue_from(self, early: torch.Tensor) -> torch.Tensor:
        """Compute the embedding, B x 256 x 64 x 64, from early features, B x C x 64 x 64."""
        tokens = early.permute(0, 2, 3, 1)
        for block in self.vit.blocks[self.early_block + 1 :]:
            tokens = block(tokens)
        embedding: torch.Tensor = self.vit.neck(tokens.permute(0, 3, 1, 2))
        return embedding


class PatchEncoder(nn.Module):
    """What a backend runs on the pixels of a patch, HR and LR alike.

    Args:
        base: says how to normalize.
        encoder: turns B x 3 x S x S normalized pixels into embedding and early features.
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, base: Base, encoder: TinyVitEncoder | VitEncoder) -> None:
        super().__init__()
        self.encoder = encoder
        self.normalization = base.normalization
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN_RGB).reshape(3, 1, 1), False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD_RGB).reshape(3, 1, 1), False)

    def forward(self, patches: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Encode patches.

        Args:
            patches: pixels, B x S x S x 3 uint8 RGB.

        Returns:
            The embedding as tokens, B x 4096 x 256, and the early features, B x C x 64 x 64.
        """
        embedding, early = self.encoder(self.normalize(patches))
        return as_tokens(embedding), early

    def continue_from(self, early: torch.Tensor) -> torch.Tensor:
        """Compute the embedding as tokens, B x 4096 x 256, from early features, B x C x 64 x 64."""
        return as_tokens(self.encoder.continue_from(early))

    def normalize(self, patches: torch.Tensor) -> torch.Tensor:
        """Normalize B x S x S x 3 uint8 RGB to B x 3 x S x S float, as the base was trained."""
        images = patches.permute(0, 3, 1, 2).float()
        if self.normalization == "imagenet":
            return (images - self.mean) / self.std
        low = images.amin(dim=(1, 2, 3), keepdim=True)
        high = images.amax(dim=(1, 2, 3), keepdim=True)
        # A patch of one colour only must not divide by zero.
        return (images - low) / (high - low).clamp(min=1e-8)
