"""The encoder in int8 that ships: near to floats, and told apart from them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from fixtures.models import PLAIN_BASE, Patches
from wsisam_qupath import Box, ModelSpec, OutlineOptions, Prompt, Result, Segmenter, Slide
from wsisam_qupath.geojson import to_feature
from wsisam_qupath.inference.loading import resolve
from wsisam_qupath.inference.predictor import Predictor
from wsisam_qupath.inference.ready_graphs import FOLDER, find_int8_encoder
from wsisam_qupath.model.shipped import load_chosen_adapter

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


def test_the_encoder_in_int8_is_that_of_the_base_and_small() -> None:
    found = find_int8_encoder(PLAIN_BASE, None)
    assert found is not None, "run scripts/quantize_encoder.py"
    assert (FOLDER / "lite-medsam-int8.zip").stat().st_size < 12e6


def test_a_model_with_another_encoder_has_none_in_int8() -> None:
    adapter = load_chosen_adapter("default", PLAIN_BASE)
    assert adapter is not None
    tuned = replace(adapter, card=adapter.card.model_copy(update={"tunes_encoder": True}))

    assert find_int8_encoder(PLAIN_BASE, adapter) is not None
    assert find_int8_encoder(PLAIN_BASE, tuned) is None
    assert find_int8_encoder(replace(PLAIN_BASE, sha256="0" * 64), None) is None


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
