"""Narrow matrices beside the layers of an image encoder: where they are, and what they change."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from fixtures.models import PLAIN_BASE, card, random_tensors
from wsisam_qupath.errors import AdapterError
from wsisam_qupath.inference.backends import ImageArray
from wsisam_qupath.model.adapter import read_adapter, write_adapter
from wsisam_qupath.model.bases import find_base
from wsisam_qupath.model.build import Networks, build_encoder, build_networks
from wsisam_qupath.model.encoder import PatchEncoder
from wsisam_qupath.model.low_rank import (
    add_low_rank,
    find_late_layers,
    is_low_rank,
    merge_low_rank,
    name_low_rank,
)

pytestmark = pytest.mark.slow

RANK = 4
LAYER = "stages.3.blocks.1.mlp.fc2"


@pytest.fixture(scope="module", params=["tiny-vit", "vit"])
def encoder(request: pytest.FixtureRequest, lite: Networks) -> PatchEncoder:
    """The encoder of lite-medsam, and a narrow ViT with one block behind its early features."""
    if request.param == "tiny-vit":
        return lite.encoder
    base = replace(find_base("sam-vit-b"), early_channels=48)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("wsisam_qupath.model.build._VITS", {"vit-b": (48, 3, 2, (1,))})
        torch.manual_seed(1)
        return PatchEncoder(base, build_encoder(base)).eval()


@pytest.fixture(scope="module")
def encoded(encoder: PatchEncoder, tissue: ImageArray) -> tuple[torch.Tensor, torch.Tensor]:
    side = 256 if encoder.normalization == PLAIN_BASE.normalization else 1024
    pixels = np.tile(tissue, (2, 2, 1))[:side, :side]
    with torch.inference_mode():
        tokens, early = encoder(torch.from_numpy(pixels)[None])
    return tokens, early


def open_matrices(encoder: PatchEncoder) -> PatchEncoder:
    """The same with narrow matrices, none of which is zero."""
    torch.manual_seed(2)
    own = copy.deepcopy(encoder)
    add_low_rank(own.encoder, RANK)
    with torch.no_grad():
        for name, parameter in own.encoder.named_parameters():
            if is_low_rank(name):
                parameter.normal_(0, 0.1)
    return own


def test_an_encoder_goes_on_from_its_early_features(
    encoder: PatchEncoder, encoded: tuple[torch.Tensor, torch.Tensor]
) -> None:
    tokens, early = encoded

    with torch.inference_mode():
        assert torch.equal(encoder.continue_from(early), tokens)


def test_narrow_matrices_are_beside_all_linear_layers_behind_the_early_features(
    lite: Networks,
) -> None:
    layers = find_late_layers(lite.encoder.encoder)

    stages = lite.encoder.encoder.get_submodule("stages")
    late = {
        f"stages.{stage}.{name}"
        for stage in (2, 3)
        for name, module in stages.get_submodule(str(stage)).named_modules()
        if isinstance(module, nn.Linear)
    }
    assert set(layers) == late
    assert {name.rpartition(".")[2] for name in layers} == {"qkv", "proj", "fc1", "fc2"}
    assert len(layers) == 4 * 8  # four in each of the blocks
    assert set(name_low_rank(lite.encoder.encoder)) == {
        f"{name}.{part}" for name in late for part in ("down", "up")
    }


@torch.inference_mode()
def test_they_change_nothing_at_first(
    encoder: PatchEncoder, encoded: tuple[torch.Tensor, torch.Tensor]
) -> None:
    own = copy.deepcopy(encoder)

    add_low_rank(own.encoder, RANK)

    assert torch.equal(own.continue_from(encoded[1]), encoded[0])


@torch.inference_mode()
def test_merged_into_plain_layers_they_answer_the_same(
    encoder: PatchEncoder, encoded: tuple[torch.Tensor, torch.Tensor]
) -> None:
    own = open_matrices(encoder)
    beside = own.continue_from(encoded[1])

    merge_low_rank(own.encoder)

    merged = own.continue_from(encoded[1])
    assert own.encoder.state_dict().keys() == encoder.encoder.state_dict().keys()
    assert (merged - beside).abs().max() < 1e-3 * (beside - encoded[0]).abs().max()
    early = {n for n in own.encoder.state_dict() if not n.startswith(encoder.encoder.late_parts)}
    for name in early:
        assert torch.equal(own.encoder.state_dict()[name], encoder.encoder.state_dict()[name])


def write_low_rank(path: Path, lite: Networks, changes: dict[str, np.ndarray | None]) -> None:
    """An adapter with random matrices, some of them left out or replaced."""
    tensors = open_matrices(lite.encoder).encoder.state_dict()
    kept = {f"encoder.{n}": t.numpy() for n, t in tensors.items() if is_low_rank(n)} | changes
    whole = random_tensors(lite) | {n: t for n, t in kept.items() if t is not None}
    about = {"tunes_encoder": True, "lora_rank": RANK}
    write_adapter(path, card().model_copy(update=about), whole)


@torch.inference_mode()
def test_an_adapter_adds_them_to_the_encoder_of_its_base(
    lite: Networks, lite_state: dict[str, torch.Tensor], tissue: ImageArray, tmp_path: Path
) -> None:
    path = tmp_path / "mine.safetensors"
    write_low_rank(path, lite, {})
    patch = torch.from_numpy(tissue[None, :256, :256].copy())

    loaded = build_networks(PLAIN_BASE, lite_state, read_adapter(path, PLAIN_BASE)).encoder

    beside, base = open_matrices(lite.encoder)(patch), lite.encoder(patch)
    tokens, early = loaded(patch)
    assert torch.equal(early, base[1])
    assert (tokens - beside[0]).abs().max() < 1e-3 * (beside[0] - base[0]).abs().max()
    assert not any(is_low_rank(name) for name in loaded.encoder.state_dict())


@pytest.mark.parametrize(
    ("name", "tensor", "message"),
    [
        (f"encoder.{LAYER}.up", None, rf"'encoder\.{LAYER}\.up' is missing"),
        ("encoder.neck.0.weight", np.zeros(1), r"'encoder\.neck\.0\.weight' is unknown"),
        (f"encoder.{LAYER}.up", np.zeros((1, RANK)), "its image encoder have other shapes"),
        (f"encoder.{LAYER}.down", np.zeros((1, 1280)), "other shapes than its card says"),
    ],
)
def test_matrices_that_do_not_fit_the_encoder_are_named(
    lite: Networks,
    lite_state: dict[str, torch.Tensor],
    tmp_path: Path,
    name: str,
    tensor: np.ndarray | None,
    message: str,
) -> None:
    path = tmp_path / "mine.safetensors"
    write_low_rank(path, lite, {name: tensor})
    adapter = read_adapter(path, PLAIN_BASE)

    with pytest.raises(AdapterError, match=message):
        build_networks(PLAIN_BASE, lite_state, adapter)


@pytest.mark.parametrize("value", [np.nan, -np.inf, 1e300])
def test_matrices_that_are_no_finite_numbers_are_named_before_anything_is_loaded(
    lite: Networks, tmp_path: Path, value: float
) -> None:
    path = tmp_path / "mine.safetensors"
    write_low_rank(path, lite, {f"encoder.{LAYER}.down": np.full((RANK, 1280), value)})

    with pytest.raises(AdapterError, match=rf"'encoder\.{LAYER}\.down' has values .* finite"):
        read_adapter(path, PLAIN_BASE)


@pytest.mark.parametrize(
    ("about", "message"),
    [
        ({"tunes_encoder": False, "lora_rank": RANK}, "make an image encoder of its own"),
        ({"tunes_encoder": True, "lora_rank": 1 << 40}, "less than or equal to 128"),
        ({"tunes_encoder": True, "lora_rank": -1}, "greater than or equal to 0"),
    ],
)
def test_a_card_says_a_rank_that_can_be(
    lite: Networks, tmp_path: Path, about: dict[str, int], message: str
) -> None:
    path = tmp_path / "mine.safetensors"
    write_adapter(path, card().model_copy(update=about), random_tensors(lite))

    with pytest.raises(AdapterError, match=message):
        read_adapter(path, PLAIN_BASE)
