"""The adapter that comes with the package: whole, small enough, and used without a word."""

import csv
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open

from wsisam_qupath.errors import AdapterError
from wsisam_qupath.model.bases import find_base
from wsisam_qupath.model.low_rank import is_low_rank
from wsisam_qupath.model.shipped import (
    find_shipped_adapter,
    load_chosen_adapter,
)
from wsisam_qupath.options import ModelSpec
from wsisam_qupath.prompts import PromptKind

BASE = find_base("lite-medsam")


def test_it_fits_its_base_and_is_small() -> None:
    adapter = load_chosen_adapter("default", BASE)

    assert adapter is not None
    assert adapter.card.base_sha256 == BASE.sha256
    assert adapter.path.stat().st_size <= 23_000_000  # three decoders
    assert adapter.reads_lr
    assert adapter.card.licence.startswith("Weights for research, not for diagnosis.")


def test_it_adds_narrow_matrices_to_the_image_encoder_and_brings_no_whole_one() -> None:
    adapter = load_chosen_adapter("default", BASE)

    assert adapter is not None
    assert adapter.card.lora_rank == 8
    encoder = adapter.tensors("encoder")
    assert all(is_low_rank(name) for name in encoder)
    assert all(tensor.any() for tensor in encoder.values())


def test_boxes_one_point_and_several_have_their_own_decoders_and_points_a_second_pass() -> None:
    adapter = load_chosen_adapter("default", BASE)

    assert adapter is not None
    routes = adapter.card.routes
    assert routes[PromptKind.BOX].decoder == routes[PromptKind.OUTLINE].decoder == "boxes"
    assert (routes[PromptKind.POINT].decoder, routes[PromptKind.POINTS].decoder) == (
        "points",
        "several",
    )
    assert {routes[kind].second_pass for kind in (PromptKind.POINT, PromptKind.POINTS)} == {
        "own-mask"
    }


def test_it_reads_the_lr_patch_for_points_alone() -> None:
    adapter = load_chosen_adapter("default", BASE)

    assert adapter is not None
    cards = adapter.card.decoders
    assert cards["points"].both_patches
    assert cards["several"].both_patches
    assert not cards["boxes"].reads_lr
    assert cards["points"].count_patches(fits_hr=True) == 1


def test_its_numbers_are_half_precision_and_finite() -> None:
    path = find_shipped_adapter(BASE.name)
    assert path is not None

    with safe_open(path, framework="numpy") as file:
        tensors = [file.get_tensor(name) for name in file.keys()]  # noqa: SIM118

    assert {tensor.dtype for tensor in tensors} == {np.dtype(np.float16)}
    assert all(np.isfinite(tensor).all() for tensor in tensors)


def test_its_card_and_its_split_lie_beside_it_and_no_patient_is_in_two_parts() -> None:
    path = find_shipped_adapter(BASE.name)
    assert path is not None
    assert "Not for diagnosis" in path.with_suffix(".md").read_text(encoding="utf-8")

    parts = defaultdict(set)
    with path.with_suffix(".split.tsv").open(encoding="utf-8", newline="") as table:
        for row in csv.DictReader(table, delimiter="\t"):
            parts[row["dataset"], row["group"]].add(row["part"])

    assert all(len(found) == 1 for found in parts.values())
    assert {group for (name, group), found in parts.items() if name == "glas" and "test" in found}
    assert parts["glas", "4"] == parts["glas", "7"] == parts["glas", "13"] == {"test"}


def test_it_is_used_unless_another_or_none_is_named() -> None:
    assert ModelSpec().adapter == "default"
    assert load_chosen_adapter(None, BASE) is None
    assert load_chosen_adapter("default", find_base("mobile-sam")) is None


def test_another_that_is_not_there_is_named() -> None:
    with pytest.raises(AdapterError, match=r"There is no adapter at mine\.safetensors"):
        load_chosen_adapter(Path("mine.safetensors"), BASE)
