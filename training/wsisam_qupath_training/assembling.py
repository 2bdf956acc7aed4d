"""From trained decoders to one adapter file with its card."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from wsisam_qupath.model.adapter import write_adapter
from wsisam_qupath.model.bases import Base
from wsisam_qupath.model.card import AdapterCard
from wsisam_qupath.version import VERSION

from .fields import Field
from .loop import Trained
from .settings import Recipe
from .splits import write_split


@dataclass(frozen=True)
class Made:
    """What a training run wrote.

    Attributes:
        adapter, split: the files.
        trained: by the decoder's name.
        report: the page about it; None where it could not be written.
    """

    adapter: Path
    split: Path
    trained: Mapping[str, Trained]
    report: Path | None = None


def write_made(
    out: Path,
    recipe: Recipe,
    base: Base,
    fields: tuple[Field, ...],
    trained: Mapping[str, Trained],
    *,
    base_state: Mapping[str, torch.Tensor],
    licence: str,
) -> Made:
    """Write the adapter, and beside it which patient was in which part.

    Raises:
        OutputError: one of them cannot be written.
    """
    tensors: dict[str, NDArray[np.float16]] = {}
    for name, result in trained.items():
        tensors |= {f"{name}.{own}": values for own, values in result.decoder.items()}
        tensors |= result.encoder
    for name, blend in recipe.blends.items():
        mixed = blended(trained[blend.decoder].decoder, base_state, blend.base_share)
        tensors |= {f"{name}.{own}": values for own, values in mixed.items()}
    card = AdapterCard(
        base=base.name,
        base_sha256=base.sha256,
        hr_mpp=recipe.hr_mpp,
        decoders=recipe.cards,
        routes=dict(recipe.routes),
        tunes_encoder=any(s.tunes_encoder for s in recipe.decoders.values()),
        training=_told(fields),
        recipe=recipe.model_dump_json(),
        licence=licence,
        version=VERSION,
    )
    write_adapter(out, card, tensors)
    split = out.with_suffix(".split.tsv")
    write_split(split, fields)
    return Made(out, split, trained)


def blended(
    tuned: Mapping[str, NDArray[np.float16]],
    base_state: Mapping[str, torch.Tensor],
    base_share: float,
) -> dict[str, NDArray[np.float16]]:
    """Tuned tensors mixed with those of the base that they replace."""
    return {
        name: (
            (1 - base_share) * values.astype(np.float32) + base_share * base_state[name].numpy()
        ).astype(np.float16)
        for name, values in tuned.items()
    }


def _told(fields: tuple[Field, ...]) -> str:
    """What it was trained on, in words."""
    names = sorted({field.dataset for field in fields if field.part == "train"})
    return "; ".join(_told_of(name, fields) for name in names)


def _told_of(name: str, fields: tuple[Field, ...]) -> str:
    own = [field for field in fields if field.dataset == name and field.part == "train"]
    objects = sum(len(field.truths) for field in own)
    groups = len({field.group for field in own})
    return f"{name}: {len(own)} images of {groups} groups, {objects} objects"
