"""Boxes of another model, read and matched with objects."""

import json
import unicodedata
from dataclasses import replace
from pathlib import Path

import pytest
import shapely

from fixtures.evaluate_models import make_image
from fixtures.letters import OTHER_FORM, Form
from wsisam_qupath.errors import PromptError
from wsisam_qupath.geometry import Box
from wsisam_qupath_training.dataset import Truth
from wsisam_qupath_training.evaluate.boxes import box_iou, match_boxes, read_boxes


def test_each_box_is_for_the_object_that_it_fits_best() -> None:
    truths = [
        Truth("left", shapely.box(0, 0, 100, 100), ""),
        Truth("right", shapely.box(20, 0, 120, 100), ""),
        Truth("far", shapely.box(500, 0, 600, 100), ""),
    ]
    boxes = [Box(15, 0, 115, 100), Box(5, 0, 105, 100), Box(560, 0, 700, 100)]

    assert box_iou(boxes[0], truths[1].l0_box) == pytest.approx(95 / 105)
    assert match_boxes(truths, boxes) == {"right": boxes[0], "left": boxes[1]}


def test_boxes_are_read_from_coco_and_from_a_folder_of_geojson(tmp_path: Path) -> None:
    image = make_image(tmp_path)
    coco = tmp_path / "boxes.json"
    coco.write_text(
        json.dumps(
            {
                "images": [{"id": 7, "file_name": "one.tif"}],
                "annotations": [{"image_id": 7, "bbox": [10, 20, 30, 40]}],
            }
        )
    )
    folder = tmp_path / "boxes"
    folder.mkdir()
    ring = [[10, 20], [40, 20], [40, 60], [10, 60], [10, 20]]
    polygon = {"type": "Polygon", "coordinates": [ring]}
    feature = {"type": "Feature", "id": "x", "geometry": polygon, "properties": {}}
    (folder / "one.geojson").write_text(
        json.dumps({"type": "FeatureCollection", "features": [feature]})
    )

    expected = {"one": (Box(10, 20, 40, 60),)}
    assert read_boxes(coco, [image]) == expected
    assert read_boxes(folder, [image]) == expected
    assert read_boxes(folder / "one.geojson", [image]) == expected


@pytest.mark.parametrize(("ours", "theirs"), OTHER_FORM)
def test_boxes_are_of_an_image_however_letters_are_composed(
    tmp_path: Path, ours: Form, theirs: Form
) -> None:
    image = replace(make_image(tmp_path), name=unicodedata.normalize(ours, "Präparat"))
    stated = unicodedata.normalize(theirs, "Präparat")
    coco, folder = tmp_path / "boxes.json", tmp_path / "boxes"
    rows = [{"image_id": 7, "bbox": [10, 20, 30, 40]}]
    images = [{"id": 7, "file_name": f"{stated}.tif"}]
    coco.write_text(json.dumps({"images": images, "annotations": rows}), encoding="utf-8")
    folder.mkdir()
    ring = [[10, 20], [40, 20], [40, 60], [10, 60], [10, 20]]
    polygon = {"type": "Polygon", "coordinates": [ring]}
    feature = {"type": "Feature", "id": "x", "geometry": polygon, "properties": {}}
    (folder / f"{stated}.geojson").write_text(json.dumps(feature), encoding="utf-8")

    expected = {image.name: (Box(10, 20, 40, 60),)}
    assert read_boxes(coco, [image]) == expected
    assert read_boxes(folder, [image]) == expected


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"images": [], "annotations": []}, "none of the 1 images"),
        ({"images": [{"id": 1}], "annotations": []}, "no MS COCO with boxes"),
        (
            {
                "images": [{"id": 1, "file_name": "one.png"}],
                "annotations": [{"image_id": 1, "bbox": [1, 2, 3]}],
            },
            "no MS COCO with boxes",
        ),
    ],
)
def test_bad_boxes_are_refused(tmp_path: Path, content: object, message: str) -> None:
    image = make_image(tmp_path)
    path = tmp_path / "boxes.json"
    path.write_text(json.dumps(content))

    with pytest.raises(PromptError, match=message):
        read_boxes(path, [image])
