"""Objects of an image as they are read; damaged ones are no objects."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fixtures.qupath_builders import (
    HOLE,
    KEPT,
    SQUARE,
    TRIANGLE,
    apply,
    feature,
    files_of,
    is_same_shape,
    placed,
    result,
)
from fixtures.qupath_fixtures import add_ellipse_line_and_polyline, add_objects, exported
from wsisam_qupath.errors import ImageError, ProjectError
from wsisam_qupath.qupath.install.installation import find_installation
from wsisam_qupath.qupath.jvm.objects import read_image, stage_change
from wsisam_qupath.qupath.jvm.process import QuPathProcess
from wsisam_qupath.qupath.values import Change, ImageContents

pytestmark = pytest.mark.qupath


def test_an_image_without_objects_has_its_root(qupath: QuPathProcess, project: Path) -> None:
    assert qupath.run(read_image, project, "1") == ImageContents(1, (), ())


def test_an_image_that_was_never_saved_has_its_root_too(
    qupath: QuPathProcess, project: Path
) -> None:
    shutil.rmtree(project.parent / "data" / "1")

    assert qupath.run(read_image, project, "1") == ImageContents(1, (), ())


def test_annotations_are_read_with_all_that_concerns_us(
    qupath: QuPathProcess, project: Path
) -> None:
    inner = feature(
        coordinates=[TRIANGLE],
        plane={"c": -1, "z": 2, "t": 1},
        name='Ä "1"',
        isLocked=True,
        classification={"names": ["Tumor", "Positive"], "color": [200, 50, 50]},
        metadata={"who": "someone"},
        measurements={"Size µm": 1.5},
    )
    outer = feature(coordinates=[SQUARE], childObjects=[inner])
    points = feature("MultiPoint", [[1.5, 2.25], [3.0, 4.0]], classification="Ignore*")
    count = qupath.run(add_objects, project, "1", [outer, points])

    contents = qupath.run(read_image, project, "1")

    assert contents.n_objects == count == 4
    assert contents.results == ()
    by_id = {one["id"]: one for one in contents.annotations}
    assert [one["id"] for one in contents.annotations] == [outer["id"], inner["id"], points["id"]]
    assert by_id[outer["id"]] == {
        "type": "Feature",
        "id": outer["id"],
        "geometry": {"type": "Polygon", "coordinates": [SQUARE]},
        "properties": {"objectType": "annotation"},
    }
    assert by_id[inner["id"]]["geometry"]["plane"] == {"c": -1, "z": 2, "t": 1}
    assert by_id[inner["id"]]["properties"] == {
        "objectType": "annotation",
        "name": 'Ä "1"',
        "classification": {"names": ["Tumor", "Positive"], "color": [200, 50, 50]},
        "measurements": {"Size µm": 1.5},
        "metadata": {"who": "someone"},
        "isLocked": True,
    }
    assert by_id[points["id"]]["geometry"] == points["geometry"]
    assert by_id[points["id"]]["properties"]["classification"]["name"] == "Ignore*"


def test_annotations_of_every_shape_are_read_as_qupath_exports_them(
    qupath: QuPathProcess, project: Path
) -> None:
    shapes = [
        feature("Point", [5.0, 6.0]),
        feature("MultiPoint", [[5.25, 6.0], [1.0, 1.33]]),
        feature("Polygon", [TRIANGLE], measurements={"None": "NaN", "All": "Infinity"}),
        feature("Polygon", [SQUARE]),
        feature("Polygon", [SQUARE, HOLE], color=[1, 2, 3]),
        feature("MultiPolygon", [[TRIANGLE], [SQUARE, HOLE]], plane={"c": 0, "z": 1, "t": 3}),
        feature("LineString", [[0.0, 0.0], [5.0, 5.0], [9.0, 0.0]]),
    ]
    qupath.run(add_objects, project, "1", shapes)
    qupath.run(add_ellipse_line_and_polyline, project, "1")

    ours = qupath.run(read_image, project, "1").annotations

    theirs = {one["id"]: one for one in qupath.run(exported, project, "1")}
    assert len(ours) == len(theirs) == 10
    for one in ours:
        other = theirs[one["id"]]
        assert one["properties"] == other["properties"]
        assert one["geometry"]["type"] == other["geometry"]["type"]
        assert one["geometry"].get("plane") == other["geometry"].get("plane")
        assert is_same_shape(one, other)


def test_results_are_the_detections_that_this_program_made(
    qupath: QuPathProcess, project: Path
) -> None:
    ours = result(classification="Gland", measurements={"Predicted IoU": 0.5})
    theirs = result(metadata={"who": "another program"})
    cell = feature(objectType="cell")
    turned = feature(metadata=KEPT)
    count = qupath.run(add_objects, project, "1", [cell, turned])
    apply(qupath, project, Change(count, (), placed(ours, theirs)))

    contents = qupath.run(read_image, project, "1")

    assert contents.n_objects == 5
    (read,) = contents.results
    assert read["id"] == ours["id"]
    assert is_same_shape(read, ours)
    assert read["properties"]["objectType"] == "detection"
    assert read["properties"]["metadata"] == KEPT
    assert read["properties"]["measurements"] == {"Predicted IoU": 0.5}
    assert [one["id"] for one in contents.annotations] == [turned["id"]]
    assert contents.annotations[0]["properties"]["metadata"] == KEPT


def test_five_thousand_annotations_are_read(qupath: QuPathProcess, project: Path) -> None:
    corners = np.array(SQUARE)
    many = [feature(coordinates=[(corners + n).tolist()]) for n in range(5000)]
    qupath.run(add_objects, project, "1", many)

    contents = qupath.run(read_image, project, "1")

    assert contents.n_objects == 5001
    assert [one["id"] for one in contents.annotations] == [one["id"] for one in many]
    assert contents.annotations[4999]["geometry"] == many[4999]["geometry"]


def test_reading_leaves_the_project_as_it_is(qupath: QuPathProcess, project: Path) -> None:
    qupath.run(add_objects, project, "1", [feature()])
    shutil.rmtree(project.parent / "classifiers")
    before = files_of(project)

    qupath.run(read_image, project, "1")

    assert files_of(project) == before


def test_an_image_whose_slide_is_gone_is_read_and_changed(
    qupath: QuPathProcess, project: Path, tmp_path: Path
) -> None:
    if (find_installation().version or "") < "0.6":
        pytest.skip("QuPath 0.5 opens the slide to read objects")
    (tmp_path / "Präparat 1.tif").unlink()

    apply(qupath, project, Change(1, (), placed(result())))

    assert qupath.run(read_image, project, "1").n_objects == 2


def truncated(content: bytes) -> bytes:
    return content[: len(content) // 2]


def without_its_end(content: bytes) -> bytes:
    return content[:-40]


def emptied(content: bytes) -> bytes:
    return b""


def replaced_by_text(content: bytes) -> bytes:
    return b"Data file version 3\n" * 100


def with_zeros_inside(content: bytes) -> bytes:
    middle = content.index(b"qupath.lib.objects.PathAnnotationObject") - 50
    return content[:middle] + bytes(200) + content[middle + 200 :]


def with_an_unknown_class(content: bytes) -> bytes:
    name = b"qupath.lib.objects.PathAnnotationObject"
    return content.replace(name, b"qupath.lib.objects.PathAnnotationOddity")


@pytest.mark.parametrize("has_summary", [True, False])
@pytest.mark.parametrize(
    "damage",
    [
        truncated,
        without_its_end,
        emptied,
        replaced_by_text,
        with_zeros_inside,
        with_an_unknown_class,
    ],
)
def test_damaged_objects_are_an_error_and_not_an_empty_image(
    qupath: QuPathProcess, project: Path, damage: Callable[[bytes], bytes], has_summary: bool
) -> None:
    qupath.run(add_objects, project, "1", [feature(), feature()])
    folder = project.parent / "data" / "1"
    qpdata = folder / "data.qpdata"
    qpdata.write_bytes(damage(qpdata.read_bytes()))
    if not has_summary:
        (folder / "summary.json").unlink()
    before = files_of(project)

    with pytest.raises(ImageError):
        qupath.submit(read_image, project, "1").result(timeout=60)
    with pytest.raises(ImageError):
        change = Change(3, (), placed(result()))
        qupath.submit(stage_change, project, "1", change, folder / "new").result(timeout=60)

    assert files_of(project) == before


def test_an_image_that_is_no_longer_in_the_project_is_named(
    qupath: QuPathProcess, project: Path
) -> None:
    with pytest.raises(ImageError, match="has no image 7 any more"):
        qupath.run(read_image, project, "7")


def test_an_image_without_a_slide_is_named(qupath: QuPathProcess, project: Path) -> None:
    content = json.loads(project.read_text("utf-8"))
    content["images"][0]["serverBuilder"] = None
    project.write_text(json.dumps(content), encoding="utf-8")

    with pytest.raises(ImageError, match="has no slide"):
        qupath.run(read_image, project, "1")


def test_a_project_that_was_cut_short_meanwhile_is_an_error(
    qupath: QuPathProcess, project: Path
) -> None:
    project.write_bytes(project.read_bytes()[:-100])

    with pytest.raises(ProjectError, match="cannot be read any more"):
        qupath.run(read_image, project, "1")
