"""The decoders: SAM's own, and WSI-SAM's dual one. PyTorch, inference and training alike.

What depends on the pixels alone is computed once per patch pair: the embeddings of the encoder,
and :meth:`ResolutionDecoder.image_features`. ``forward`` computes the rest, once per prompt.

Shapes: B prompts, N tokens each (padded with label -1 where SAM does so), R patches (the HR patch,
then the LR patch where one is read), embeddings as 4096 x 256 tokens, the layout in which SAM's
transformer wants them, and feature maps with their channels last. What comes from the pixels has
a leading 1 where all prompts ask the same patch pair, as in use, or B where each brings a pair of
its own, as in training.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import NamedTuple

import torch
from segment_anything.modeling.common import LayerNorm2d
from segment_anything.modeling.mask_decoder import MLP
from torch import nn
from torch.nn import functional as F

from ..prompts.encoding import place_in_patches
from .card import SamLogits
from .prompted_sam import (
    TOKEN_DIM,
    Decoded,
    PromptedSam,
    as_pixels,
    as_tokens,
    expand_tokens,
    normalize_channels,
    point_wise,
)

__all__ = [
    "FEATURE_CHANNELS",
    "MASK_CHANNELS",
    "TOKEN_DIM",
    "Aggregation",
    "Decoded",
    "PairIouHead",
    "PromptedSam",
    "ResolutionDecoder",
    "SamDecoder",
    "UpdatedTokens",
    "WsiSamDecoder",
    "as_tokens",
]

MASK_CHANNELS = TOKEN_DIM // 8
FEATURE_CHANNELS = TOKEN_DIM // 4


class Aggregation(str, Enum):
    """How the two resolutions become one: as tokens (WSI-SAM, table 3a) or features (table 3b)."""

    MEAN = "mean"
    MAX = "max"
    CONCAT = "concat"
    FEATURES = "features"
    """Each mask has the token of its own resolution, and mean mask features of both.

    The paper names this and does not say how. Our reading: the other resolution's mask features
    are brought into the frame of the mask, and averaged with its own where they cover it.
    """


class SamDecoder(nn.Module):
    """SAM's own decoder, on each patch by itself. Where there is no adapter, it answers on one.

    Args:
        sam: the base's prompt encoder and mask decoder.
        patch_count: how many patches of a pair it answers on (R).
    """

    def __init__(self, sam: PromptedSam, patch_count: int = 1) -> None:
        super().__init__()
        self.sam = sam
        self.patch_count = patch_count

    def forward(
        self,
        embeddings: Sequence[torch.Tensor],
        point_coords: torch.Tensor,
        point_labels: torch.Tensor,
        masks: Sequence[torch.Tensor] | None = None,
    ) -> Decoded:
        """Answer B prompts on a patch pair.

        Args:
            embeddings: R tensors of 1 or B x 4096 x 256.
            point_coords: B x N x 2 float, HR px; the LR prompt follows from it, exactly.
            point_labels: B x N, see :meth:`PromptedSam.sparse`.
            masks: R times B x 256 x 256 mask logits over the patches; None is no mask prompt.
        """
        placed = place_in_patches(point_coords, self.sam.size_px)
        answers = [
            self.sam.predict_plain_mask(
                *self.sam.transform(
                    embedding + self.sam.dense(None if masks is None else masks[index]),
                    self.sam.sparse(placed[index], point_labels),
                )
            )
            for index, embedding in enumerate(embeddings)
        ]
        logits, iou = (torch.stack(parts, dim=1) for parts in zip(*answers, strict=True))
        return Decoded(logits, iou)


def _make_upscaler(channels: int, middle: int) -> nn.Sequential:
    """Make the up-scaling of 64 x 64 x channels to 256 x 256 x 32 (HQ-SAM's, as in WSI-SAM)."""
    return nn.Sequential(
        nn.ConvTranspose2d(channels, middle, kernel_size=2, stride=2),
        LayerNorm2d(middle),
        nn.GELU(),
        nn.ConvTranspose2d(middle, MASK_CHANNELS, kernel_size=2, stride=2),
    )


class UpdatedTokens(NamedTuple):
    """Tokens and features of one resolution after SAM's transformer.

    Attributes:
        token: WSI-SAM's token after its MLP, B x 32.
        all_tokens: tokens in the order of :meth:`PromptedSam.transform`, B x T x 256.
        upscaled: SAM's mask features, B x 256 x 256 x 32.
    """

    token: torch.Tensor
    all_tokens: torch.Tensor
    upscaled: torch.Tensor


class ResolutionDecoder(nn.Module):
    """What WSI-SAM learns for one resolution: a token, its MLP and a fusion module (figure 2).

    About 0.45 M parameters with TinyViT's 160 early channels. SAM itself is passed in at each
    call: both resolutions and the base share it.
    """

    def __init__(self, early_channels: int) -> None:
        super().__init__()
        self.token = nn.Embedding(1, TOKEN_DIM)
        self.token_mlp = MLP(TOKEN_DIM, TOKEN_DIM, MASK_CHANNELS, 3)
        self.up_embedding = _make_upscaler(TOKEN_DIM, FEATURE_CHANNELS)
        self.up_early = _make_upscaler(early_channels, TOKEN_DIM)
        self.mask_features = nn.Sequential(
            nn.Conv2d(MASK_CHANNELS, FEATURE_CHANNELS, kernel_size=3, padding=1),
            LayerNorm2d(FEATURE_CHANNELS),
            nn.GELU(),
            nn.Conv2d(FEATURE_CHANNELS, MASK_CHANNELS, kernel_size=3, padding=1),
        )

    def image_features(self, embedding: torch.Tensor, early: torch.Tensor) -> torch.Tensor:
        """Compute the part of the fusion that no prompt changes.

        Args:
            embedding: 1 or B x 4096 x 256, the encoder's final tokens.
            early: 1 or B x C x 64 x 64, its early feature map.

        Returns:
            1 or B x 256 x 256 x 32.
        """
        final = expand_tokens(self.up_embedding, embedding)
        return as_pixels(final + expand_tokens(self.up_early, as_tokens(early)))

    def update(self, sam: PromptedSam, source: torch.Tensor, sparse: torch.Tensor) -> UpdatedTokens:
        """Run the token through SAM's transformer, beside SAM's own tokens and the prompt's."""
        updated, upscaled = sam.transform(source, sparse, extra=self.token.weight)
        after_mask_tokens = 1 + sam.mask_decoder.num_mask_tokens
        return UpdatedTokens(self.token_mlp(updated[:, after_mask_tokens]), updated, upscaled)

    def logits(
        self, token: torch.Tensor, upscaled: torch.Tensor, image_features: torch.Tensor
    ) -> torch.Tensor:
        """Multiply an aggregated token with the fused mask features, point by point.

        The last 3x3 convolution is linear, so the token goes into its kernel first: one output
        channel is convolved in place of 32, with the same result.

        Args:
            token: B x 32.
            upscaled: B x H x W x 32.
            image_features: 1 or B x H x W x 32.

        Returns:
            B x H x W.
        """
        first, norm, activation, last = self.mask_features
        assert isinstance(norm, LayerNorm2d)
        assert isinstance(last, nn.Conv2d)
        assert last.bias is not None
        hidden = first(upscaled.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        hidden = activation(normalize_channels(norm, hidden))
        taps = torch.einsum("bo,oihw->bihw", token, last.weight).flatten(2)
        height, width = hidden.shape[1:3]
        planes = (hidden.flatten(1, 2) @ taps).unflatten(1, (height, width))
        constant = point_wise(token, image_features)
        return _shift_and_add(planes) + constant + (token @ last.bias)[:, None, None]


def _shift_and_add(planes: torch.Tensor) -> torch.Tensor:
    """Sum the nine tap planes of a zero-padded 3x3 convolution, B x H x W x 9 to B x H x W."""
    height, width = planes.shape[1:3]
    padded = F.pad(planes, (0, 0, 1, 1, 1, 1))
    total = padded[:, :height, :width, 0]
    for tap in range(1, 9):
        dy, dx = divmod(tap, 3)
        total = total + padded[:, dy : dy + height, dx : dx + width, tap]
    return total


def lr_middle_to_hr(lr_map: torch.Tensor) -> torch.Tensor:
    """Cut what the HR patch covers out of a B x H x W map over the LR patch, twice as large."""
    height, width = lr_map.shape[-2:]
    middle = lr_map[:, height // 4 : height - height // 4, width // 4 : width - width // 4]
    size = (height, width)
    return F.interpolate(middle[:, None], size, mode="bilinear", align_corners=False)[:, 0]


def hr_into_lr_middle(hr_map: torch.Tensor, lr_map: torch.Tensor) -> torch.Tensor:
    """Average two B x H x W maps in the LR frame; ``lr_map`` alone where HR does not reach."""
    height, width = lr_map.shape[-2:]
    smaller = F.avg_pool2d(hr_map[:, None], 2)[:, 0]
    sides = (width // 4, width // 4, height // 4, height // 4)
    covered = F.pad(torch.ones_like(smaller), sides)
    return lr_map + covered * (F.pad(smaller, sides) - lr_map) / 2


class PairIouHead(nn.Module):
    """Predicts how well each of R masks covers the whole object, from the tokens of all of them.

    Its last layer starts at zero: an untrained head leaves SAM's own predictions as they are.
    """

    def __init__(self, patches: int) -> None:
        super().__init__()
        self.mlp = MLP(patches * (TOKEN_DIM + MASK_CHANNELS), TOKEN_DIM, patches, 3)
        nn.init.zeros_(self.mlp.layers[-1].weight)
        nn.init.zeros_(self.mlp.layers[-1].bias)

    def forward(self, updated: Sequence[UpdatedTokens], own: torch.Tensor) -> torch.Tensor:
        """Correct SAM's own predictions, B x R."""
        seen = [part for u in updated for part in (u.all_tokens[:, 0], u.token)]
        corrected: torch.Tensor = own + self.mlp(torch.cat(seen, dim=1))
        return corrected


class WsiSamDecoder(nn.Module):
    """WSI-SAM's dual mask decoder with token aggregation (section 2.2, figure 2).

    Both masks are answers: the one over the HR patch and the one over the LR patch.

    Args:
        sam: the base's prompt encoder and mask decoder.
        early_channels: channels of the encoder's early features.
        aggregation: how the two resolutions become one.
        sam_logits: the masks to which SAM's own logits of their patch are added.
        iou_head: whether a :class:`PairIouHead` corrects SAM's predicted IoU.
        hr_only: whether all that reads the LR patch is left out, to measure what it is worth.
    """

    def __init__(
        self,
        sam: PromptedSam,
        *,
        early_channels: int,
        aggregation: Aggregation = Aggregation.MEAN,
        sam_logits: SamLogits = SamLogits.HR,
        iou_head: bool = False,
        hr_only: bool = False,
    ) -> None:
        super().__init__()
        self.sam = sam
        self.hr = ResolutionDecoder(early_channels)
        self.lr = None if hr_only else ResolutionDecoder(early_channels)
        self.aggregation = aggregation
        self.sam_logits = sam_logits
        if aggregation is Aggregation.CONCAT and not hr_only:
            self.concat = nn.Linear(2 * MASK_CHANNELS, MASK_CHANNELS)
        self.iou_head = PairIouHead(len(self.resolutions)) if iou_head else None

    @property
    def patch_count(self) -> int:
        """How many patches of a pair it reads (R)."""
        return len(self.resolutions)

    @property
    def resolutions(self) -> tuple[ResolutionDecoder, ...]:
        """What is learned for each patch that is read, HR first."""
        return (self.hr,) if self.lr is None else (self.hr, self.lr)

    @property
    def mixes_features(self) -> bool:
        """Whether each mask uses the features of both patches, not an aggregated token."""
        return self.lr is not None and self.aggregation is Aggregation.FEATURES

    def forward(
        self,
        embeddings: Sequence[torch.Tensor],
        features: Sequence[torch.Tensor],
        point_coords: torch.Tensor,
        point_labels: torch.Tensor,
        masks: Sequence[torch.Tensor] | None = None,
    ) -> Decoded:
        """Answer B prompts on a patch pair.

        Args:
            embeddings: R tensors of 1 or B x 4096 x 256.
            features: R times 1 or B x 256 x 256 x 32, ``image_features`` of each patch.
            point_coords: B x N x 2 float, HR px; the LR prompt follows from it, exactly.
            point_labels: B x N, see :meth:`PromptedSam.sparse`.
            masks: R times B x 256 x 256 mask logits over the patches; None is no mask prompt.
        """
        updated = self.update(embeddings, point_coords, point_labels, masks)
        fused = self.fuse(updated, [u.upscaled for u in updated], features)
        own = self.predict_as_sam(updated)
        return Decoded(self.add_sam(fused, own.logits), self.predict_iou(updated, own.iou))

    def update(
        self,
        embeddings: Sequence[torch.Tensor],
        point_coords: torch.Tensor,
        point_labels: torch.Tensor,
        masks: Sequence[torch.Tensor] | None = None,
    ) -> list[UpdatedTokens]:
        """Run the transformer once per patch; see :meth:`forward` for the arguments."""
        placed = place_in_patches(point_coords, self.sam.size_px)
        return [
            resolution.update(
                self.sam,
                embedding + self.sam.dense(None if masks is None else masks[index]),
                self.sam.sparse(placed[index], point_labels),
            )
            for index, (resolution, embedding) in enumerate(
                zip(self.resolutions, embeddings, strict=True)
            )
        ]

    def fuse(
        self,
        updated: Sequence[UpdatedTokens],
        upscaled: Sequence[torch.Tensor],
        features: Sequence[torch.Tensor],
    ) -> torch.Tensor:
        """Compute WSI-SAM's own masks, B x R x H x W.

        Args:
            upscaled, features: R times B x H x W x 32, whole or cut to windows of equal size
                (whole where the decoder ``mixes_features``).
        """
        tokens = self.aggregate([u.token for u in updated])
        maps = torch.stack(
            [
                resolution.logits(*parts)
                for resolution, *parts in zip(
                    self.resolutions, tokens, upscaled, features, strict=True
                )
            ],
            dim=1,
        )
        if not self.mixes_features:
            return maps
        # The product is linear in the features, so that its maps may be averaged for them. Each
        # mask has one token, so that the other patch's map is made again with this one's.
        hr_token, lr_token = tokens
        of_lr = self.resolutions[1].logits(hr_token, upscaled[1], features[1])
        of_hr = self.resolutions[0].logits(lr_token, upscaled[0], features[0])
        hr_map = (maps[:, 0] + lr_middle_to_hr(of_lr)) / 2
        return torch.stack([hr_map, hr_into_lr_middle(of_hr, maps[:, 1])], dim=1)

    def predict_as_sam(self, updated: Sequence[UpdatedTokens]) -> Decoded:
        """Predict SAM's own answer on each patch."""
        own = [self.sam.predict_plain_mask(u.all_tokens, u.upscaled) for u in updated]
        logits, iou = (torch.stack(parts, dim=1) for parts in zip(*own, strict=True))
        return Decoded(logits, iou)

    def add_sam(self, fused: torch.Tensor, own: torch.Tensor) -> torch.Tensor:
        """Add SAM's own logits, B x R x H x W, to the masks that take them."""
        if self.sam_logits is SamLogits.NONE:
            return fused
        if self.sam_logits is SamLogits.BOTH or self.lr is None:
            return fused + own
        return torch.stack([fused[:, 0] + own[:, 0], fused[:, 1]], dim=1)

    def predict_iou(self, updated: Sequence[UpdatedTokens], own: torch.Tensor) -> torch.Tensor:
        """Predict the IoU of each mask, B x R, from SAM's own."""
        return own if self.iou_head is None else self.iou_head(updated, own)

    def aggregate(self, tokens: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Aggregate the token of each mask, R tensors of B x 32, from those of the patches."""
        if self.lr is None or self.mixes_features:
            return list(tokens)
        hr_token, lr_token = tokens
        if self.aggregation is Aggregation.MEAN:
            one = (hr_token + lr_token) / 2
        elif self.aggregation is Aggregation.MAX:
            one = torch.maximum(hr_token, lr_token)
        else:
            one = self.concat(torch.cat([hr_token, lr_token], dim=1))
        return [one, one]
