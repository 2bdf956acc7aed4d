"""SAM's prompt encoder and mask decoder as tokens in, tokens out, with the poster's enhancement.

Shapes: see :mod:`.decoders`. PyTorch.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from segment_anything.modeling import MaskDecoder, PromptEncoder
from segment_anything.modeling.common import LayerNorm2d
from segment_anything.modeling.transformer import Attention, TwoWayAttentionBlock
from torch import nn
from torch.nn import functional as F

TOKEN_DIM = 256

_HEADS, _MLP_DIM = 8, 2048
"""Heads and hidden size of a layer, as in SAM's own two-way transformer."""


class Decoded(NamedTuple):
    """What a decoder answers: a mask over each of the R patches that it reads.

    Attributes:
        logits: mask logits over the HR patch and, with R = 2, the LR patch, B x R x 256 x 256.
        iou: the decoder's own estimate of each mask's IoU with the whole object, B x R.
    """

    logits: torch.Tensor
    iou: torch.Tensor


def as_tokens(feature_map: torch.Tensor) -> torch.Tensor:
    """Reshape B x C x H x W to B x HW x C, rows first."""
    return feature_map.flatten(2).transpose(1, 2)


class GlobalAttention(nn.Module):
    """Every image token looks at all of them; nothing changes while the gate is zero."""

    def __init__(self) -> None:
        super().__init__()
        inner = TOKEN_DIM // 2
        self.norm = nn.LayerNorm(TOKEN_DIM)
        self.q_proj = nn.Linear(TOKEN_DIM, inner)
        self.k_proj = nn.Linear(TOKEN_DIM, inner)
        self.v_proj = nn.Linear(TOKEN_DIM, inner)
        self.out_proj = nn.Linear(inner, TOKEN_DIM)
        self.gate = nn.Parameter(torch.zeros(TOKEN_DIM))

    def forward(self, image: torch.Tensor, position: torch.Tensor) -> torch.Tensor:
        """Attend over B x 4096 x 256 tokens with their position, 1 x 4096 x 256; same shape out."""
        normed = self.norm(image)
        placed = normed + position
        q, k, v = (
            # B x heads x 4096 x channels of one head
            projected.unflatten(-1, (_HEADS, -1)).transpose(1, 2)
            for projected in (self.q_proj(placed), self.k_proj(placed), self.v_proj(normed))
        )
        attended = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        seen: torch.Tensor = self.gate * self.out_proj(attended)
        return image + seen


class GatedTwoWayLayer(nn.Module):
    """One more of SAM's two-way layers; a gate on each of its two outputs lets changes pass.

    Called like the layer itself; nothing changes while the gates are zero.
    """

    def __init__(self) -> None:
        super().__init__()
        self.layer = TwoWayAttentionBlock(TOKEN_DIM, _HEADS, _MLP_DIM)
        self.token_gate = nn.Parameter(torch.zeros(TOKEN_DIM))
        self.image_gate = nn.Parameter(torch.zeros(TOKEN_DIM))

    def forward(
        self,
        queries: torch.Tensor,
        keys: torch.Tensor,
        query_pe: torch.Tensor,
        key_pe: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        new_queries, new_keys = self.layer(queries, keys, query_pe, key_pe)
        return (
            queries + self.token_gate * (new_queries - queries),
            keys + self.image_gate * (new_keys - keys),
        )


class Enhancement(nn.Module):
    """The poster's enhanced decoder: a global attention block, and deeper layers; 3.3 M parameters.

    The poster names both and says no more. Our reading: self-attention over the image tokens
    before SAM's two-way transformer, and two more layers behind its two. Both start as nothing:
    an untrained enhancement leaves SAM's own answers as they are, to the bit.
    """

    def __init__(self) -> None:
        super().__init__()
        self.attention = GlobalAttention()
        self.layers = nn.ModuleList(GatedTwoWayLayer() for _ in range(2))


class FoldedImageAttention(Attention):  # type: ignore[misc]  # SAM's package has no types
    """SAM's attention of image tokens to the other tokens, without projecting the image tokens.

    There are 4096 image tokens, and few others: a box makes seven. So the others' keys are taken
    through the projection of the queries, and their values through that of the output, per head.
    That gives the same numbers but for rounding, by two matrix products over all heads, where
    OpenVINO spent a quarter of a decode on many small ones. From about 40 points on it would take
    longer, but no more than 20 are asked.

    Args:
        attention: SAM's own. Its weights are shared, not copied, and keep their names.
    """

    def __init__(self, attention: Attention) -> None:
        nn.Module.__init__(self)
        self.embedding_dim = attention.embedding_dim
        self.internal_dim = attention.internal_dim
        self.num_heads = attention.num_heads
        self.q_proj, self.k_proj = attention.q_proj, attention.k_proj
        self.v_proj, self.out_proj = attention.v_proj, attention.out_proj

    def forward(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        """Attend as SAM's own does: B x 4096 x 256 queries, B x T x 256 keys and values."""
        heads = self.num_heads
        keys, values = (
            # B x heads x T x channels of one head
            projected.unflatten(-1, (heads, -1)).transpose(1, 2)
            for projected in (self.k_proj(k), self.v_proj(v))
        )
        keys = keys / math.sqrt(self.internal_dim // heads)
        asked = keys @ self.q_proj.weight.unflatten(0, (heads, -1))
        offset = keys @ self.q_proj.bias.reshape(heads, -1, 1)
        told = values @ self.out_proj.weight.unflatten(1, (heads, -1)).permute(1, 2, 0)
        scores = asked.flatten(1, 2) @ q.transpose(1, 2) + offset.flatten(1, 2)
        # B x heads x T x 4096: the image tokens last, so that many are computed at once.
        weights = scores.unflatten(1, (heads, -1)).softmax(2).flatten(1, 2)
        seen: torch.Tensor = weights.transpose(1, 2) @ told.flatten(1, 2) + self.out_proj.bias
        return seen


def fold_image_attention(decoder: nn.Module) -> None:
    """Replace each attention of image tokens in a decoder by :class:`FoldedImageAttention`."""
    for layer in decoder.modules():
        if isinstance(layer, TwoWayAttentionBlock):
            layer.cross_attn_image_to_token = FoldedImageAttention(layer.cross_attn_image_to_token)


class PromptedSam(nn.Module):
    """SAM's prompt encoder and mask decoder, which both decoders are built on.

    Prompt coordinates are continuous patch pixels, [0, size_px]. SAM counts from pixel centers
    and adds a half before it encodes a point; that half is part of our frame already.

    Args:
        enhancement: turns it into the poster's enhanced decoder; None is SAM as it is.
    """

    def __init__(
        self,
        prompt_encoder: PromptEncoder,
        mask_decoder: MaskDecoder,
        enhancement: Enhancement | None = None,
    ) -> None:
        super().__init__()
        self.prompt_encoder = prompt_encoder
        self.mask_decoder = mask_decoder
        self.enhancement = enhancement

    @property
    def size_px(self) -> int:
        return int(self.prompt_encoder.input_image_size[0])

    def sparse(self, point_coords: torch.Tensor, point_labels: torch.Tensor) -> torch.Tensor:
        """Embed prompt tokens.

        Args:
            point_coords: (x, y) patch px, B x N x 2 float.
            point_labels: B x N int: -1 padding, 0 negative, 1 positive, 2 / 3 the top left / bottom
                right corner of a box.

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
        """Embed B x 256 x 256 mask logits to B x 4096 x 256; None to 1 x 1 x 256."""
        if mask is None:
            no_mask: torch.Tensor = self.prompt_encoder.no_mask_embed.weight.unsqueeze(0)
            return no_mask
        return as_tokens(self.prompt_encoder.mask_downscaling(mask.unsqueeze(1)))

    def transform(
        self, source: torch.Tensor, sparse: torch.Tensor, extra: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Run the two-way transformer over [iou, 4 mask, extra, prompt] tokens.

        Args:
            source: embedding plus dense prompt, 1 or B x 4096 x 256.
            sparse: embedded prompt tokens, B x N x 256.
            extra: further output tokens, K x 256.

        Returns:
            Updated tokens, B x (5 + K + N) x 256, and the upscaled mask features,
            B x 256 x 256 x 32.
        """
        decoder, count = self.mask_decoder, sparse.shape[0]
        own = [decoder.iou_token.weight, decoder.mask_tokens.weight]
        output = torch.cat(own if extra is None else [*own, extra])
        tokens = torch.cat([output.expand(count, -1, -1), sparse], dim=1)
        position = as_tokens(self.prompt_encoder.get_dense_pe())
        if self.enhancement is not None:
            source = self.enhancement.attention(source, position)
        updated, image = self._two_way(source.expand(count, -1, -1), tokens, position)
        return updated, as_pixels(expand_tokens(decoder.output_upscaling, image))

    def _two_way(
        self, image: torch.Tensor, tokens: torch.Tensor, position: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Run SAM's two-way transformer on image tokens, B x 4096 x 256.

        Its own ``forward`` takes a B x 256 x 64 x 64 map and transposes it at each prompt.
        """
        transformer = self.mask_decoder.transformer
        layers = [*transformer.layers]
        if self.enhancement is not None:
            layers += self.enhancement.layers
        queries, keys = tokens, image
        for layer in layers:
            queries, keys = layer(queries=queries, keys=keys, query_pe=tokens, key_pe=position)
        attended = transformer.final_attn_token_to_image(
            q=queries + tokens, k=keys + position, v=keys
        )
        return transformer.norm_final_attn(queries + attended), keys

    def predict_plain_mask(
        self, updated: torch.Tensor, upscaled: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Predict SAM's single-mask answer from the updated tokens and upscaled features.

        Returns:
            Mask logits, B x 256 x 256, and predicted IoU, B.
        """
        decoder = self.mask_decoder
        hyper = decoder.output_hypernetworks_mlps[0](updated[:, 1])
        return point_wise(hyper, upscaled), decoder.iou_prediction_head(updated[:, 0])[:, 0]


def point_wise(token: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
    """Multiply B x C tokens with 1 or B x H x W x C features to B x H x W."""
    height, width = features.shape[1:3]
    # A matrix product: OpenVINO would sum an einsum's products one by one.
    return (features.flatten(1, 2) @ token.unsqueeze(2)).reshape(-1, height, width)


def expand_tokens(layers: nn.Sequential, tokens: torch.Tensor) -> torch.Tensor:
    """Run a chain with two 2 x 2 transposed convolutions of stride 2 on image tokens.

    Kernel and stride are equal, so that every token becomes its own 4 x 4 pixels: matrix
    products, which a CPU computes several times as fast, with channels last all the way.

    Args:
        layers: transposed convolution, LayerNorm2d, GELU, transposed convolution, perhaps GELU.
        tokens: image tokens, B x N x C.

    Returns:
        B x N x 4 x 4 x C': for each token its 2 x 2 quarters, and their 2 x 2 pixels.
    """
    first, norm, activation, second, *rest = layers
    assert isinstance(first, nn.ConvTranspose2d)
    assert isinstance(norm, LayerNorm2d)
    assert isinstance(second, nn.ConvTranspose2d)
    pixels = _double(second, activation(normalize_channels(norm, _double(first, tokens))))
    for layer in rest:
        pixels = layer(pixels)
    return pixels


def normalize_channels(norm: LayerNorm2d, values: torch.Tensor) -> torch.Tensor:
    """Apply SAM's LayerNorm2d to ... x C, where PyTorch's own is several times as fast."""
    return F.layer_norm(values, norm.weight.shape, norm.weight, norm.bias, norm.eps)


def _double(layer: nn.ConvTranspose2d, tokens: torch.Tensor) -> torch.Tensor:
    """Turn ... x C into ... x 4 x C': a 2 x 2 transposed convolution of single pixels."""
    assert layer.bias is not None
    weight = layer.weight.permute(2, 3, 1, 0).flatten(0, 2)
    doubled = F.linear(tokens, weight, layer.bias.repeat(4))
    return doubled.reshape(*tokens.shape[:-1], 4, -1)


def as_pixels(blocks: torch.Tensor) -> torch.Tensor:
    """Reshape B x HW x 4 x 4 x C, as :func:`expand_tokens` returns it, to B x 4H x 4W x C."""
    count, tokens, _, _, channels = blocks.shape
    side = math.isqrt(tokens)
    grid = blocks.reshape(count, side, side, 2, 2, 2, 2, channels)
    return grid.permute(0, 1, 3, 5, 2, 4, 6, 7).reshape(count, 4 * side, 4 * side, channels)
