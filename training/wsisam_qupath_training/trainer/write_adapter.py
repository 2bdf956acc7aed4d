"""Write trained decoders to one adapter file with its card."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from wsisam_qupath import __version__
from wsisam_qupath.model.adapter import Adapter, write_adapter
from wsisam_qupath.model.bases import Base
from wsisam_qupath.model.card import ENCODER, AdapterCard

from ..dataset import AnnotatedImage
from ..settings import Recipe
from ..splits import write_split
from .trained import TrainedDecoder


@dataclass(frozen=True)
class WrittenAdapter:
    """The files that a training run wrote.

    Attributes:
        adapter, split: paths of the adapter and of its split table.
        trained: trained decoders by name.
        report: page about it; None if it could not be written.
    """

    adapter: Path
    split: Path
    trained: Mapping[str, TrainedDecoder]
    report: Path | None = None


def write_trained_adapter(
    out: Path,
    recipe: Recipe,
    base: Base,
    images: tuple[AnnotatedImage, ...],
    trained: Mapping[str, TrainedDecoder],
    *,
    start: Adapter | None,
    base_state: Mapping[str, torch.Tensor],
    licence: str,
) -> WrittenAdapter:
    """Write the adapter, and beside it a table of the part of each patient.

    Args:
        start: adapter that training started from; what did not learn is as it has it.

    Raises:
        OutputError: one of them cannot be written.
    """
    tensors: dict[str, NDArray[np.float16]] = {}
    for name, result in trained.items():
        tensors |= {f"{name}.{own}": values for own, values in result.decoder.items()}
        tensors |= result.encoder
    for name, rule in recipe.blends.items():
        mixed = blend(trained[rule.decoder].decoder, base_state, rule.base_share)
        tensors |= {f"{name}.{own}": values for own, values in mixed.items()}
    card = AdapterCard(
        base=base.name,
        base_sha256=base.sha256,
        hr_mpp=recipe.hr_mpp,
        decoders=recipe.cards,
        routes=dict(recipe.routes),
        tunes_encoder=recipe.brings_encoder,
        lora_rank=max(s.lora_rank for s in recipe.decoders.values()),
        training=_describe_data(images),
        recipe=recipe.model_dump_json(),
        licence=licence,
        version=__version__,
    )
    if start is not None:
        card, kept = _keep_frozen(card, recipe, start)
        tensors |= kept
    write_adapter(out, card, tensors)
    split = out.with_suffix(".split.tsv")
    write_split(split, images)
    return WrittenAdapter(out, split, trained)


def _keep_frozen(
    card: AdapterCard, recipe: Recipe, start: Adapter
) -> tuple[AdapterCard, dict[str, NDArray[np.float16]]]:
    """Keep of the start what did not learn: its image encoder, or all of its decoders.

    Returns:
        The card with them, and their tensors.
    """
    owners: list[str] = []
    if start.card.tunes_encoder and not recipe.brings_encoder:
        owners.append(ENCODER)
        own = {"tunes_encoder": True, "lora_rank": start.card.lora_rank}
        card = card.model_copy(update=own)
    if recipe.keeps_decoders:
        owners += start.card.decoders
        card = card.model_copy(
            update={"decoders": start.card.decoders, "routes": start.card.routes}
        )
    tensors: dict[str, NDArray[np.float16]] = {}
    for owner in owners:
        tensors |= copy_tensors_of(start, owner, owner)
    return card, tensors


def copy_tensors_of(adapter: Adapter, owner: str, new_owner: str) -> dict[str, NDArray[np.float16]]:
    """Copy the tensors of a decoder, or of "encoder", to write them under another owner's name."""
    return {
        f"{new_owner}.{name}": values.astype(np.float16)
        for name, values in adapter.tensors(owner).items()
    }


def blend(
    tuned: Mapping[str, NDArray[np.float16]],
    base_state: Mapping[str, torch.Tensor],
    base_share: float,
) -> dict[str, NDArray[np.float16]]:
    """Mix tuned tensors with those of the base that they replace."""
    return {
        name: (
            (1 - base_share) * values.astype(np.float32) + base_share * base_state[name].numpy()
        ).astype(np.float16)
        for name, values in tuned.items()
    }


def _describe_data(images: tuple[AnnotatedImage, ...]) -> str:
    """Describe in words what it was trained on."""
    names = sorted({image.dataset for image in images if image.part == "train"})
    return "; ".join(_describe_dataset(name, images) for name in names)


def _describe_dataset(name: str, images: tuple[AnnotatedImage, ...]) -> str:
    own = [image for image in images if image.dataset == name and image.part == "train"]
    objects = sum(len(image.truths) for image in own)
    groups = len({image.group for image in own})
    return f"{name}: {len(own)} images of {groups} groups, {objects} objects"
