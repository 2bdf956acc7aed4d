"""Build modules from weights files: the one place that knows their tensors. PyTorch."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType

import torch
from segment_anything.modeling import (
    ImageEncoderViT,
    MaskDecoder,
    PromptEncoder,
    TwoWayTransformer,
)
from torch import nn

from ..errors import AdapterError, WeightsError
from .adapter import BASE_PARTS, ENHANCEMENT_PART, WSI_PART, Adapter
from .bases import Base
from .card import ENCODER, PLAIN, PLAIN_CARD, DecoderCard
from .decoders import TOKEN_DIM, Aggregation, PromptedSam, SamDecoder, WsiSamDecoder
from .encoder import PatchEncoder, VitEncoder
from .low_rank import add_low_rank, merge_low_rank, name_low_rank
from .prompted_sam import Enhancement
from .tiny_vit import TinyVitEncoder, timm_state

_TOKENS = (64, 64)
_VITS = MappingProxyType(
    {  # embed_dim, depth, num_heads, blocks with global attention
        "vit-b": (768, 12, 12, (2, 5, 8, 11)),
        "vit-l": (1024, 24, 16, (5, 11, 17, 23)),
        "vit-h": (1280, 32, 16, (7, 15, 23, 31)),
    }
)


@dataclass(frozen=True)
class Networks:
    """A base with its decoders, in evaluation mode, float32, on the CPU."""

    base: Base
    encoder: PatchEncoder
    decoders: Mapping[str, SamDecoder | WsiSamDecoder]
    cards: Mapping[str, DecoderCard]


def build_networks(
    base: Base, state: Mapping[str, torch.Tensor], adapter: Adapter | None
) -> Networks:
    """Build a base and the decoders of an adapter.

    Args:
        state: all tensors of the base, by the names in its own weights file.

    Raises:
        WeightsError: the tensors are not those of the base.
        AdapterError: nor those of the adapter what its card says.
    """
    encoder = PatchEncoder(base, build_encoder(base))
    sam = build_prompted_sam(base)
    try:
        encoder.encoder.load_state_dict(_encoder_state(base, state))
        sam.load_state_dict(_decoder_state(state))
    except RuntimeError as exc:
        raise WeightsError(
            f"The weights hold other tensors than {base.name} has. Pass the file that "
            f"`wsisam-qupath weights {base.name}` gets."
        ) from exc
    cards: Mapping[str, DecoderCard] = {PLAIN: PLAIN_CARD}
    decoders: dict[str, SamDecoder | WsiSamDecoder] = {PLAIN: SamDecoder(sam)}
    if adapter is not None:
        if adapter.card.tunes_encoder:
            _tune(encoder, adapter)
        cards = adapter.card.decoders
        decoders = {
            name: _adapt_decoder(base, sam, adapter, name, card) for name, card in cards.items()
        }
    return Networks(base, encoder.eval(), {name: d.eval() for name, d in decoders.items()}, cards)


def read_state(path: Path) -> dict[str, torch.Tensor]:
    """Read all tensors of a weights file; nothing in it is executed.

    Raises:
        WeightsError: the file is no checkpoint.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, OSError, ValueError, pickle.UnpicklingError) as exc:
        raise WeightsError(
            f"{path} cannot be read as PyTorch weights. Download or copy it again."
        ) from exc
    return dict(state)


def build_encoder(base: Base) -> TinyVitEncoder | VitEncoder:
    """Build the base's image encoder, with random weights."""
    if base.encoder.startswith("tiny-vit"):
        return TinyVitEncoder(pixelwise_stem=base.encoder == "tiny-vit-256")
    embed_dim, depth, num_heads, global_blocks = _VITS[base.encoder]
    return VitEncoder(
        ImageEncoderViT(
            img_size=base.size_px,
            embed_dim=embed_dim,
            depth=depth,
            num_heads=num_heads,
            norm_layer=partial(nn.LayerNorm, eps=1e-6),
            qkv_bias=True,
            use_rel_pos=True,
            window_size=14,
            global_attn_indexes=global_blocks,
        )
    )


def build_prompted_sam(base: Base) -> PromptedSam:
    """Build SAM's prompt encoder and mask decoder for the base's input, with random weights."""
    return PromptedSam(
        PromptEncoder(
            embed_dim=TOKEN_DIM,
            image_embedding_size=_TOKENS,
            input_image_size=(base.size_px, base.size_px),
            mask_in_chans=16,
        ),
        MaskDecoder(
            transformer_dim=TOKEN_DIM,
            transformer=TwoWayTransformer(
                depth=2, embedding_dim=TOKEN_DIM, mlp_dim=2048, num_heads=8
            ),
        ),
    )


def build_decoder(base: Base, sam: PromptedSam, card: DecoderCard) -> SamDecoder | WsiSamDecoder:
    """Build a decoder by its card on the given SAM; what it adds to SAM has random weights.

    The modules of ``sam`` become part of the decoder; an enhanced one puts them together again.
    """
    if card.enhanced:
        sam = PromptedSam(sam.prompt_encoder, sam.mask_decoder, Enhancement())
    if card.architecture == "sam":
        return SamDecoder(sam, card.patches)
    return WsiSamDecoder(
        sam,
        early_channels=base.early_channels,
        aggregation=Aggregation(card.aggregation),
        sam_logits=card.sam_logits,
        iou_head=card.iou_head,
        hr_only=card.hr_only,
    )


def extract_learned_state(decoder: SamDecoder | WsiSamDecoder) -> dict[str, torch.Tensor]:
    """Get what a decoder adds to SAM, by an adapter's names: ``wsi.hr.token.weight``."""
    named = {_adapter_name(name): tensor for name, tensor in decoder.state_dict().items()}
    return {name: tensor for name, tensor in named.items() if not name.startswith(BASE_PARTS)}


def encoder_state(encoder: PatchEncoder) -> dict[str, torch.Tensor]:
    """Get all of an image encoder, by an adapter's names: ``encoder.neck.0.weight``.

    Batch normalization's counters of training steps are left out: nothing reads them.
    """
    return {
        f"{ENCODER}.{name}": tensor
        for name, tensor in encoder.encoder.state_dict().items()
        if tensor.is_floating_point()
    }


def _adapt_decoder(
    base: Base, sam: PromptedSam, adapter: Adapter, name: str, card: DecoderCard
) -> SamDecoder | WsiSamDecoder:
    tensors = {n: torch.from_numpy(t) for n, t in adapter.tensors(name).items()}
    replaced = {n: t for n, t in tensors.items() if n.startswith(BASE_PARTS)}
    own = copy.deepcopy(sam) if replaced else sam
    decoder = build_decoder(base, own, card)
    learned = {n: t for n, t in tensors.items() if n not in replaced}
    _check_names(adapter, name, set(learned) ^ set(extract_learned_state(decoder)), set(tensors))
    _check_names(adapter, name, set(replaced) - set(own.state_dict()), set(tensors))
    given = {module_name(n): t for n, t in tensors.items()}
    try:
        decoder.load_state_dict(decoder.state_dict() | given)
    except RuntimeError as exc:
        raise AdapterError(
            f"{adapter.path}: tensors of its decoder {name!r} have other shapes than its card "
            "says. Train the adapter again."
        ) from exc
    return decoder


def _tune(encoder: PatchEncoder, adapter: Adapter) -> None:
    """Replace the base's image encoder by the adapter's, or add what the adapter adds to it."""
    tensors = {n: torch.from_numpy(t) for n, t in adapter.tensors(ENCODER).items()}
    wanted = {name.removeprefix(f"{ENCODER}.") for name in encoder_state(encoder)}
    if adapter.card.lora_rank:
        add_low_rank(encoder.encoder, adapter.card.lora_rank)
        wanted = set(name_low_rank(encoder.encoder))
    _check_names(adapter, ENCODER, set(tensors) ^ wanted, set(tensors))
    try:
        encoder.encoder.load_state_dict(encoder.encoder.state_dict() | tensors)
    except RuntimeError as exc:
        raise AdapterError(
            f"{adapter.path}: tensors of its image encoder have other shapes than its card "
            f"says for {adapter.card.base}. Copy or train the adapter again."
        ) from exc
    merge_low_rank(encoder.encoder)


def _adapter_name(name: str) -> str:
    """Turn a decoder's own name of a tensor into the adapter's; see :func:`module_name`."""
    return name.removeprefix("sam.") if name.startswith("sam.") else WSI_PART + name


def module_name(name: str) -> str:
    """Turn an adapter's name of a tensor into the decoder's own."""
    if name.startswith((*BASE_PARTS, ENHANCEMENT_PART)):
        return f"sam.{name}"
    return name.removeprefix(WSI_PART)


def _check_names(adapter: Adapter, owner: str, odd: set[str], given: set[str]) -> None:
    if odd:
        first = min(odd)
        raise AdapterError(
            f"{adapter.path}: the tensor '{owner}.{first}' is "
            f"{'unknown' if first in given else 'missing'}. Copy or train the adapter again."
        )


def _encoder_state(base: Base, state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    prefix = "image_encoder."
    own = {n.removeprefix(prefix): t for n, t in state.items() if n.startswith(prefix)}
    if base.encoder.startswith("tiny-vit"):
        return timm_state(own)
    return {f"vit.{name}": tensor for name, tensor in own.items()}


def _decoder_state(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: tensor for name, tensor in state.items() if name.startswith(BASE_PARTS)}
