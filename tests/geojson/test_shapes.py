"""What prompt a geometry makes, how it is repaired, and why it may be none."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from shapely.geometry import MultiPolygon, Polygon, mapping, shape

from fixtures.geojson_documents import feature, only, prompts_of, rectangle
from wsisam_qupath.geometry import Box
from wsisam_qupath.prompts import Skipped


@pytest.mark.parametrize(
    "ring",
    [
        [[0, 0], [10, 0], [10, 5], [0, 5]],  # open
        [[10, 5], [0, 5], [0, 0], [10, 0], [10, 5]],  # another start, the other way round
        [[0, 0], [0, 0], [10, 0], [10, 5], [10, 5], [0, 5], [0, 0], [0, 0]],  # repeated
        [[0, 0, 7], [10, 0, 7], [10, 5, 7], [0, 5, 7], [0, 0, 7]],  # a third coordinate
    ],
)
def test_four_right_corners_are_a_box_however_they_are_written(ring: object) -> None:
    assert only(feature("Polygon", [ring])).l0_box == Box(0, 0, 10, 5)


def test_a_rectangle_may_be_off_by_float_noise() -> None:
    ring = [[70000.1, 5.0], [70100.10000000001, 5.0000001], [70100.1015625, 9.0], [70000.1, 9.0]]

    box = only(feature("Polygon", [ring])).l0_box

    assert box is not None
    assert (box.x0, box.y1) == (70000.1, 9.0)


@pytest.mark.parametrize(
    "ring",
    [
        [[0, 1], [10, 0], [11, 10], [1, 11]],  # rotated
        [[0, 0], [10, 0], [12, 5], [2, 5]],  # slanted
        [[0, 0], [10, 0], [10, 5], [5, 6], [0, 5]],  # five corners
        [[0, 0], [10, 10], [10, 0], [0, 10]],  # a bow tie of a rectangle's corners
    ],
)
def test_any_other_polygon_is_an_outline(ring: object) -> None:
    prompt = only(feature("Polygon", [ring]))

    assert prompt.l0_box is None
    assert prompt.l0_outline is not None
    assert prompt.l0_outline.is_valid


def test_a_rectangle_with_a_hole_or_a_second_part_is_an_outline() -> None:
    square = [[0, 0], [9, 0], [9, 9], [0, 9], [0, 0]]
    hole = [[3, 3], [6, 3], [6, 6], [3, 6], [3, 3]]
    far = [[20, 0], [29, 0], [29, 9], [20, 9], [20, 0]]

    holed = only(feature("Polygon", [square, hole])).l0_outline
    double = only(feature("MultiPolygon", [[square], [far]])).l0_outline

    assert isinstance(holed, Polygon)
    assert holed.area == 72
    assert isinstance(double, MultiPolygon)
    assert double.area == 162


def test_self_crossing_rings_keep_all_that_has_an_area() -> None:
    bow_tie = only(feature("Polygon", [[[0, 0], [10, 10], [10, 0], [0, 10]]])).l0_outline
    spike = only(feature("Polygon", [[[0, 0], [8, 1], [20, 1], [8, 1], [0, 9]]])).l0_outline

    assert isinstance(bow_tie, MultiPolygon)
    assert bow_tie.area == 50
    assert isinstance(spike, Polygon)
    assert spike.bounds == (0, 0, 8, 9)


def test_parts_that_overlap_are_joined() -> None:
    left = [[0, 0], [10, 0], [10, 10], [0, 10]]
    right = [[5, 0], [15, 0], [15, 10], [5, 10]]

    outline = only(feature("MultiPolygon", [[left], [right]])).l0_outline

    assert outline is not None
    assert outline.area == 150


NAN_RING = [[0, 0], [9, 0], [9, float("nan")], [0, 9]]


@pytest.mark.parametrize(
    ("kind", "coordinates", "why"),
    [
        ("Polygon", [[[5, 5], [5, 5], [5, 5], [5, 5], [5, 5]]], "no area"),
        ("Polygon", [[[5, 5], [9, 5], [9, 5], [5, 5], [5, 5]]], "no area"),
        ("Polygon", [[[5, 5], [9, 5], [9, 5.001], [5, 5.001], [5, 5]]], "no area"),
        ("Polygon", [[[0, 0], [5, 5], [9, 9], [0, 0]]], "no area"),
        ("MultiPolygon", [[[[0, 0], [1, 0]]]], "no area"),
        ("Polygon", [NAN_RING], "not all finite"),
        ("Point", [1, float("inf")], "not all finite"),
        ("Point", ["1", "2"], "not all numbers"),
        ("Point", [True, 2], "not all numbers"),
        ("Point", [None, 2], "not all numbers"),
        ("Point", [1], "not all numbers"),
        ("MultiPoint", [[1, 2], [3]], "not all numbers"),
        ("Point", 5, "not nested"),
        ("MultiPoint", [1, 2], "not nested"),
        ("Polygon", [[0, 0], [9, 0], [9, 9]], "not nested"),
        ("Polygon", {"x": 1}, "not nested"),
        ("Point", [10**400, 1], "beyond any slide"),
        ("Point", [1e300, 1], "beyond any slide"),
        ("Point", [], "empty"),
        ("MultiPoint", [], "empty"),
        ("Polygon", [], "empty"),
        ("Polygon", [[]], "empty"),
        ("MultiPolygon", [[], [[]]], "empty"),
        ("Polygon", None, "empty"),
        ("LineString", [[0, 0], [5, 5]], "a straight line measures"),
        ("Circle", [0, 0], "type Circle"),
        (None, [0, 0], "type None"),
        (["x"], [0, 0], "type"),
    ],
)
def test_what_cannot_be_a_prompt_is_skipped_with_a_reason(
    kind: str, coordinates: object, why: str
) -> None:
    good = rectangle(0, 0, 5, 5, id="good")

    found = prompts_of([feature(kind, coordinates, id="bad"), good])

    assert [prompt.id for prompt in found.prompts] == ["good"]
    assert [skipped.id for skipped in found.skipped] == ["bad"]
    assert why in found.skipped[0].reason


def test_features_without_geometry_are_skipped_and_named_by_id_or_number() -> None:
    collection = {"type": "GeometryCollection", "geometries": []}
    features = [
        {"type": "Feature", "id": "a", "geometry": None, "properties": None},
        {"type": "Feature", "geometry": {}},
        {"type": "Feature", "geometry": collection},
        17,
    ]

    assert prompts_of(features).skipped == (
        Skipped("a", "it has no geometry"),
        Skipped("feature 2", "it has no geometry"),
        Skipped(
            "feature 3",
            "a geometry of type GeometryCollection marks no object: draw a rectangle, points or "
            "a closed outline",
        ),
        Skipped("feature 4", "it is not a feature"),
    )


side = st.floats(0.05, 1e5)
place = st.floats(-1e6, 1e6)


@given(place, place, side, side)
def test_every_rectangle_is_read_back_as_its_box(x: float, y: float, w: float, h: float) -> None:
    box = Box(x, y, x + w, y + h)

    prompt = only(json.loads(json.dumps(rectangle(box.x0, box.y0, box.x1, box.y1))))

    assert prompt.l0_box == box


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20)), min_size=3, max_size=9))
def test_every_outline_that_is_drawn_comes_out_valid(ring: list[tuple[int, int]]) -> None:
    found = prompts_of([feature("Polygon", [ring])])

    for prompt in found.prompts:
        area = prompt.l0_outline or shape(mapping(Polygon([(0, 0), (1, 0), (0, 1)])))
        assert area.is_valid
        assert area.area > 0
