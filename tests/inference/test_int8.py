"""The encoder in int8 that ships: near to floats, and told apart from them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from fixtures.models import PLAIN_BASE, Patches
from wsisam_qupath import Box, ModelSpec, OutlineOptions, Prompt, Result, Segmenter, Slide
from wsisam_qupath.geojson import to_feature
from wsisam_qupath.inference import ready_graphs
from wsisam_qupath.inference.loading import resolve
from wsisam_qupath.inference.predictor import Predictor
from wsisam_qupath.inference.ready_graphs import (
    ReadyGraphs,
    find_int8_encoder,
    pack_int8_encoder,
)
from wsisam_qupath.model.shipped import load_chosen_adapter
from wsisam_qupath.options import AdapterChoice

LEAST_COSINE = 0.97
"""Of the mean of the embeddings it is above 0.98."""

GLAND = Prompt("gland", l0_box=Box(248, 298, 392, 510))
INT8 = ModelSpec(device="cpu", precision="int8")


@pytest.fixture(scope="module")
def int8() -> Predictor:
    return resolve(INT8).load()


@pytest.fixture(scope="module")
def floats() -> Predictor:
    return resolve(replace(INT8, precision="f32")).load()


def cosine(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    a, b = one.ravel().astype(np.float64), other.ravel().astype(np.float64)
    return float(a @ b / np.sqrt((a @ a) * (b @ b)))


@pytest.mark.parametrize("choice", [None, "default"])
def test_the_encoder_in_int8_of_what_ships_is_small(choice: AdapterChoice) -> None:
    found = find_int8_encoder(PLAIN_BASE, load_chosen_adapter(choice, PLAIN_BASE))
    assert found is not None, "run scripts/quantize_encoder.py"
    assert found.archive.stat().st_size < 12e6


def test_a_model_with_another_encoder_has_none_in_int8() -> None:
    adapter = load_chosen_adapter("default", PLAIN_BASE)
    assert adapter is not None

    assert find_int8_encoder(PLAIN_BASE, replace(adapter, sha256="0" * 64)) is not None
    assert find_int8_encoder(PLAIN_BASE, replace(adapter, encoder_sha256="0" * 64)) is None
    assert find_int8_encoder(replace(PLAIN_BASE, sha256="0" * 64), None) is None


def test_an_encoder_in_int8_is_found_by_all_adapters_that_bring_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shipped = load_chosen_adapter("default", PLAIN_BASE)
    assert shipped is not None
    adapter = replace(shipped, encoder_sha256="1" * 64)
    monkeypatch.setattr(ready_graphs, "FOLDER", tmp_path)
    of_base = pack_int8_encoder(tmp_path, PLAIN_BASE, None, tmp_path)
    of_adapter = pack_int8_encoder(tmp_path, PLAIN_BASE, adapter, tmp_path)

    trained_from_it = replace(adapter, path=tmp_path / "mine.safetensors", sha256="2" * 64)
    on_the_base = replace(trained_from_it, encoder_sha256=None)
    other = replace(adapter, encoder_sha256="3" * 64)

    assert find_int8_encoder(PLAIN_BASE, None) == ReadyGraphs(of_base)
    assert find_int8_encoder(PLAIN_BASE, on_the_base) == ReadyGraphs(of_base)
    assert find_int8_encoder(PLAIN_BASE, adapter) == ReadyGraphs(of_adapter)
    assert find_int8_encoder(PLAIN_BASE, trained_from_it) == ReadyGraphs(of_adapter)
    assert find_int8_encoder(PLAIN_BASE, other) is None


def test_where_machines_share_work_none_chooses_int8_for_itself() -> None:
    assert ModelSpec().on_any_machine.precision == "bf16"
    assert INT8.on_any_machine == INT8


@pytest.mark.slow
def test_the_name_of_a_backend_says_its_precision(int8: Predictor, floats: Predictor) -> None:
    assert int8.backend.name.startswith("OpenVINO on CPU, int8 and ")
    assert floats.backend.name == "OpenVINO on CPU, f32"


@pytest.mark.slow
def test_embeddings_in_int8_point_where_those_in_floats_do(
    int8: Predictor, floats: Predictor, patches: Patches
) -> None:
    quick, exact = (one.backend.encode(patches) for one in (int8, floats))

    for one, other in zip(quick, exact, strict=True):
        assert not np.array_equal(one, other)
        assert all(cosine(a, b) > LEAST_COSINE for a, b in zip(one, other, strict=True))


@pytest.mark.slow
def test_results_of_int8_are_near_and_say_so(
    int8: Predictor, floats: Predictor, tissue_slide: Slide
) -> None:
    (quick,), (exact,) = (
        list(Segmenter(one).segment(tissue_slide, [GLAND])) for one in (int8, floats)
    )

    assert isinstance(quick, Result)
    assert isinstance(exact, Result)
    both = quick.polygon.intersection(exact.polygon).area
    assert both / quick.polygon.union(exact.polygon).area > 0.95
    told, silent = (
        to_feature(one, "detection")["properties"]["metadata"] for one in (quick, exact)
    )
    assert told["wsisam_precision"] == "int8"
    assert "wsisam_precision" not in silent


def test_ids_tell_int8_from_floats_and_not_floats_from_floats(tissue_slide: Slide) -> None:
    ids = {
        precision: resolve(replace(INT8, precision=precision)).list_result_ids(
            GLAND, tissue_slide.mpp, OutlineOptions()
        )
        for precision in ("int8", "bf16", "f32")
    }

    assert ids["bf16"] == ids["f32"]
    assert ids["int8"][0] != ids["bf16"][0]
    # Results of the other kind count as outdated, not as somebody else's.
    assert set(ids["int8"]) == set(ids["bf16"])
