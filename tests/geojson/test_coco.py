"""COCO files as annotations: every row is in, or is named."""

import json
import tracemalloc
import uuid
from itertools import combinations
from math import cos, sin
from pathlib import Path
from typing import Any

import pytest
from shapely.geometry import shape

from fixtures.coco_files import CATCH_CLASSES, coco
from wsisam_qupath.errors import PromptError
from wsisam_qupath.files import json_documents, read_json
from wsisam_qupath.geojson.coco import (
    CocoAnnotations,
    CocoDocument,
    make_distinct_colors,
    parse_coco,
    read_coco_annotations,
)
from wsisam_qupath.prompts import PathClass

SQUARE = [0.0, 0.0, 40.0, 0.0, 40.0, 40.0, 0.0, 40.0]
BOW_TIE = [0.0, 0.0, 40.0, 40.0, 40.0, 0.0, 0.0, 40.0]


def row(segmentation: Any, **other: Any) -> dict[str, Any]:
    return {
        "id": 1, "image_id": 7, "category_id": 13, "segmentation": segmentation, **other
    }  # fmt: skip


def read(*annotations: Any) -> CocoAnnotations:
    return parse_coco(coco(*annotations))


def test_a_flat_list_is_one_polygon_in_level_0_pixels() -> None:
    (feature,) = read(row(SQUARE)).features["Histiocytoma_01_1.svs"]

    assert shape(feature["geometry"]).equals(shape({"type": "Polygon", "coordinates": [[
        (0, 0), (40, 0), (40, 40), (0, 40), (0, 0)
    ]]}))  # fmt: skip
    assert feature["properties"]["objectType"] == "annotation"
    assert feature["properties"]["classification"]["name"] == "Histiocytoma"


def test_a_list_of_lists_is_one_object_of_several_parts() -> None:
    other = [100.0, 0.0, 140.0, 0.0, 120.0, 40.0]

    (feature,) = read(row([SQUARE, other])).features["Histiocytoma_01_1.svs"]

    assert feature["geometry"]["type"] == "MultiPolygon"
    assert shape(feature["geometry"]).area == 1600 + 800


def test_all_13_classes_of_catch_have_colours_of_their_own() -> None:
    classes = read().path_classes

    assert tuple(one.name for one in classes) == CATCH_CLASSES
    assert len({one.color for one in classes}) == 13


def test_colours_differ_visibly() -> None:
    def distance(a: tuple[int, ...], b: tuple[int, ...]) -> int:
        return max(abs(x - y) for x, y in zip(a, b, strict=True))

    assert min(distance(a, b) for a, b in combinations(make_distinct_colors(13), 2)) >= 40
    assert len(set(make_distinct_colors(200))) == 200


def test_every_image_is_there_also_without_annotations() -> None:
    assert {name: len(found) for name, found in read(row(SQUARE)).features.items()} == {
        "Histiocytoma_01_1.svs": 1,
        "PNST_02_1.svs": 0,
    }


def test_ids_are_uuids_that_every_run_and_a_corrected_outline_keep() -> None:
    (first,) = read(row(SQUARE)).features["Histiocytoma_01_1.svs"]
    (corrected,) = read(row(BOW_TIE)).features["Histiocytoma_01_1.svs"]

    assert first["id"] == corrected["id"] == str(uuid.UUID(first["id"]))


def test_two_rows_with_one_id_have_two_in_qupath() -> None:
    a, b = read(row(SQUARE), row(BOW_TIE)).features["Histiocytoma_01_1.svs"]

    assert a["id"] != b["id"]


def test_an_outline_that_crosses_itself_is_repaired_and_counted() -> None:
    found = read(row(BOW_TIE), row(SQUARE, id=2))

    repaired, _ = found.features["Histiocytoma_01_1.svs"]
    assert found.repaired == 1
    assert shape(repaired["geometry"]).is_valid
    assert shape(repaired["geometry"]).area == 800


@pytest.mark.parametrize(
    ("annotation", "reason"),
    [
        (row([]), "it has no polygon"),
        (row(None), "it has no polygon"),
        (row(SQUARE[:-1]), "its polygon has an odd number of coordinates"),
        (row(SQUARE[:4]), "its polygon has fewer than three points"),
        (row([0.0, 0.0, 9.0, 9.0, 5.0, 5.0]), "it has no area"),
        (row([0.0, 0.0, 9.0, None, 5.0, 5.0]), "its coordinates are not all numbers"),
        (row([0.0, 0.0, 9.0, float("nan"), 5.0, 5.0]), "its coordinates are not all finite"),
        (row({"counts": "abc", "size": [9, 9]}), "its outline is a run-length mask, no polygon"),
        (row(SQUARE, image_id=8), "its image is not in the list of images"),
        (row(SQUARE, image_id=[8]), "its image is not in the list of images"),
        (row(SQUARE, category_id=99), "its category is not in the list of categories"),
    ],
)
def test_a_damaged_row_is_named_and_the_others_are_read(annotation: Any, reason: str) -> None:
    found = read(annotation, row(SQUARE, id=2))

    assert len(found.features["Histiocytoma_01_1.svs"]) == 1
    assert [(one.id, one.reason) for one in found.damaged] == [("annotation 1", reason)]


def test_rows_without_an_id_are_named_by_their_number() -> None:
    found = read(row(SQUARE), "nonsense", row([], id=None))

    assert [one.id for one in found.damaged] == ["annotation in row 2", "annotation in row 3"]


def test_damaged_images_and_categories_are_named() -> None:
    document = coco()
    document["images"] += [{"id": 11}, {"id": 7, "file_name": "again.svs"}]
    document["categories"] += [{"id": 20, "name": ""}, {"id": 1, "name": "Bone again"}]

    found = parse_coco(document)

    assert [one.id for one in found.damaged] == [
        "image 11", "image 7", "category 20", "category 1"
    ]  # fmt: skip


def test_a_class_of_several_parts_is_a_derived_class() -> None:
    document = coco()
    document["categories"] = [{"id": 13, "name": "Tumor:Benign"}]

    assert [one.name for one in parse_coco(document).path_classes] == ["Tumor: Benign"]
    assert isinstance(parse_coco(document).path_classes[0], PathClass)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b'{"images": [], "annotations": []}', "is not MS COCO: it needs the lists"),
        (b"[]", "is not MS COCO: it needs the lists"),
        (b'{"images": [', "is not JSON"),
        (b"\xff\xfe", "is not UTF-8 text"),
        (b"[" * 200_000, "is nested too deep"),
    ],
)
def test_what_is_no_coco_is_refused_in_words(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "CATCH.json"
    path.write_bytes(content)

    with pytest.raises(PromptError, match=words) as caught:
        read_coco_annotations(path)

    assert str(path) in str(caught.value)


def test_a_file_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(PromptError, match=r"There is no file .*CATCH\.json"):
        read_coco_annotations(tmp_path / "CATCH.json")


def test_a_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "CATCH.json"
    path.write_text(json.dumps(coco(row(SQUARE))), encoding="utf-8-sig")

    assert len(read_coco_annotations(path).features["Histiocytoma_01_1.svs"]) == 1


# Image by image


def test_image_by_image_everything_is_as_at_once() -> None:
    rows = [
        row(SQUARE),
        row(BOW_TIE, id=2),
        row(SQUARE, id=3, image_id=9),
        row([1, 2, 3], id=4, image_id=9),
        row(SQUARE, id=5, image_id=77),
        "no row",
        row(SQUARE),  # the same id again
    ]
    at_once = read(*rows)

    found = CocoDocument(coco(*rows), source="here")
    streams = {image: found.open(image) for image in found.images}
    features = {image: tuple(stream) for image, stream in streams.items()}

    assert features == {name: own for name, own in at_once.features.items() if own}
    assert found.path_classes == at_once.path_classes
    assert sum(stream.repaired for stream in streams.values()) == at_once.repaired == 1
    skipped = [case for stream in streams.values() for case in stream.skipped]
    assert sorted((*found.damaged, *skipped), key=str) == sorted(at_once.damaged, key=str)
    assert {image: tuple(found.open(image)) for image in found.images} == features


@pytest.mark.slow
def test_image_by_image_a_large_file_is_never_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "coco.json"
    corners = [(round(99 * cos(n / 20), 3), round(99 * sin(n / 20), 3)) for n in range(120)]
    outline = [part for corner in corners for part in corner]
    rows = [row(outline, id=n, image_id=(7, 9)[n % 2]) for n in range(200)]
    path.write_text(json.dumps(coco(*rows)))
    monkeypatch.setattr(json_documents, "WHOLE_BYTES_MAX", 50_000)
    monkeypatch.setattr(json_documents, "_BLOCK_BYTES", 10_000)

    tracemalloc.start()
    found = CocoDocument(read_json(path, fix="Fix it."), source=str(path))
    count = sum(1 for image in found.images for _ in found.open(image))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert count == 200
    assert peak < path.stat().st_size / 2  # parsed, it takes several times its size
