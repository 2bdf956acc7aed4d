"""Models for tests: the bundled base, and adapters of random numbers on top of it."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from wsisam_qupath.backends import ImageArray
from wsisam_qupath.loading import load_predictor
from wsisam_qupath.model.adapter import write_adapter
from wsisam_qupath.model.bases import find_base
from wsisam_qupath.model.build import Model, build_decoder, learned_state
from wsisam_qupath.model.card import AdapterCard, DecoderCard, Route, SecondPass
from wsisam_qupath.model.decoders import PromptedSam
from wsisam_qupath.predictor import Predictor
from wsisam_qupath.prompts import PromptKind

PLAIN_BASE = find_base("lite-medsam")

DECODERS = {
    "boxes": DecoderCard(architecture="wsi-sam"),
    "points": DecoderCard(architecture="sam"),
}
ROUTES = {
    PromptKind.BOX: Route(decoder="boxes"),
    PromptKind.POINTS: Route(
        decoder="points", second_pass=SecondPass.SELF_BOX, second_decoder="boxes"
    ),
    PromptKind.BOX_POINTS: Route(decoder="points"),
    PromptKind.OUTLINE: Route(decoder="boxes"),
    PromptKind.OUTLINE_POINTS: Route(decoder="boxes", second_pass=SecondPass.OWN_MASK),
}

Tensors = dict[str, NDArray[np.float32]]
Patches = tuple[ImageArray, ImageArray]
"""A concentric pair: HR and LR."""


def tissue_rgb() -> ImageArray:
    """Scikit-image's ihc.png, 512 x 512 x 3, without importing it."""
    spec = find_spec("skimage")
    assert spec is not None
    assert spec.submodule_search_locations
    with Image.open(Path(spec.submodule_search_locations[0]) / "data" / "ihc.png") as image:
        return np.array(image.convert("RGB"))


def sam_of(model: Model) -> PromptedSam:
    """The prompt encoder and mask decoder of a model."""
    return next(iter(model.decoders.values())).sam


def card(
    decoders: Mapping[str, DecoderCard] = DECODERS, routes: Mapping[PromptKind, Route] = ROUTES
) -> AdapterCard:
    """A card that fits the bundled base."""
    return AdapterCard(
        base=PLAIN_BASE.name,
        base_sha256=PLAIN_BASE.sha256,
        decoders=dict(decoders),
        routes=dict(routes),
    )


def routed_to(decoder: str) -> dict[PromptKind, Route]:
    """Every kind of prompt to one decoder."""
    return {kind: Route(decoder=decoder) for kind in PromptKind}


def random_tensors(model: Model, seed: int = 0) -> Tensors:
    """Tensors of the decoders in ``DECODERS``; "points" has another no-mask embedding."""
    torch.manual_seed(seed)
    learned = learned_state(build_decoder(PLAIN_BASE, sam_of(model), DECODERS["boxes"]))
    tensors = {f"boxes.{name}": tensor.numpy() for name, tensor in learned.items()}
    name = "prompt_encoder.no_mask_embed.weight"
    tensors[f"points.{name}"] = 1.5 * sam_of(model).state_dict()[name].numpy()
    return tensors


def write_random_adapter(path: Path, model: Model) -> Tensors:
    """Write an adapter with ``DECODERS`` and ``ROUTES``; returns its tensors."""
    tensors = random_tensors(model)
    write_adapter(path, card(), tensors)
    return tensors


def load_torch(adapter: Path | None = None) -> Predictor:
    return load_predictor(PLAIN_BASE, adapter=adapter, device="cpu", backend="torch")


def load_openvino(adapter: Path | None = None) -> Predictor:
    return load_predictor(PLAIN_BASE, adapter=adapter, device="cpu", backend="openvino")
