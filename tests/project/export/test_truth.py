"""Which annotations are truth to train on, and what is left out and counted."""

from __future__ import annotations

from typing import Any

import pytest
import shapely
from shapely.geometry import Point, Polygon, box, mapping, shape

from fixtures.command_line import identity
from fixtures.export_examples import BOW_TIE, GREEN, REGION, RING, ROUND, TWO_PARTS, drawn, result
from wsisam_qupath.project.export.truth import select_truth
from wsisam_qupath.qupath.values import ImageContents


def left_out_of(*annotations: dict[str, Any]) -> dict[str, int]:
    return dict(select_truth(ImageContents(9, annotations, ())).left_out)


@pytest.mark.parametrize(
    "geometry", [ROUND, RING, TWO_PARTS, Polygon([(0, 0), (9, 0), (9, 9)])],
    ids=["polygon", "hole", "parts", "triangle"],
)  # fmt: skip
def test_areas_are_objects(geometry: Any) -> None:
    truth = select_truth(ImageContents(2, (drawn(1, geometry, classification=GREEN),), ()))

    (feature,) = truth.features
    assert (truth.objects, truth.classes, truth.regions) == (1, {"Gland": 1}, 0)
    assert shape(feature["geometry"]).hausdorff_distance(geometry) <= 0.01
    assert feature["id"] == identity(1)
    assert feature["properties"]["classification"] == GREEN


def test_an_area_without_a_class_is_an_unclassified_object() -> None:
    assert select_truth(ImageContents(2, (drawn(1),), ())).classes == {"Unclassified": 1}


@pytest.mark.parametrize("geometry", [ROUND, box(0, 0, 90, 90)], ids=["area", "rectangle"])
def test_areas_of_class_region_are_regions_and_no_objects(geometry: Any) -> None:
    truth = select_truth(ImageContents(2, (drawn(1, geometry, classification=REGION),), ()))

    assert (truth.objects, truth.regions, len(truth.features)) == (0, 1, 1)


@pytest.mark.parametrize(
    ("annotation", "reason"),
    [
        (drawn(1, Point(5, 5)), "points"),
        (drawn(1, shapely.MultiPoint([(5, 5), (6, 6)]), classification=REGION), "points"),
        (drawn(1, shapely.LineString([(5, 5), (6, 6)])), "lines"),
        (drawn(1, Polygon([(0, 0), (9, 9), (4, 4)])), "without area"),
        (drawn(1, box(0, 0, 90, 90), classification=GREEN), "rectangles, which are prompts"),
        (drawn(1, box(0, 0, 90, 90), isLocked=True), "rectangles, which are prompts"),
        (drawn(1, classification="Ignore*"), "class ends in *"),
        (drawn(1, classification={"names": ["A", "B*"], "color": [1, 2, 3]}), "class ends in *"),
        (result(1), "unreviewed results"),
    ],
)
def test_what_is_no_truth_is_left_out_and_counted(annotation: dict[str, Any], reason: str) -> None:
    assert left_out_of(annotation) == {reason: 1}
    assert not select_truth(ImageContents(2, (annotation,), ())).features


@pytest.mark.parametrize(
    "reviewed",
    [
        result(1, isLocked=True),
        result(1, name="checked"),
        result(1, classification="Other"),
        result(1, kind="detection", objectType="annotation"),
        {**result(1), "geometry": mapping(ROUND)},
    ],
    ids=["locked", "named", "reclassified", "made of a detection", "edited"],
)
def test_a_result_that_a_person_took_over_is_truth(reviewed: dict[str, Any]) -> None:
    assert select_truth(ImageContents(2, (reviewed,), ())).objects == 1


def test_detections_of_ours_are_unreviewed() -> None:
    contents = ImageContents(4, (drawn(1),), (result(2, "detection"), result(3, "detection")))

    assert select_truth(contents).left_out == {"unreviewed results": 2}


def test_an_outline_that_crosses_itself_is_exported_valid() -> None:
    (feature,) = select_truth(ImageContents(2, (drawn(1, BOW_TIE),), ())).features

    assert shape(feature["geometry"]).is_valid
    assert shape(feature["geometry"]).area == 5000


def test_planes_names_and_locks_are_kept_and_measurements_are_not() -> None:
    annotation = drawn(1, name="one", isLocked=True, measurements={"Area": 3}, color=[1, 2, 3])
    annotation["geometry"]["plane"] = {"c": -1, "z": 2, "t": 0}

    (feature,) = select_truth(ImageContents(2, (annotation,), ())).features

    assert feature["geometry"]["plane"] == {"c": -1, "z": 2, "t": 0}
    assert feature["properties"] == {"objectType": "annotation", "name": "one", "isLocked": True}
