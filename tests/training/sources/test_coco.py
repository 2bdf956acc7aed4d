"""COCO, as it is read to train on: CATCH."""

from __future__ import annotations

import json
import math
import sqlite3
import unicodedata
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely
from shapely.geometry import Polygon

from fixtures.coco_files import coco, write_slide_runner
from fixtures.letters import OTHER_FORM, Form
from fixtures.training_data import BOW_TIE, OUTLINES, assert_drawn, read, reasons, write_slide
from wsisam_qupath.errors import PromptError


def write_catch(folder: Path, *annotations: Any) -> Path:
    """CATCH.json of two slides, which lie beside it."""
    for name in ("Histiocytoma_01_1.svs", "PNST_02_1.svs"):
        write_slide(folder / "written.tif").rename(folder / name)
    file = folder / "CATCH.json"
    file.write_text(json.dumps(coco(*annotations)), encoding="utf-8")
    return file


def row(number: int, image: int, outline: Polygon | list[float]) -> dict[str, Any]:
    flat = outline if isinstance(outline, list) else shapely.get_coordinates(outline.exterior)
    segmentation = np.ravel(flat).tolist()
    return {"id": number, "image_id": image, "category_id": 13, "segmentation": segmentation}


INNER = OUTLINES[0].centroid.buffer(15)
INNERMOST = OUTLINES[0].centroid.buffer(6)


def with_area(number: int, outline: Polygon, visible: float) -> dict[str, Any]:
    return row(number, 7, outline) | {"area": visible}


def test_inner_outlines_of_catch_are_cut_out_of_outer_ones_as_its_areas_say(
    tmp_path: Path,
) -> None:
    outer, ring = OUTLINES[0].area - INNER.area, INNER.area - INNERMOST.area
    file = write_catch(
        tmp_path,
        with_area(1, INNERMOST, INNERMOST.area),  # the order of the file is not needed
        with_area(2, OUTLINES[0], outer),
        with_area(3, INNER, ring),
        row(4, 9, OUTLINES[1]) | {"area": 5.0},
    )

    found = read(file)

    areas = [truth.l0_outline.area for truth in found.images[0].truths]
    assert areas == pytest.approx([outer, ring, INNERMOST.area], rel=0.01)
    assert found.notes == (
        "CATCH.json: inner outlines were cut out of 2 outlines around them.",
        "CATCH.json states another area than its outline has for 1 object of 4.",
    )


def test_outlines_stay_whole_where_the_file_counts_what_they_enclose(tmp_path: Path) -> None:
    file = write_catch(
        tmp_path,
        with_area(1, OUTLINES[0], OUTLINES[0].area),
        with_area(2, INNER, INNER.area),
        row(3, 9, OUTLINES[1]),
    )

    found = read(file)

    assert_drawn(found.images[0], [OUTLINES[0], INNER])
    assert found.notes == ()


def test_of_outlines_that_overlap_the_later_covers_the_earlier(tmp_path: Path) -> None:
    shifted = shapely.affinity.translate(OUTLINES[0], 30)
    rows = [row(1, 7, OUTLINES[0]), row(2, 7, shifted), row(3, 9, OUTLINES[1])]
    file = write_slide_runner(write_catch(tmp_path, *rows))

    (image, _) = read(file).images

    assert_drawn(image, [OUTLINES[0].difference(shifted), shifted], at_least=0.98)


def test_catchs_database_is_read_as_its_json(tmp_path: Path) -> None:
    rows = [row(1, 7, OUTLINES[0]), row(2, 7, INNER), row(3, 9, OUTLINES[1])]
    file = write_catch(tmp_path, *rows)
    database = write_slide_runner(file, deleted=(1,))

    found = read(database)

    (image, _) = found.images
    assert_drawn(image, [INNER], at_least=0.95)  # its coordinates are whole pixels
    assert image.truths[0].class_name == "Histiocytoma"
    assert (image.name, image.group) == ("Histiocytoma_01_1", "Histiocytoma_01")
    file.unlink()
    assert read(tmp_path).images == found.images
    assert sorted(path.name for path in tmp_path.iterdir() if path.suffix != ".svs") == [
        "CATCH.sqlite"
    ]


def test_another_database_is_refused(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "other.sqlite")) as database:
        database.execute("CREATE TABLE a (b)")
        database.commit()

    with pytest.raises(PromptError, match="no database of SlideRunner"):
        read(tmp_path / "other.sqlite")


def test_slides_in_folders_by_tumor_are_found(tmp_path: Path) -> None:
    file = write_catch(tmp_path, row(1, 7, OUTLINES[0]), row(2, 9, OUTLINES[1]))
    slides = tmp_path / "slides"
    for name in ("Histiocytoma_01_1.svs", "PNST_02_1.svs"):
        (slides / name.split("_")[0]).mkdir(parents=True)
        (tmp_path / name).rename(slides / name.split("_")[0] / name)

    assert [image.name for image in read(file, slides=slides).images] == [
        "Histiocytoma_01_1",
        "PNST_02_1",
    ]


def test_catch_is_read_by_patient(tmp_path: Path) -> None:
    file = write_catch(tmp_path, row(1, 7, OUTLINES[0]), row(2, 9, OUTLINES[1]))

    a, b = read(file).images

    assert_drawn(a, OUTLINES[:1])
    assert_drawn(b, OUTLINES[1:2])
    assert (a.name, a.group, b.group) == ("Histiocytoma_01_1", "Histiocytoma_01", "PNST_02")
    assert a.truths[0].class_name == "Histiocytoma"
    assert read(tmp_path).images == (a, b)


def test_catch_takes_its_official_split(tmp_path: Path) -> None:
    file = write_catch(tmp_path, row(1, 7, OUTLINES[0]), row(2, 9, OUTLINES[1]))
    split = tmp_path / "datasets.csv"
    split.write_text(
        "Slide;Dataset;Scanner\nPNST_02_1.svs;train;x\nHistiocytoma_01_1.svs;test;x\n"
        "SCC_09_1.svs;val;x\n",
        encoding="utf-8",
    )

    found = read(file, split=split)

    assert [image.part for image in found.images] == ["test", "train"]
    assert reasons(found) == ["SCC_09_1.svs: the split names it, but there is no such image"]


def test_catchs_slides_that_are_not_there_are_named_once(tmp_path: Path) -> None:
    file = write_catch(tmp_path, row(1, 7, OUTLINES[0]), row(2, 9, OUTLINES[1]))
    (tmp_path / "PNST_02_1.svs").unlink()
    split = tmp_path / "datasets.csv"
    split.write_text("Histiocytoma_01_1.svs;train\nPNST_02_1.svs;val\n", encoding="utf-8")

    found = read(file, split=split)

    assert reasons(found) == [f"PNST_02_1.svs: it is not in {tmp_path}"]


def test_damaged_rows_of_coco_are_named(tmp_path: Path) -> None:
    file = write_catch(
        tmp_path,
        row(1, 7, OUTLINES[0]),
        row(2, 7, [0.0, 0.0, math.nan, 5.0, 5.0, 5.0]),
        row(3, 99, OUTLINES[1]),
        row(4, 9, BOW_TIE),
    )

    found = read(file)

    assert reasons(found) == [
        "annotation 2: its coordinates are not all finite",
        "annotation 3: its image is not in the list of images",
    ]
    assert found.repaired == 1


def test_images_of_one_name_in_two_folders_are_told_apart(tmp_path: Path) -> None:
    document = coco(row(1, 7, OUTLINES[0]), row(2, 9, OUTLINES[1]))
    for image, name in zip(document["images"], ("one/x.tif", "two/x.tif"), strict=True):
        image["file_name"] = name
        write_slide(tmp_path / name)
    (tmp_path / "annotations.json").write_text(json.dumps(document), encoding="utf-8")

    assert [image.name for image in read(tmp_path).images] == ["one/x.tif", "two/x.tif"]


@pytest.mark.parametrize(("here", "stated"), OTHER_FORM)
def test_an_image_is_named_by_its_file_however_letters_are_composed(
    tmp_path: Path, here: Form, stated: Form
) -> None:
    document = coco(row(1, 7, OUTLINES[0]))
    document["images"][0]["file_name"] = unicodedata.normalize(stated, "Präparat.tif")
    write_slide(tmp_path / unicodedata.normalize(here, "Präparat.tif"))
    (tmp_path / "annotations.json").write_text(json.dumps(document), encoding="utf-8")

    (image,) = read(tmp_path).images

    assert image.name == image.group == unicodedata.normalize("NFC", "Präparat")


@pytest.mark.parametrize(
    "file_name", ["images\\a.tif", "..\\..\\images\\A.TIF", "/data/upload/a.tif", "images%2Fa.tif"]
)
def test_an_image_is_found_by_a_path_of_another_computer(tmp_path: Path, file_name: str) -> None:
    (tmp_path / "images").mkdir()
    write_slide(tmp_path / "images" / "a.tif")
    document = coco(row(1, 7, OUTLINES[0]))
    document["images"] = [{"id": 7, "file_name": file_name}]
    (tmp_path / "result.json").write_text(json.dumps(document), encoding="utf-8")

    (field,) = read(tmp_path / "result.json").images

    assert_drawn(field, OUTLINES[:1])


def test_a_bad_part_of_a_row_costs_itself_alone(tmp_path: Path) -> None:
    parts = [np.ravel(shapely.get_coordinates(OUTLINES[0].exterior)).tolist(), [1.0, 2.0, 3.0]]
    whole = row(1, 7, OUTLINES[0]) | {"segmentation": parts}
    file = write_catch(tmp_path, whole)

    found = read(file).images

    assert [len(field.truths) for field in found if field.truths] == [1]
