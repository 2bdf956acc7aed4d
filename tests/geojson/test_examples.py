"""Examples and regions from GeoJSON: objects of every type and class, and areas to look in."""

import json
from pathlib import Path
from typing import Any

import pytest
import shapely

from wsisam_qupath.errors import PromptError
from wsisam_qupath.geojson import examples_from_geojson, read_examples, read_region

RING = [[10, 10], [40, 12], [30, 50], [10, 10]]
RECTANGLE = [[0, 0], [100, 0], [100, 50], [0, 50], [0, 0]]


def feature(kind: str, coordinates: object, class_name: str | None = None, **more: Any) -> Any:
    properties = {"classification": {"name": class_name}} if class_name else {}
    geometry = {"type": kind, "coordinates": coordinates}
    return {"type": "Feature", "geometry": geometry, "properties": {**properties, **more}}


def write(path: Path, *features: object) -> Path:
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}), "utf-8")
    return path


def test_outlines_rectangles_and_points_are_examples(tmp_path: Path) -> None:
    path = write(
        tmp_path / "examples.geojson",
        feature("Polygon", [RING], "gland"),
        feature("Polygon", [RECTANGLE], "gland"),
        feature("MultiPoint", [[5, 6], [7, 8]], "gland"),
    )

    examples = read_examples(path)

    outline, rectangle, first, second = examples.wanted
    assert outline.l0_outline is not None
    assert outline.l0_outline.equals(shapely.Polygon(RING))
    assert rectangle.l0_box is not None
    assert (first.l0_positives, second.l0_positives) == (((5.0, 6.0),), ((7.0, 8.0),))
    assert {one.path_class.name for one in examples.wanted if one.path_class} == {"gland"}
    assert len({one.id for one in examples.wanted}) == 4


def test_objects_of_ignored_classes_are_not_wanted() -> None:
    document = [
        feature("Polygon", [RING], "gland"),
        feature("Polygon", [RECTANGLE], "Ignore*"),
        feature("Point", [5, 6], "Ignore*"),
    ]

    examples = examples_from_geojson(document)

    assert [one.kind.value for one in examples.wanted] == ["outline"]
    assert [one.kind.value for one in examples.unwanted] == ["box", "point"]
    assert not examples.skipped


def test_a_scribble_is_one_example() -> None:
    (example,) = examples_from_geojson(feature("LineString", RING[:3], "gland")).wanted

    assert len(example.l0_positives) == 5


def test_detections_and_earlier_results_are_examples_too() -> None:
    document = feature("Polygon", [RING], objectType="detection", metadata={"wsi-sam prompt": "a"})

    assert len(examples_from_geojson(document).wanted) == 1


def test_straight_lines_are_named_as_skipped() -> None:
    examples = examples_from_geojson(feature("LineString", [[0, 0], [1, 1]]))

    assert [one.id for one in examples.skipped] == ["feature 1"]
    assert examples.skipped[0].reason.startswith("a straight line measures")
    assert examples.wanted == ()


def test_areas_of_a_file_are_one_region(tmp_path: Path) -> None:
    shifted = [[x + 50, y] for x, y in RECTANGLE]
    path = write(
        tmp_path / "region.geojson",
        feature("Polygon", [RECTANGLE]),
        feature("Polygon", [shifted], "Region*"),
        feature("Point", [1, 1]),
    )

    assert read_region(path).equals(shapely.box(0, 0, 150, 50))


@pytest.mark.parametrize("content", ["[]", '[{"type": "Point", "coordinates": [1, 2]}]'])
def test_a_region_without_an_area_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "region.geojson"
    path.write_text(content, "utf-8")

    with pytest.raises(PromptError, match="no area to look in: draw a rectangle"):
        read_region(path)


def test_other_json_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.geojson"
    path.write_text('{"a": 1}', "utf-8")

    with pytest.raises(PromptError, match="is not GeoJSON"):
        read_examples(path)
