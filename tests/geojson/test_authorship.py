"""Whose an object is: told by metadata, by an outline's signature, and by what a person changed."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import shapely
from shapely.geometry import MultiPolygon, Point, Polygon, box, mapping

from wsisam_qupath.geojson import to_feature
from wsisam_qupath.geojson.authorship import (
    Drawings,
    is_ours,
    is_untouched,
    read_outline,
    read_prompt_id,
)
from wsisam_qupath.geojson.provenance import is_drawn, sign_outline
from wsisam_qupath.geometry import Box
from wsisam_qupath.prompts import PathClass, Prompt
from wsisam_qupath.prompts.results import Provenance, Result

PROVENANCE = Provenance("lite-medsam", "0" * 64, None, None, 1.0, None, "hr", "0.1.0")
BLOB = Point(1000, 2000).buffer(40)


def feature(outline: Polygon | MultiPolygon = BLOB, kind: Any = "detection") -> dict[str, Any]:
    prompt = Prompt("p1", l0_box=Box(0, 0, 10, 10), path_class=PathClass("Gland", (1, 2, 3)))
    result = Result(
        prompt, "00000000-0000-0000-0000-000000000001", outline, 0.9, 0.9, 1.0, PROVENANCE
    )
    return to_feature(result, kind)


def as_qupath_keeps_it(outline: Polygon) -> Polygon:
    """float32 coordinates, written with two decimals."""
    return shapely.transform(outline, lambda xy: np.float32(xy).astype(float).round(2))


@pytest.mark.parametrize("kind", ["detection", "annotation"])
def test_a_result_as_it_was_written_is_ours_and_untouched(kind: str) -> None:
    result = feature(kind=kind)

    assert is_ours(result)
    assert read_prompt_id(result) == "p1"
    assert is_untouched(result)


@pytest.mark.parametrize("offset", [0, 150_000])
def test_qupaths_rounding_is_no_edit(offset: float) -> None:
    outline = shapely.affinity.translate(BLOB, offset, offset)
    result = feature(outline)
    result["geometry"] = mapping(as_qupath_keeps_it(outline))

    assert is_untouched(result)


@pytest.mark.parametrize(
    "change",
    [
        {"isLocked": True},
        {"name": "checked"},
        {"classification": "Tumor"},
        {"classification": None},
        {"objectType": "annotation"},
    ],
    ids=str,
)
def test_whoever_changes_a_property_makes_a_result_their_own(change: dict[str, Any]) -> None:
    result = feature()
    result["properties"] |= change

    assert is_ours(result)
    assert not is_untouched(result)


@pytest.mark.parametrize(
    "edited",
    [
        shapely.affinity.translate(BLOB, 1, 0),
        BLOB.union(box(1000, 1990, 1045, 1995)),
        BLOB.difference(Point(1000, 2000).buffer(3)),
        MultiPolygon([BLOB, box(0, 0, 1, 1)]),
    ],
    ids=["moved", "grown", "a hole", "a part"],
)
def test_whoever_edits_an_outline_makes_a_result_their_own(edited: Polygon) -> None:
    result = feature()
    result["geometry"] = mapping(edited)

    assert not is_untouched(result)


@pytest.mark.parametrize("metadata", [None, {}, [], {"other": "1"}, {"wsisam_prompt_id": 3}])
def test_what_does_not_name_a_prompt_is_not_ours(metadata: object) -> None:
    other = copy.deepcopy(feature())
    other["properties"]["metadata"] = metadata

    assert not is_ours(other)
    assert not is_untouched(other)


@pytest.mark.parametrize("signature", ["", "None", "1 2 3", "a b c d e f", "1 2 3 4 5 6 7"])
def test_a_damaged_signature_is_no_outlines(signature: str) -> None:
    assert not is_drawn(BLOB, signature)
    assert Drawings([(signature, "p1")]).read_prompt_id({"geometry": mapping(BLOB)}) is None


def test_an_object_that_lost_its_id_and_metadata_is_known_by_its_outline() -> None:
    others = [
        (sign_outline(shapely.affinity.translate(BLOB, 3 * n, 0)), f"other {n}")
        for n in range(1, 50)
    ]
    drawings = Drawings([*others, (sign_outline(BLOB), "p1")])

    taken_over = {"geometry": mapping(as_qupath_keeps_it(BLOB))}

    assert drawings.read_prompt_id(taken_over) == "p1"


def test_a_corner_that_is_rounded_across_a_pixel_is_found() -> None:
    outline = box(99.999, 99.996, 140, 150)
    drawings = Drawings([(sign_outline(outline), "p1")])

    assert drawings.read_prompt_id({"geometry": mapping(as_qupath_keeps_it(outline))}) == "p1"


@pytest.mark.parametrize(
    "geometry",
    [
        None,
        {},
        {"type": "Point", "coordinates": [1, 2]},
        {"type": "Polygon", "coordinates": [[[0]]]},
    ],
    ids=str,
)
def test_only_areas_have_an_outline(geometry: object) -> None:
    assert read_outline({"geometry": geometry}) is None
