"""The decoders: SAM's own, and WSI-SAM's dual one. PyTorch, inference and training alike.

What depends on the pixels alone is computed once a patch pair: the embeddings of the encoder,
and :meth:`ResolutionDecoder.image_features`. ``forward`` computes the rest, one answer a prompt.

Shapes: B prompts, N tokens each (padded with label -1 where SAM does so), and embeddings as
4096 x 256 tokens, the layout in which SAM's transformer wants them. What comes from the pixels
has a leading 1 where all prompts ask the same patch pair, as in use, or B where each brings a
pair of its own, as in training.
"""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

import torch
from segment_anything.modeling.common import LayerNorm2d
from segment_anything.modeling.mask_decoder import MLP
from torch import nn
from torch.nn import functional as F

from .prompted_sam import TOKEN_DIM, Decoded, PromptedSam, as_tokens, point_wise

__all__ = [
    "FEATURE_CHANNELS",
    "MASK_CHANNELS",
    "TOKEN_DIM",
    "Aggregation",
    "BothDecoded",
    "Decoded",
    "PromptedSam",
    "ResolutionDecoder",
    "SamDecoder",
    "TokenAnswer",
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


class BothDecoded(NamedTuple):
    """What training compares with the truth.

    Attributes:
        hr_logits, iou: see :class:`Decoded`.
        lr_logits: B x 256 x 256, mask logits over the LR patch; None where none is read.
    """

    hr_logits: torch.Tensor
    lr_logits: torch.Tensor | None
    iou: torch.Tensor


class SamDecoder(nn.Module):
    """Plain SAM on the HR patch: what answers where there is no adapter."""

    def __init__(self, sam: PromptedSam) -> None:
        super().__init__()
        self.sam = sam

    def forward(
        self,
        hr_embedding: torch.Tensor,
        point_coords: torch.Tensor,
        point_labels: torch.Tensor,
        hr_mask: torch.Tensor | None = None,
    ) -> Decoded:
        """Answer B prompts on the HR patch.

        Args:
            hr_embedding: 1 x 4096 x 256.
            point_coords, point_labels: see :meth:`PromptedSam.sparse`; HR px.
            hr_mask: B x 256 x 256 mask logits over the HR patch, for all prompts or none.
        """
        sparse = self.sam.sparse(point_coords, point_labels)
        source = hr_embedding + self.sam.dense(hr_mask)
        return self.sam.own_answer(*self.sam.transform(source, sparse))


def _up(channels: int, middle: int) -> nn.Sequential:
    """B x channels x 64 x 64 to B x 32 x 256 x 256 (HQ-SAM's up-scaling, as WSI-SAM uses it)."""
    return nn.Sequential(
        nn.ConvTranspose2d(channels, middle, kernel_size=2, stride=2),
        LayerNorm2d(middle),
        nn.GELU(),
        nn.ConvTranspose2d(middle, MASK_CHANNELS, kernel_size=2, stride=2),
    )


class ResolutionDecoder(nn.Module):
    """What WSI-SAM learns for one resolution: a token, its MLP and a fusion module (figure 2).

    About 0.45 M parameters with TinyViT's 160 early channels. SAM itself is passed in at each
    call: both resolutions and the base share it.
    """

    def __init__(self, early_channels: int) -> None:
        super().__init__()
        self.token = nn.Embedding(1, TOKEN_DIM)
        self.token_mlp = MLP(TOKEN_DIM, TOKEN_DIM, MASK_CHANNELS, 3)
        self.up_embedding = _up(TOKEN_DIM, FEATURE_CHANNELS)
        self.up_early = _up(early_channels, TOKEN_DIM)
        self.mask_features = nn.Sequential(
            nn.Conv2d(MASK_CHANNELS, FEATURE_CHANNELS, kernel_size=3, padding=1),
            LayerNorm2d(FEATURE_CHANNELS),
            nn.GELU(),
            nn.Conv2d(FEATURE_CHANNELS, MASK_CHANNELS, kernel_size=3, padding=1),
        )

    def image_features(self, embedding: torch.Tensor, early: torch.Tensor) -> torch.Tensor:
        """The part of the fusion that no prompt changes.

        Args:
            embedding: 1 or B x 4096 x 256, the encoder's final tokens.
            early: 1 or B x C x 64 x 64, its early feature map.

        Returns:
            1 or B x 32 x 256 x 256.
        """
        final = embedding.transpose(1, 2).reshape(-1, TOKEN_DIM, *early.shape[-2:])
        features: torch.Tensor = self.up_embedding(final) + self.up_early(early)
        return features

    def update(
        self, sam: PromptedSam, source: torch.Tensor, sparse: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Run the token through SAM's frozen transformer.

        Returns:
            The updated token after its MLP, B x 32; all updated tokens, B x T x 256; SAM's
            upscaled mask features, B x 32 x 256 x 256.
        """
        updated, upscaled = sam.transform(source, sparse, extra=self.token.weight)
        after_mask_tokens = 1 + sam.mask_decoder.num_mask_tokens
        return self.token_mlp(updated[:, after_mask_tokens]), updated, upscaled

    def logits(
        self, token: torch.Tensor, upscaled: torch.Tensor, image_features: torch.Tensor
    ) -> torch.Tensor:
        """Point-wise product of an aggregated token and the fused mask features.

        The last 3x3 convolution is linear, so the token goes into its kernel first: one output
        channel is convolved in place of 32, with the same result.

        Args:
            token: B x 32.
            upscaled: B x 32 x 256 x 256.
            image_features: 1 or B x 32 x 256 x 256.

        Returns:
            B x 256 x 256.
        """
        *hidden_layers, last = self.mask_features
        assert isinstance(last, nn.Conv2d)
        assert last.bias is not None
        hidden = upscaled
        for layer in hidden_layers:
            hidden = layer(hidden)
        taps = torch.einsum("bo,oihw->bhwi", token, last.weight).flatten(1, 2)
        planes = torch.einsum("bti,bihw->bthw", taps, hidden)
        constant = point_wise(token, image_features)
        return _shift_and_add(planes) + constant + (token @ last.bias)[:, None, None]


def _shift_and_add(planes: torch.Tensor) -> torch.Tensor:
    """Sum the nine tap planes of a zero-padded 3x3 convolution, B x 9 x H x W to B x H x W."""
    height, width = planes.shape[-2:]
    padded = F.pad(planes, (1, 1, 1, 1))
    total = padded[:, 0, :height, :width]
    for tap in range(1, 9):
        dy, dx = divmod(tap, 3)
        total = total + padded[:, tap, dy : dy + height, dx : dx + width]
    return total


def lr_middle_to_hr(lr_map: torch.Tensor) -> torch.Tensor:
    """The part of a B x H x W map over the LR patch that the HR patch covers, twice as large."""
    height, width = lr_map.shape[-2:]
    middle = lr_map[:, height // 4 : height - height // 4, width // 4 : width - width // 4]
    size = (height, width)
    return F.interpolate(middle[:, None], size, mode="bilinear", align_corners=False)[:, 0]


def hr_into_lr_middle(hr_map: torch.Tensor, lr_map: torch.Tensor) -> torch.Tensor:
    """The mean of two B x H x W maps in the LR frame; ``lr_map`` alone where HR does not reach."""
    height, width = lr_map.shape[-2:]
    smaller = F.avg_pool2d(hr_map[:, None], 2)[:, 0]
    sides = (width // 4, width // 4, height // 4, height // 4)
    covered = F.pad(torch.ones_like(smaller), sides)
    return lr_map + covered * (F.pad(smaller, sides) - lr_map) / 2


class TokenAnswer(NamedTuple):
    """The token of the HR mask, B x 32, and what both masks are made of.

    ``lr_upscaled`` is None where no LR patch is read, and ``lr_token`` unless the LR mask has a
    token of its own.
    """

    token: torch.Tensor
    hr_updated: torch.Tensor
    hr_upscaled: torch.Tensor
    lr_upscaled: torch.Tensor | None
    lr_token: torch.Tensor | None = None


class WsiSamDecoder(nn.Module):
    """WSI-SAM's dual mask decoder with token aggregation (section 2.2, figure 2).

    Args:
        sam: the base's prompt encoder and mask decoder, kept frozen in training.
        early_channels: channels of the encoder's early features.
        aggregation: how the two resolutions become one.
        add_sam_logits: add SAM's own HR logits to the HR mask, as the authors' inference does.
        iou_head: predict the IoU from the HR mask's token in place of SAM's own head.
        hr_only: leave out all that reads the LR patch, to measure what it is worth.
    """

    def __init__(
        self,
        sam: PromptedSam,
        *,
        early_channels: int,
        aggregation: Aggregation = Aggregation.MEAN,
        add_sam_logits: bool = True,
        iou_head: bool = False,
        hr_only: bool = False,
    ) -> None:
        super().__init__()
        self.sam = sam
        self.hr = ResolutionDecoder(early_channels)
        self.lr = None if hr_only else ResolutionDecoder(early_channels)
        self.aggregation = aggregation
        self.add_sam_logits = add_sam_logits
        if aggregation is Aggregation.CONCAT and not hr_only:
            self.concat = nn.Linear(2 * MASK_CHANNELS, MASK_CHANNELS)
        self.iou_head = MLP(MASK_CHANNELS, TOKEN_DIM, 1, 3) if iou_head else None

    @property
    def mixes_features(self) -> bool:
        """Whether the HR mask is made of the LR patch's image features too."""
        return self.lr is not None and self.aggregation is Aggregation.FEATURES

    def forward(
        self,
        hr_embedding: torch.Tensor,
        lr_embedding: torch.Tensor | None,
        hr_features: torch.Tensor,
        point_coords: torch.Tensor,
        point_labels: torch.Tensor,
        hr_mask: torch.Tensor | None = None,
        lr_mask: torch.Tensor | None = None,
        lr_features: torch.Tensor | None = None,
    ) -> Decoded:
        """Answer B prompts on the HR patch.

        Args:
            hr_embedding, lr_embedding: 1 or B x 4096 x 256 each; LR's may be None with hr_only.
            hr_features: 1 or B x 32 x 256 x 256, ``self.hr.image_features`` of the HR patch.
            point_coords: B x N x 2 float, HR px; the LR prompt follows from it, exactly.
            point_labels: B x N, see :meth:`PromptedSam.sparse`.
            hr_mask, lr_mask: B x 256 x 256 mask logits over the two patches, both or neither.
            lr_features: ``self.lr.image_features`` of the LR patch, needed where the decoder
                ``mixes_features`` and nowhere else.
        """
        answer = self.tokens(
            hr_embedding, lr_embedding, point_coords, point_labels, hr_mask, lr_mask
        )
        return self._decoded(answer, hr_features, lr_features)

    def training_forward(
        self,
        hr_embedding: torch.Tensor,
        lr_embedding: torch.Tensor | None,
        hr_features: torch.Tensor,
        lr_features: torch.Tensor | None,
        point_coords: torch.Tensor,
        point_labels: torch.Tensor,
        hr_mask: torch.Tensor | None = None,
        lr_mask: torch.Tensor | None = None,
    ) -> BothDecoded:
        """Both masks in one pass: what :meth:`forward` answers, and the mask over the LR patch.

        Args:
            lr_features: like ``hr_features``, ``self.lr.image_features`` of the LR patch; may be
                None with hr_only.
            others: see :meth:`forward`.
        """
        answer = self.tokens(
            hr_embedding, lr_embedding, point_coords, point_labels, hr_mask, lr_mask
        )
        hr_logits, iou = self._decoded(answer, hr_features, lr_features)
        if self.lr is None:
            return BothDecoded(hr_logits, None, iou)
        assert lr_features is not None
        return BothDecoded(hr_logits, self.lr_logits(answer, lr_features, hr_features), iou)

    def _decoded(
        self, answer: TokenAnswer, hr_features: torch.Tensor, lr_features: torch.Tensor | None
    ) -> Decoded:
        logits = self.hr.logits(answer.token, answer.hr_upscaled, hr_features)
        if self.mixes_features:
            assert lr_features is not None
            # The product is linear in the features, so that its maps may be averaged for them.
            of_lr = self._lr_map(answer.token, answer, lr_features)
            logits = (logits + lr_middle_to_hr(of_lr)) / 2
        own = self.sam.own_answer(answer.hr_updated, answer.hr_upscaled)
        if self.add_sam_logits:
            logits = logits + own.hr_logits
        iou = own.iou if self.iou_head is None else self.iou_head(answer.token)[:, 0]
        return Decoded(logits, iou)

    def lr_logits(
        self,
        answer: TokenAnswer,
        lr_features: torch.Tensor,
        hr_features: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """The mask over the LR patch, B x 256 x 256: half of the training loss (section 2.3).

        Args:
            hr_features: needed where the decoder ``mixes_features``.
        """
        token = answer.token if answer.lr_token is None else answer.lr_token
        logits = self._lr_map(token, answer, lr_features)
        if not self.mixes_features:
            return logits
        assert hr_features is not None
        return hr_into_lr_middle(self.hr.logits(token, answer.hr_upscaled, hr_features), logits)

    def _lr_map(
        self, token: torch.Tensor, answer: TokenAnswer, lr_features: torch.Tensor
    ) -> torch.Tensor:
        assert self.lr is not None
        assert answer.lr_upscaled is not None
        return self.lr.logits(token, answer.lr_upscaled, lr_features)

    def tokens(
        self,
        hr_embedding: torch.Tensor,
        lr_embedding: torch.Tensor | None,
        point_coords: torch.Tensor,
        point_labels: torch.Tensor,
        hr_mask: torch.Tensor | None = None,
        lr_mask: torch.Tensor | None = None,
    ) -> TokenAnswer:
        """Both transformers and the aggregation; see :meth:`forward` for the arguments."""
        hr_token, hr_updated, hr_upscaled = self.hr.update(
            self.sam,
            hr_embedding + self.sam.dense(hr_mask),
            self.sam.sparse(point_coords, point_labels),
        )
        if self.lr is None:
            return TokenAnswer(hr_token, hr_updated, hr_upscaled, None)
        assert lr_embedding is not None
        lr_coords = point_coords / 2 + self.sam.size_px / 4
        lr_token, _, lr_upscaled = self.lr.update(
            self.sam,
            lr_embedding + self.sam.dense(lr_mask),
            self.sam.sparse(lr_coords, point_labels),
        )
        if self.mixes_features:
            return TokenAnswer(hr_token, hr_updated, hr_upscaled, lr_upscaled, lr_token)
        token = self.aggregate(hr_token, lr_token)
        return TokenAnswer(token, hr_updated, hr_upscaled, lr_upscaled)

    def aggregate(self, hr_token: torch.Tensor, lr_token: torch.Tensor) -> torch.Tensor:
        """Both B x 32 to one B x 32; not where features are aggregated."""
        if self.aggregation is Aggregation.MEAN:
            return (hr_token + lr_token) / 2
        if self.aggregation is Aggregation.MAX:
            return torch.maximum(hr_token, lr_token)
        concatenated: torch.Tensor = self.concat(torch.cat([hr_token, lr_token], dim=1))
        return concatenated
