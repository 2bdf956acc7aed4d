"""Write trained decoders to one adapter file with its card."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from wsisam_qupath import __version__
from wsisam_qupath.model.adapter import write_adapter
from wsisam_qupath.model.bases import Base
from wsisam_qupath.model.card import AdapterCard

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
    base_state: Mapping[str, torch.Tensor],
    licence: str,
) -> WrittenAdapter:
    """Write the adapter, and beside it a table of the part of each patient.

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
    write_adapter(out, card, tensors)
    split = out.with_suffix(".split.tsv")
    write_split(split, images)
    return WrittenAdapter(out, split, trained)


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
