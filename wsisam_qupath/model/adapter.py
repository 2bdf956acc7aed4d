"""Adapters: weights trained on top of a base, in one ``.safetensors`` file. No PyTorch here.

The file holds one or more *decoders*, each a set of tensors with names that start with the
decoder's own name, perhaps a tuned image encoder, and a card (JSON in the file's metadata) that
says for each kind of prompt which decoder answers. A tensor is named like this::

    boxes.wsi.hr.token.weight                       a WSI-SAM part
    boxes.wsi.concat.weight                         only with concat aggregation
    points.mask_decoder.iou_token.weight            replaces a tensor of the base
    points.prompt_encoder.not_a_point_embed.weight  likewise
    points.enhancement.attention.gate               a part of the enhanced decoder
    encoder.neck.0.weight                           a tensor of the image encoder, for all decoders
    encoder.stages.3.blocks.0.attn.qkv.down         what is added to the weight of one of its
    encoder.stages.3.blocks.0.attn.qkv.up           layers: the product up x down
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from ..errors import AdapterError
from ..files import check_ordinary, compute_sha256, write_atomically
from .bases import Base
from .card import CARD_FORMAT, ENCODER, AdapterCard

CARD_KEY = "wsisam_qupath"
"""Key of the card in the metadata of the file."""

WSI_PART = "wsi."
ENHANCEMENT_PART = "enhancement."
BASE_PARTS = ("prompt_encoder.", "mask_decoder.")
_DTYPES = frozenset({"F16", "F32", "F64"})


@dataclass(frozen=True)
class Adapter:
    """An adapter file that was checked.

    Attributes:
        path, sha256: path and checksum of the file.
        card: its metadata.
        encoder_sha256: checksum of its image encoder's tensors; None where it uses the base's.
    """

    path: Path
    sha256: str
    card: AdapterCard
    encoder_sha256: str | None

    @property
    def name(self) -> str:
        """The file's name without its ending."""
        return self.path.stem

    @property
    def reads_lr(self) -> bool:
        """Whether any of its decoders reads the LR patch."""
        return any(card.reads_lr for card in self.card.decoders.values())

    def tensors(self, decoder: str) -> dict[str, NDArray[np.float32]]:
        """Read the tensors of one decoder, or of "encoder", float32, named without that prefix.

        Raises:
            AdapterError: the file is no longer there, or a tensor has what is no number.
        """
        prefix = f"{decoder}."
        with _open_adapter(self.path) as file:
            return {
                name.removeprefix(prefix): _read_tensor(self.path, file, name)
                for name in file.keys()  # noqa: SIM118 - safetensors' handle is no mapping
                if name.startswith(prefix)
            }


def read_adapter(path: Path, base: Base) -> Adapter:
    """Read an adapter's card and check that it fits the base.

    Raises:
        AdapterError: the file is missing, damaged, no adapter, or made for another base.
    """
    if not os.path.isfile(path):  # noqa: PTH113 - Path.is_file() raises if the name is too long
        raise AdapterError(
            f"There is no adapter at {path}: check the path, or choose none as the adapter."
        )
    with _open_adapter(path) as file:
        metadata: Mapping[str, str] = file.metadata() or {}
        dtypes = {name: file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118
        card = _card(path, metadata)
        _check_tensors(path, card, dtypes)
        encoder = [name for name in dtypes if name.startswith(f"{ENCODER}.")]
        encoder_sha256 = None
        if card.tunes_encoder:
            encoder_sha256 = _compute_tensors_sha256(path, file, encoder)
    if (card.base, card.base_sha256) != (base.name, base.sha256):
        raise AdapterError(
            f"{path} was trained for {card.base} (SHA-256 {card.base_sha256[:12]}…), not for "
            f"{base.name} (SHA-256 {base.sha256[:12]}…). Choose the base {card.base}, or another "
            "adapter."
        )
    return Adapter(path.resolve(), compute_sha256(path), card, encoder_sha256)


def identify_encoder(base: Base, adapter: Adapter | None) -> tuple[str, ...]:
    """List the checksums that tell an image encoder from all others, a base's or an adapter's.

    Adapters with the same tensors for it have the same encoder, whatever their decoders are.
    """
    if adapter is None or adapter.encoder_sha256 is None:
        return (base.sha256,)
    return base.sha256, adapter.encoder_sha256


def write_adapter(
    path: Path, card: AdapterCard, tensors: Mapping[str, NDArray[np.floating]]
) -> None:
    """Write an adapter atomically; tensor names carry their decoder's prefix.

    Raises:
        OutputError: the file cannot be written.
    """
    metadata = {CARD_KEY: card.model_dump_json()}
    contiguous = {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}
    write_atomically(path, save(contiguous, metadata))


def _open_adapter(path: Path) -> safe_open:
    try:
        check_ordinary(path)
        return safe_open(path, framework="numpy")
    except (SafetensorError, OSError) as exc:
        raise AdapterError(
            f"{path} is not a readable .safetensors file ({exc}). Copy or download it again."
        ) from exc


def _read_tensor(path: Path, file: Any, name: str) -> NDArray[np.float32]:
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and is told
        tensor = np.asarray(file.get_tensor(name), dtype=np.float32)
    if not np.isfinite(tensor).all():
        raise AdapterError(
            f"{path}: the tensor {name!r} has values that are no finite numbers. Copy or train "
            "the adapter again."
        )
    return tensor


def _compute_tensors_sha256(path: Path, file: Any, names: Iterable[str]) -> str:
    """Compute the SHA-256 of tensors: of names, shapes and float32 values, whatever they lie in."""
    digest = hashlib.sha256()
    for name in sorted(names):  # one at a time: an encoder may take gigabytes
        tensor = np.ascontiguousarray(_read_tensor(path, file, name), dtype="<f4")
        digest.update(f"{name} {tensor.shape}\n".encode())
        digest.update(tensor.tobytes())
    return digest.hexdigest()


def _check_tensors(path: Path, card: AdapterCard, dtypes: Mapping[str, str]) -> None:
    """Check that every tensor belongs to a decoder and has a dtype of NumPy (bfloat16 is none)."""
    owners = {*card.decoders, *([ENCODER] if card.tunes_encoder else [])}
    for name, dtype in dtypes.items():
        if name.partition(".")[0] not in owners:
            raise AdapterError(
                f"{path}: the tensor {name!r} belongs to no decoder of its card. Copy or train "
                "the adapter again."
            )
        if dtype not in _DTYPES:
            raise AdapterError(
                f"{path}: the tensor {name!r} is of type {dtype}. Save it as float32 or float16."
            )


def _card(path: Path, metadata: Mapping[str, str]) -> AdapterCard:
    if CARD_KEY not in metadata:
        raise AdapterError(
            f"{path} is a .safetensors file, but no adapter of wsisam-qupath: its metadata has no "
            f"{CARD_KEY!r}. Choose one that wsisam-qupath wrote, or none."
        )
    try:
        stated = json.loads(metadata[CARD_KEY])
        if isinstance(stated, dict) and stated.get("format") == 1:
            stated = _translate_format_1(path, stated)
        return AdapterCard.model_validate(stated)
    except (ValidationError, ValueError, KeyError, TypeError, AttributeError) as exc:
        reason = _find_first_reason(exc) if isinstance(exc, ValidationError) else str(exc)
        raise AdapterError(
            f"{path} has a card that this version cannot read ({reason}). Update wsisam-qupath, "
            "or train the adapter again."
        ) from exc


def _translate_format_1(path: Path, stated: Mapping[str, Any]) -> dict[str, Any]:
    """Read the card of an adapter of version 0.1 as one of today.

    Decoders of SAM mean the same today. Those of WSI-SAM took the early features elsewhere.

    Raises:
        AdapterError: it has a decoder of WSI-SAM.
        KeyError, TypeError, AttributeError: it is damaged.
    """
    decoders = {name: dict(card) for name, card in stated["decoders"].items()}
    for card in decoders.values():
        if card["architecture"] != "sam":
            raise AdapterError(
                f"{path} was written by an older wsisam-qupath (card format 1, now {CARD_FORMAT}): "
                "its WSI-SAM decoders expect other image features than this version computes. "
                "Train the adapter again."
            )
        card.pop("add_sam_logits", None)  # of WSI-SAM alone, and called sam_logits today
    return {**stated, "format": CARD_FORMAT, "decoders": decoders}


def _find_first_reason(exc: ValidationError) -> str:
    first = exc.errors()[0]
    return ": ".join([*map(str, first["loc"]), first["msg"]])
