"""The precision of the encoder is chosen by the chip, the backend and the model."""

from __future__ import annotations

from pathlib import Path

import pytest

from wsisam_qupath.errors import OptionError
from wsisam_qupath.inference.precision import choose_precision, read_chip_features

ROME = frozenset({"sse4_2", "avx", "avx2", "fma", "f16c"})
CASCADE_LAKE = ROME | {"avx512f", "avx512_vnni"}
SAPPHIRE_RAPIDS = CASCADE_LAKE | {"avx512_bf16", "amx_bf16", "amx_int8"}
ALDER_LAKE = ROME | {"avx_vnni"}

CPU_INFO = """processor\t: 0
vendor_id\t: GenuineIntel
flags\t\t: fpu avx2 avx512f avx512_vnni amx_int8
vmx flags\t: vnmi ept_violation_ve

processor\t: 1
flags\t\t: fpu avx2 avx512f avx512_vnni amx_int8
"""


@pytest.mark.parametrize(
    ("features", "chosen"),
    [
        (ROME, "bf16"),
        (CASCADE_LAKE, "int8"),
        (SAPPHIRE_RAPIDS, "bf16"),
        (ALDER_LAKE, "int8"),
        (frozenset[str](), "bf16"),
    ],
    ids=["Rome", "Cascade Lake", "Sapphire Rapids", "Alder Lake", "unknown"],
)
def test_int8_is_chosen_where_the_chip_gains_by_it(features: frozenset[str], chosen: str) -> None:
    found = choose_precision("auto", backend="openvino", has_int8=True, features=features)

    assert found == chosen


def test_a_model_without_an_encoder_in_int8_computes_in_floats() -> None:
    assert (
        choose_precision("auto", backend="openvino", has_int8=False, features=CASCADE_LAKE)
        == "bf16"
    )
    assert choose_precision("auto", backend="torch", has_int8=True, features=CASCADE_LAKE) == "bf16"


@pytest.mark.parametrize("wanted", ["int8", "bf16", "f32"])
def test_what_is_asked_for_is_taken_on_every_chip(wanted: str) -> None:
    for features in (ROME, SAPPHIRE_RAPIDS):
        found = choose_precision(wanted, backend="openvino", has_int8=True, features=features)
        assert found == wanted


@pytest.mark.parametrize(("backend", "has_int8"), [("openvino", False), ("torch", True)])
def test_int8_that_is_not_there_is_refused(backend: str, has_int8: bool) -> None:
    with pytest.raises(OptionError, match=r"int8 is there for .* choose bf16"):
        choose_precision("int8", backend=backend, has_int8=has_int8, features=CASCADE_LAKE)


def test_other_names_are_refused() -> None:
    with pytest.raises(OptionError, match=r"'fp16' is none of auto, int8, bf16, f32"):
        choose_precision("fp16", backend="openvino", has_int8=True, features=ROME)


def test_features_are_read_as_linux_lists_them(tmp_path: Path) -> None:
    path = tmp_path / "cpuinfo"
    path.write_text(CPU_INFO, "ascii")

    assert read_chip_features(path) == {"fpu", "avx2", "avx512f", "avx512_vnni", "amx_int8"}


def test_a_system_without_that_list_has_no_known_features(tmp_path: Path) -> None:
    assert read_chip_features(tmp_path / "none") == frozenset()
