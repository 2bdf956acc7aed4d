"""What training starts from: the decoder and the image encoder of a base, or of an adapter."""

from __future__ import annotations

import torch
from torch import nn

from wsisam_qupath.errors import AdapterError
from wsisam_qupath.model.adapter import Adapter
from wsisam_qupath.model.build import module_name
from wsisam_qupath.model.card import ENCODER
from wsisam_qupath.model.decoders import SamDecoder, WsiSamDecoder
from wsisam_qupath.model.encoder import PatchEncoder
from wsisam_qupath.model.low_rank import add_low_rank
from wsisam_qupath.prompts import PromptKind

from ..settings import DecoderSettings


def start_decoder(decoder: SamDecoder | WsiSamDecoder, adapter: Adapter) -> None:
    """Load the weights of the adapter's decoder that answers points.

    What that one does not have stays as it is. If it has nothing of WSI-SAM, the tokens are
    shrunk to a tenth, which is about as long as SAM's are, and so is the last layer of their
    MLPs: where SAM's own logits are added, the first masks are nearly those of the adapter.

    Raises:
        AdapterError: the adapter's decoder is another network than this one.
    """
    name = adapter.card.routes[PromptKind.POINTS].last_decoder
    given = {module_name(n): torch.from_numpy(t) for n, t in adapter.tensors(name).items()}
    own = decoder.state_dict()
    if odd := [n for n, t in given.items() if n not in own or own[n].shape != t.shape]:
        raise AdapterError(
            f"{adapter.path} has a tensor {odd[0]!r} that does not fit the decoder of this "
            "recipe. Start from another adapter, or from the bare base."
        )
    decoder.load_state_dict(own | given)
    if isinstance(decoder, WsiSamDecoder) and not any(".hr." in f".{n}" for n in given):
        for resolution in decoder.resolutions:
            nn.init.normal_(resolution.token.weight, 0.0, 0.1)
            last = resolution.token_mlp.layers[-1]
            nn.init.normal_(last.weight, 0.0, 0.1 * float(last.weight.detach().std()))
            nn.init.zeros_(last.bias)


def add_matrices(encoder: PatchEncoder, rank: int, start: Adapter | None) -> None:
    """Put narrow matrices beside the layers of the base's encoder, as the start has them."""
    add_low_rank(encoder.encoder, rank)
    if start is not None and start.card.tunes_encoder:
        _continue_matrices(encoder, start)


def check_start(settings: DecoderSettings, start: Adapter | None) -> None:
    """Check that narrow matrices can learn from the start on: under its decoders, and from its own.

    Raises:
        AdapterError: they cannot.
    """
    if not settings.lora_rank or start is None:
        return
    if settings.keeps_decoders:
        _check_decoders(start)
    if start.card.tunes_encoder:
        _check_rank(settings.lora_rank, start)


def _check_decoders(start: Adapter) -> None:
    for name, card in start.card.decoders.items():
        if card.fuses_features:
            raise AdapterError(
                f"The decoder {name!r} of the adapter to start from has features of its own, "
                "under which no encoder learns alone. Name a scope that tunes it, or start "
                "from another adapter."
            )


def _check_rank(rank: int, start: Adapter) -> None:
    kept = start.card.lora_rank
    if not kept:
        raise AdapterError(
            f"{start.path} has a whole image encoder of its own, beside which no narrow matrices "
            "can be kept. Leave out lora_rank, or start from another adapter."
        )
    if rank < kept:
        raise AdapterError(
            f"{start.path} has narrow matrices of rank {kept}, which rank {rank} cannot hold. "
            f"Choose a lora_rank of {kept} or more, or start from another adapter."
        )


def _continue_matrices(encoder: PatchEncoder, start: Adapter) -> None:
    """Put the start's narrow matrices into those of an encoder; a higher rank adds to them."""
    kept = start.card.lora_rank
    own = encoder.encoder.state_dict()
    with torch.no_grad():
        for name, values in start.tensors(ENCODER).items():
            given = torch.from_numpy(values)
            rows = own[name][:kept] if name.endswith(".down") else own[name][:, :kept]
            rows.copy_(given)
