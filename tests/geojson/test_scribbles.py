"""A line with bends is a scribble: points along it, of one object; a straight one measures."""

from __future__ import annotations

from typing import Any

import pytest

from fixtures.command_line import annotation, rectangle
from wsisam_qupath.geojson import prompts_from_geojson
from wsisam_qupath.geojson.shapes import is_scribble

BENT = [[0, 0], [60, 0], [60, 40]]
STRAIGHT = [[0, 0], [60, 0]]


def scribble(name: str, coordinates: Any, class_name: str | None = None) -> dict[str, Any]:
    return annotation(name, "LineString", coordinates, class_name)


def test_points_lie_evenly_along_a_scribble() -> None:
    (prompt,) = prompts_from_geojson([scribble("s", BENT, "gland")])

    assert prompt.l0_positives == (
        (10.0, 0.0),
        (30.0, 0.0),
        (50.0, 0.0),
        (60.0, 10.0),
        (60.0, 30.0),
    )
    assert prompt.path_class is not None
    assert (prompt.id, prompt.path_class.name) == ("s", "gland")


def test_a_scribble_is_one_object_even_where_each_point_is() -> None:
    document = [scribble("s", BENT), annotation("p", "MultiPoint", [[500, 500], [900, 900]])]

    found = prompts_from_geojson(document, points_as="each")

    assert sorted(len(prompt.l0_positives) for prompt in found) == [1, 1, 5]


def test_several_lines_of_an_object_share_its_points() -> None:
    further = [[200, 0], [300, 0], [300, 1]]

    (prompt,) = prompts_from_geojson(annotation("s", "MultiLineString", [BENT, further]))

    assert len(prompt.l0_positives) == 5
    assert prompt.l0_positives[-1][0] > 200


def test_straight_and_empty_parts_are_no_part_of_a_scribble() -> None:
    parts = [[[0, 500], [500, 500]], [], BENT]

    (prompt,) = prompts_from_geojson(annotation("s", "MultiLineString", parts))

    assert len(prompt.l0_positives) == 5
    assert max(y for _, y in prompt.l0_positives) < 100


def test_a_scribble_in_a_rectangle_belongs_to_it() -> None:
    (prompt,) = prompts_from_geojson([rectangle("r", (-10, -10, 100, 100)), scribble("s", BENT)])

    assert (prompt.id, len(prompt.l0_positives)) == ("r", 5)


def test_a_scribble_of_an_ignored_class_lies_outside_of_the_object() -> None:
    document = [rectangle("r", (-10, -10, 100, 100)), scribble("s", BENT, "Ignore*")]

    (prompt,) = prompts_from_geojson(document)

    assert (len(prompt.l0_positives), len(prompt.l0_negatives)) == (0, 5)


def test_scribbles_without_an_id_get_the_same_one_each_time() -> None:
    bare = {"type": "LineString", "coordinates": BENT}
    points = {"type": "MultiPoint", "coordinates": [[10, 0], [30, 0], [50, 0], [60, 10], [60, 30]]}

    (first,), (again,), (other,) = map(prompts_from_geojson, (bare, bare, points))

    assert first.id == again.id != other.id


@pytest.mark.parametrize(
    ("coordinates", "reason"),
    [
        (STRAIGHT, "a straight line measures, and marks no object"),
        ([[0, 0], [30, 0], [60, 0]], "a straight line measures, and marks no object"),
        ([[0, 0], [60, 0], [60, 0]], "a straight line measures, and marks no object"),
        ([[5, 5], [5, 5], [5, 5]], "it has no length"),
        ([[0, 0], [1, "a"], [2, 2]], "its coordinates are not all numbers"),
        ([], "its coordinates are empty"),
        (7, "not nested as its type asks for"),
    ],
)
def test_what_is_no_scribble_is_skipped_with_a_reason(coordinates: Any, reason: str) -> None:
    found = prompts_from_geojson([scribble("s", coordinates)])

    (skipped,) = found.skipped
    assert reason in skipped.reason
    assert not found.prompts


@pytest.mark.parametrize(
    ("geometry", "expected"),
    [
        ({"type": "LineString", "coordinates": BENT}, True),
        ({"type": "LineString", "coordinates": STRAIGHT}, False),
        ({"type": "MultiLineString", "coordinates": [STRAIGHT, BENT]}, True),
        ({"type": "Polygon", "coordinates": [BENT]}, False),
        ({"type": "LineString", "coordinates": None}, False),
        ({}, False),
    ],
)
def test_a_scribble_has_bends(geometry: dict[str, Any], expected: bool) -> None:
    assert is_scribble(geometry) is expected
