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
from segment_anything.modeling import MaskDecoder, PromptEncoder
from segment_anything.modeling.common import LayerNorm2d
from segment_anything.modeling.mask_decoder import MLP
from torch import nn
from torch.nn import functional as F

TOKEN_DIM = 256
MASK_CHANNELS = TOKEN_DIM // 8
FEATURE_CHANNELS = TOKEN_DIM // 4


class Aggregation(str, Enum):
    """How the updated HR and LR tokens become one (WSI-SAM, table 3a)."""

    MEAN = "mean"
    MAX = "max"
    CONCAT = "concat"


class Decoded(NamedTuple):
    """What a decoder answers.

    Attributes:
        hr_logits: B x 256 x 256, mask logits over the HR patch.
        iou: B, the decoder's own estimate of the mask's IoU.
    """

    hr_logits: torch.Tensor
    iou: torch.Tensor


class BothDecoded(NamedTuple):
    """What training compares with the truth.

    Attributes:
        hr_logits, iou: see :class:`Decoded`.
        lr_logits: B x 256 x 256, mask logits over the LR patch.
    """

    hr_logits: torch.Tensor
    lr_logits: torch.Tensor
    iou: torch.Tensor


def as_tokens(feature_map: torch.Tensor) -> torch.Tensor:
    """B x C x H x W to B x HW x C, rows first."""
    return feature_map.flatten(2).transpose(1, 2)


class PromptedSam(nn.Module):
    """SAM's prompt encoder and mask decoder: what both decoders stand on.

    Prompt coordinates are continuous patch pixels, [0, size_px]. SAM counts from pixel centres
    and adds a half before it encodes a point; that half is part of our frame already.
    """

    def __init__(self, prompt_encoder: PromptEncoder, mask_decoder: MaskDecoder) -> None:
        super().__init__()
        self.prompt_encoder = prompt_encoder
        self.mask_decoder = mask_decoder

    @property
    def size_px(self) -> int:
        return int(self.prompt_encoder.input_image_size[0])

    def sparse(self, point_coords: torch.Tensor, point_labels: torch.Tensor) -> torch.Tensor:
        """Embed prompt tokens.

        Args:
            point_coords: B x N x 2 float, (x, y) patch px.
            point_labels: B x N int: -1 padding, 0 negative, 1 positive, 2 / 3 the top left /
                bottom right corner of a box.

        Returns:
            B x N x 256.
        """
        encoder = self.prompt_encoder
        position: torch.Tensor = encoder.pe_layer._pe_encoding(point_coords / self.size_px)
        kind = torch.cat(
            [encoder.not_a_point_embed.weight, *(e.weight for e in encoder.point_embeddings)]
        )
        is_point = (point_labels >= 0).unsqueeze(-1).to(position.dtype)
        return position * is_point + kind[point_labels + 1]

    def dense(self, mask: torch.Tensor | None) -> torch.Tensor:
        """Embed B x 256 x 256 mask logits to B x 4096 x 256; no mask to 1 x 1 x 256."""
        if mask is None:
            no_mask: torch.Tensor = self.prompt_encoder.no_mask_embed.weight.unsqueeze(0)
            return no_mask
        return as_tokens(self.prompt_encoder.mask_downscaling(mask.unsqueeze(1)))

    def transform(
        self, source: torch.Tensor, sparse: torch.Tensor, extra: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Run the two-way transformer over [iou, 4 mask, extra, prompt] tokens.

        Args:
            source: 1 or B x 4096 x 256, embedding plus dense prompt.
            sparse: B x N x 256.
            extra: K x 256 further output tokens.

        Returns:
            Updated tokens, B x (5 + K + N) x 256, and the upscaled mask features,
            B x 32 x 256 x 256.
        """
        decoder, count = self.mask_decoder, sparse.shape[0]
        own = [decoder.iou_token.weight, decoder.mask_tokens.weight]
        output = torch.cat(own if extra is None else [*own, extra])
        tokens = torch.cat([output.expand(count, -1, -1), sparse], dim=1)
        updated, image = self._two_way(source.expand(count, -1, -1), tokens)
        height, width = self.prompt_encoder.image_embedding_size
        feature_map = image.transpose(1, 2).reshape(count, TOKEN_DIM, height, width)
        return updated, decoder.output_upscaling(feature_map)

    def _two_way(
        self, image: torch.Tensor, tokens: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """SAM's two-way transformer on image tokens, B x 4096 x 256.

        Its own ``forward`` takes a B x 256 x 64 x 64 map and transposes it at each prompt.
        """
        transformer = self.mask_decoder.transformer
        position = as_tokens(self.prompt_encoder.get_dense_pe())
        queries, keys = tokens, image
        for layer in transformer.layers:
            queries, keys = layer(queries=queries, keys=keys, query_pe=tokens, key_pe=position)
        attended = transformer.final_attn_token_to_image(
            q=queries + tokens, k=keys + position, v=keys
        )
        return transformer.norm_final_attn(queries + attended), keys

    def own_answer(self, updated: torch.Tensor, upscaled: torch.Tensor) -> Decoded:
        """SAM's single-mask answer from the updated tokens and the upscaled features."""
        decoder = self.mask_decoder
        hyper = decoder.output_hypernetworks_mlps[0](updated[:, 1])
        logits = _point_wise(hyper, upscaled)
        return Decoded(logits, decoder.iou_prediction_head(updated[:, 0])[:, 0])


def _point_wise(token: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
    """B x C tokens times 1 or B x C x H x W features, to B x H x W."""
    height, width = features.shape[-2:]
    # A matrix product: OpenVINO would sum the einsum's products one by one.
    return (token.unsqueeze(1) @ features.flatten(2)).reshape(-1, height, width)


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
        constant = _point_wise(token, image_features)
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


class TokenAnswer(NamedTuple):
    """The aggregated token, B x 32, and what both masks are made of."""

    token: torch.Tensor
    hr_updated: torch.Tensor
    hr_upscaled: torch.Tensor
    lr_upscaled: torch.Tensor


class WsiSamDecoder(nn.Module):
    """WSI-SAM's dual mask decoder with token aggregation (section 2.2, figure 2).

    Args:
        sam: the base's prompt encoder and mask decoder, kept frozen in training.
        early_channels: channels of the encoder's early features.
        aggregation: how the two tokens become one.
        add_sam_logits: add SAM's own HR logits to the HR mask, as the authors' inference does.
        iou_head: predict the IoU from the aggregated token in place of SAM's own head.
    """

    def __init__(
        self,
        sam: PromptedSam,
        *,
        early_channels: int,
        aggregation: Aggregation = Aggregation.MEAN,
        add_sam_logits: bool = True,
        iou_head: bool = False,
    ) -> None:
        super().__init__()
        self.sam = sam
        self.hr = ResolutionDecoder(early_channels)
        self.lr = ResolutionDecoder(early_channels)
        self.aggregation = aggregation
        self.add_sam_logits = add_sam_logits
        if aggregation is Aggregation.CONCAT:
            self.concat = nn.Linear(2 * MASK_CHANNELS, MASK_CHANNELS)
        self.iou_head = MLP(MASK_CHANNELS, TOKEN_DIM, 1, 3) if iou_head else None

    def forward(
        self,
        hr_embedding: torch.Tensor,
        lr_embedding: torch.Tensor,
        hr_features: torch.Tensor,
        point_coords: torch.Tensor,
        point_labels: torch.Tensor,
        hr_mask: torch.Tensor | None = None,
        lr_mask: torch.Tensor | None = None,
    ) -> Decoded:
        """Answer B prompts on the HR patch.

        Args:
            hr_embedding, lr_embedding: 1 or B x 4096 x 256 each.
            hr_features: 1 or B x 32 x 256 x 256, ``self.hr.image_features`` of the HR patch.
            point_coords: B x N x 2 float, HR px; the LR prompt follows from it, exactly.
            point_labels: B x N, see :meth:`PromptedSam.sparse`.
            hr_mask, lr_mask: B x 256 x 256 mask logits over the two patches, both or neither.
        """
        answer = self.tokens(
            hr_embedding, lr_embedding, point_coords, point_labels, hr_mask, lr_mask
        )
        return self._decoded(answer, hr_features)

    def training_forward(
        self,
        hr_embedding: torch.Tensor,
        lr_embedding: torch.Tensor,
        hr_features: torch.Tensor,
        lr_features: torch.Tensor,
        point_coords: torch.Tensor,
        point_labels: torch.Tensor,
        hr_mask: torch.Tensor | None = None,
        lr_mask: torch.Tensor | None = None,
    ) -> BothDecoded:
        """Both masks in one pass: what :meth:`forward` answers, and the mask over the LR patch.

        Args:
            lr_features: like ``hr_features``, ``self.lr.image_features`` of the LR patch.
            others: see :meth:`forward`.
        """
        answer = self.tokens(
            hr_embedding, lr_embedding, point_coords, point_labels, hr_mask, lr_mask
        )
        hr_logits, iou = self._decoded(answer, hr_features)
        return BothDecoded(hr_logits, self.lr_logits(answer, lr_features), iou)

    def _decoded(self, answer: TokenAnswer, hr_features: torch.Tensor) -> Decoded:
        logits = self.hr.logits(answer.token, answer.hr_upscaled, hr_features)
        own = self.sam.own_answer(answer.hr_updated, answer.hr_upscaled)
        if self.add_sam_logits:
            logits = logits + own.hr_logits
        iou = own.iou if self.iou_head is None else self.iou_head(answer.token)[:, 0]
        return Decoded(logits, iou)

    def lr_logits(self, answer: TokenAnswer, lr_features: torch.Tensor) -> torch.Tensor:
        """The mask over the LR patch, B x 256 x 256: half of the training loss (section 2.3)."""
        return self.lr.logits(answer.token, answer.lr_upscaled, lr_features)

    def tokens(
        self,
        hr_embedding: torch.Tensor,
        lr_embedding: torch.Tensor,
        point_coords: torch.Tensor,
        point_labels: torch.Tensor,
        hr_mask: torch.Tensor | None = None,
        lr_mask: torch.Tensor | None = None,
    ) -> TokenAnswer:
        """Both transformers and the aggregation; see :meth:`forward` for the arguments."""
        lr_coords = point_coords / 2 + self.sam.size_px / 4
        hr_token, hr_updated, hr_upscaled = self.hr.update(
            self.sam,
            hr_embedding + self.sam.dense(hr_mask),
            self.sam.sparse(point_coords, point_labels),
        )
        lr_token, _, lr_upscaled = self.lr.update(
            self.sam,
            lr_embedding + self.sam.dense(lr_mask),
            self.sam.sparse(lr_coords, point_labels),
        )
        token = self.aggregate(hr_token, lr_token)
        return TokenAnswer(token, hr_updated, hr_upscaled, lr_upscaled)

    def aggregate(self, hr_token: torch.Tensor, lr_token: torch.Tensor) -> torch.Tensor:
        """Both B x 32 to one B x 32."""
        if self.aggregation is Aggregation.MEAN:
            return (hr_token + lr_token) / 2
        if self.aggregation is Aggregation.MAX:
            return torch.maximum(hr_token, lr_token)
        concatenated: torch.Tensor = self.concat(torch.cat([hr_token, lr_token], dim=1))
        return concatenated
