"""TinyViT as MobileSAM and LiteMedSAM use it, assembled from timm's.

Two things differ from timm's ImageNet model: the last stage keeps its resolution, so that the
tokens stay 64 x 64, and a SAM neck follows. LiteMedSAM also embeds patches with two 1x1
convolutions, so that 256 px give the same 64 x 64 tokens as MobileSAM's 1024 px.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from segment_anything.modeling.common import LayerNorm2d
from timm.models.tiny_vit import ConvNorm, TinyVit
from torch import nn

EMBED_DIMS = (64, 128, 160, 320)
NECK_CHANNELS = 256

_CLASSIFIER = ("norm_head.", "head.")
_RENAMES = (
    (re.compile(r"^patch_embed\.seq\.0\."), "patch_embed.conv1."),
    (re.compile(r"^patch_embed\.seq\.2\."), "patch_embed.conv2."),
    (re.compile(r"^layers\.(\d+)\.blocks\."), r"stages.\1.blocks."),
    (re.compile(r"\.c\.weight$"), ".conv.weight"),
)
_DOWNSAMPLE = re.compile(r"^layers\.(\d+)\.downsample\.")


class TinyVitEncoder(nn.Module):
    """Image encoder with an early feature map.

    Args:
        pixelwise_stem: whether patches are embedded with 1x1, stride-1 convolutions (LiteMedSAM),
            not 3x3, stride-2 ones (MobileSAM).
    """

    late_parts = ("stages.2.blocks", "stages.3.blocks")
    """Names of the transformer blocks behind the early features."""

    def __init__(self, *, pixelwise_stem: bool) -> None:
        super().__init__()
        vit = TinyVit(
            embed_dims=EMBED_DIMS,
            depths=(2, 2, 6, 2),
            num_heads=(2, 4, 5, 10),
            window_sizes=(7, 7, 14, 7),
            num_classes=0,
            drop_path_rate=0.0,
        )
        self.patch_embed = vit.patch_embed
        self.stages = vit.stages
        if pixelwise_stem:
            half = EMBED_DIMS[0] // 2
            self.patch_embed.conv1 = ConvNorm(3, half)
            self.patch_embed.conv2 = ConvNorm(half, EMBED_DIMS[0])
        last = EMBED_DIMS[-1]
        self.stages[-1].get_submodule("downsample").conv2 = ConvNorm(
            last, last, 3, 1, 1, groups=last
        )
        self.neck = nn.Sequential(
            nn.Conv2d(last, NECK_CHANNELS, kernel_size=1, bias=False),
            LayerNorm2d(NECK_CHANNELS),
            nn.Conv2d(NECK_CHANNELS, NECK_CHANNELS, kernel_size=3, padding=1, bias=False),
            LayerNorm2d(NECK_CHANNELS),
        )

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Encode normalized images.

        Args:
            images: B x 3 x S x S float, S = 256 with a pixelwise stem, else 1024.

        Returns:
            The embedding, B x 256 x 64 x 64, and what leaves the second stage together with its
            down-sampling, B x 160 x 64 x 64, after 4 of the 12 blocks: the early features that
            the fusion modules of WSI-SAM (section 2.2) and of HQ-SAM's light model read.
        """
        second = self.stages[:2](self.patch_embed(images))
        # timm down-samples at the start of a stage, the authors at the end of the one before.
        early = self.stages[2].get_submodule("downsample")(second)
        return self.continue_from(early), early

    def continue_from(self, early: torch.Tensor) -> torch.Tensor:
        """Compute the embedding, B x 256 x 64 x 64, from early features, B x 160 x 64 x 64."""
        blocks = self.stages[2].get_submodule("blocks")
        third = blocks(early.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        embedding: torch.Tensor = self.neck(self.stages[3](third))
        return embedding


def timm_state(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Rename a MobileSAM-style encoder state dict to :class:`TinyVitEncoder`'s names.

    MobileSAM's file also carries the classifier that its encoder was distilled from; nothing
    reads it, so it is left out. All else must load strictly.
    """
    return {
        _timm_name(name): tensor
        for name, tensor in state.items()
        if not name.startswith(_CLASSIFIER)
    }


def _timm_name(name: str) -> str:
    # timm merges patches at the start of a stage, MobileSAM at the end of the stage before.
    name = _DOWNSAMPLE.sub(lambda m: f"stages.{int(m[1]) + 1}.downsample.", name)
    for pattern, replacement in _RENAMES:
        name = pattern.sub(replacement, name)
    return name
