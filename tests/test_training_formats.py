"""GeoJSON beside slides, label masks, COCO, collections, CAMELYON and PAIP2019 as they are read."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely
import tifffile
from PIL import Image
from shapely.geometry import Polygon, box
from shapely.geometry.base import BaseGeometry

from coco_files import coco
from training_data import (
    BOW_TIE,
    HEIGHT_PX,
    MPP,
    OUTLINES,
    REGION,
    WIDTH_PX,
    assert_drawn,
    drawn,
    ellipse,
    glands,
    inside_of,
    make_field,
    overlap,
    read,
    reasons,
    write_geojson,
    write_slide,
)
from wsisam_qupath.errors import OptionError, PromptError
from wsisam_qupath_training.sources import paip
from wsisam_qupath_training.sources.collection import read_collection
from wsisam_qupath_training.sources.reading import read_dataset

# GeoJSON beside slides.


def test_geojson_beside_slides_is_read(tmp_path: Path) -> None:
    made = make_field(tmp_path, "a")
    made.mask.unlink()
    write_slide(tmp_path / "b.tif")
    write_geojson(tmp_path / "b.tif.geojson", [*glands(), drawn(REGION, "Region*")])

    a, b = read(tmp_path).fields

    assert_drawn(a, OUTLINES)
    assert_drawn(b, OUTLINES)
    assert (a.name, a.group, a.l0_complete) == ("a", "a", None)
    assert b.l0_complete is not None
    assert b.l0_complete.equals(REGION)
    assert a.slide.open().mpp.x == pytest.approx(MPP)


def test_children_are_objects_too(tmp_path: Path) -> None:
    write_slide(tmp_path / "a.tif")
    child = drawn(OUTLINES[1])
    region = drawn(REGION, "Region*", childObjects=[drawn(OUTLINES[0], childObjects=[child])])
    write_geojson(tmp_path / "a.geojson", [region])

    (field,) = read(tmp_path).fields

    assert_drawn(field, OUTLINES[:2])


def test_what_is_no_truth_is_left_out_and_counted(tmp_path: Path) -> None:
    write_slide(tmp_path / "a.tif")
    others = [
        drawn(shapely.Point(50, 50)),
        drawn(shapely.MultiPoint([(50, 50), (60, 60)])),
        drawn(shapely.LineString([(0, 0), (50, 50)])),
        drawn(box(10, 10, 60, 60)),
        drawn(OUTLINES[1], "Ignore*"),
        drawn(OUTLINES[1], objectType="detection"),
    ]
    write_geojson(tmp_path / "a.geojson", [drawn(OUTLINES[0]), *others])

    found = read(tmp_path)

    assert_drawn(found.fields[0], OUTLINES[:1])
    assert sorted(reasons(found)) == [
        "a.geojson: left out: 1 class ends in *",
        "a.geojson: left out: 1 detections",
        "a.geojson: left out: 1 lines",
        "a.geojson: left out: 1 rectangles, which are prompts",
        "a.geojson: left out: 2 points",
    ]


def test_geojson_without_its_slide_is_named(tmp_path: Path) -> None:
    make_field(tmp_path, "a").mask.unlink()
    write_geojson(tmp_path / "b.geojson", glands())

    found = read(tmp_path)

    assert len(found.fields) == 1
    (reason,) = reasons(found)
    assert reason.startswith("b.geojson: its slide is not in ")
    assert reason.endswith("name the folder of the slides with --slides")


def test_a_slide_is_taken_before_a_picture_of_it(tmp_path: Path) -> None:
    make_field(tmp_path, "a").mask.unlink()
    Image.new("RGB", (9, 9)).save(tmp_path / "a.jpg")

    (field,) = read(tmp_path).fields

    assert Path(field.slide.location).name == "a.tif"


# Label masks.


def test_label_masks_give_their_objects(tmp_path: Path) -> None:
    made = make_field(tmp_path)
    made.geojson.unlink()

    (field,) = read(tmp_path).fields

    assert_drawn(field, OUTLINES, at_least=0.97)
    assert [truth.id for truth in field.truths] == ["1", "2", "3"]
    assert field.truths[0].class_name == "object"


def test_a_mask_of_two_values_gives_connected_regions(tmp_path: Path) -> None:
    make_field(tmp_path, ending=".png").mask.unlink()
    both = np.zeros((HEIGHT_PX, WIDTH_PX), dtype=np.uint8)
    for outline in OUTLINES:
        both[inside_of(outline)] = 255
    Image.fromarray(both).save(tmp_path / "a_truth.png")

    (field,) = read(tmp_path, truth="_truth.png", mpp=MPP).fields

    assert sum(truth.l0_outline.area for truth in field.truths) == pytest.approx(
        sum(outline.area for outline in OUTLINES), rel=0.01
    )
    assert len(field.truths) == 3


def test_a_mask_keeps_holes(tmp_path: Path) -> None:
    ring = OUTLINES[2].difference(ellipse(150, 180, 25, 15))
    make_field(tmp_path, outlines=[ring, OUTLINES[0]]).geojson.unlink()

    (field,) = read(tmp_path).fields

    assert_drawn(field, [ring, OUTLINES[0]], at_least=0.95)


def test_masks_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    make_field(tmp_path, "a")
    for name in ("broken", "colours", "small"):
        write_slide(tmp_path / f"{name}.tif")
    (tmp_path / "broken_instances.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    Image.new("RGB", (WIDTH_PX, HEIGHT_PX)).save(tmp_path / "colours_instances.png")
    Image.new("L", (50, 40)).save(tmp_path / "small_instances.png")
    Image.new("L", (50, 40)).save(tmp_path / "without_instances.png")

    found = read(tmp_path)

    assert [field.name for field in found.fields] == ["a"]
    broken, colours, small, without = reasons(found)
    assert broken.startswith("broken_instances.png: it cannot be used (")
    assert "it has colours, and should have one channel" in colours
    assert "it has 50 x 40 pixels, and its image has 320 x 240" in small
    assert without == "without_instances.png: there is no image beside it"


def test_specks_of_a_mask_are_named(tmp_path: Path) -> None:
    made = make_field(tmp_path)
    labels = np.asarray(Image.open(made.mask)).copy()
    labels[0, 0] = 9
    Image.fromarray(labels).save(made.mask)

    found = read(tmp_path)

    assert reasons(found) == ["a_instances.png, object 9: it has fewer than 16 pixels"]
    assert len(found.fields[0].truths) == 3


# COCO.


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


def test_catch_is_read_by_patient(tmp_path: Path) -> None:
    file = write_catch(tmp_path, row(1, 7, OUTLINES[0]), row(2, 9, OUTLINES[1]))

    a, b = read(file).fields

    assert_drawn(a, OUTLINES[:1])
    assert_drawn(b, OUTLINES[1:2])
    assert (a.name, a.group, b.group) == ("Histiocytoma_01_1", "Histiocytoma_01", "PNST_02")
    assert a.truths[0].class_name == "Histiocytoma"
    assert read(tmp_path).fields == (a, b)


def test_catch_takes_its_official_split(tmp_path: Path) -> None:
    file = write_catch(tmp_path, row(1, 7, OUTLINES[0]), row(2, 9, OUTLINES[1]))
    split = tmp_path / "datasets.csv"
    split.write_text(
        "Slide;Dataset;Scanner\nPNST_02_1.svs;train;x\nHistiocytoma_01_1.svs;test;x\n"
        "SCC_09_1.svs;val;x\n",
        encoding="utf-8",
    )

    found = read(file, split=split)

    assert [field.part for field in found.fields] == ["test", "train"]
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

    assert [field.name for field in read(tmp_path).fields] == ["one/x.tif", "two/x.tif"]


# Collections.


def write_collection(folder: Path, *entries: str) -> Path:
    """Tables of a collection, of the folders beside it."""
    file = folder / "all.toml"
    file.write_text("".join(f"[[dataset]]\n{one}\n" for one in entries), encoding="utf-8")
    return file


@pytest.fixture
def collection(tmp_path: Path) -> Path:
    """Two folders of label masks, one with patients by table and one by name."""
    for name in ("1", "2", "3"):
        make_field(tmp_path / "glas", name)
    groups = [{"name": name, "patient": int(name) % 2} for name in "123"]
    (tmp_path / "glas" / "fields.json").write_text(json.dumps(groups), encoding="utf-8")
    make_field(tmp_path / "fat", "m1-a", outlines=OUTLINES[:1])
    return write_collection(
        tmp_path,
        'folder = "glas"\nclass = "gland"\nmpp = 0.62\ngroups = "fields.json"\n'
        'group_key = "patient"\ntest = ["1"]\nweight = 2.0',
        'folder = "fat"\nclass = "fat cell"\ngroup_pattern = "^(\\\\w+)-"',
    )


def test_a_collection_holds_the_fields_of_all_its_folders(collection: Path) -> None:
    found = read_dataset(collection)

    assert found.weights == {"glas": 2.0, "fat": 1.0}
    assert found.dataset.classes == {"gland": 9, "fat cell": 1}
    assert [(f.dataset, f.name, f.group, f.part) for f in found.dataset.fields] == [
        ("glas", "1", "1", "test"),
        ("glas", "2", "0", "train"),
        ("glas", "3", "1", "test"),
        ("fat", "m1-a", "m1", "train"),
    ]
    assert found.dataset.fields[0].slide.mpp == 0.62


def test_a_collection_is_checked_as_it_is_read(collection: Path) -> None:
    assert read(collection) == read_collection(collection).dataset


def test_a_folder_may_be_left_out_of_a_collection(collection: Path) -> None:
    found = read_collection(collection, without=("glas",))

    assert found.weights == {"fat": 1.0}
    assert {field.dataset for field in found.dataset.fields} == {"fat"}


def test_where_masks_cover_all_may_be_said(tmp_path: Path) -> None:
    make_field(tmp_path / "crypts")
    covered = np.zeros((HEIGHT_PX, WIDTH_PX), dtype=np.uint8)
    covered[20:230, 20:300] = 255
    Image.fromarray(covered).save(tmp_path / "crypts" / "a_cover.png")
    file = write_collection(tmp_path, 'folder = "crypts"\ncover = "_cover.png"')

    (field,) = read(file).fields

    assert field.l0_complete is not None
    assert overlap(field.l0_complete, REGION) > 0.99


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ('folder = "absent"', "There is no folder .*absent. Correct the collection"),
        ('folder = "fat"\nscale = 1', r"is no collection \(dataset.2.scale: Extra inputs"),
        ('folder = "fat"', "two folders of the name fat"),
        ("folder =", "cannot be read as TOML"),
    ],
)
def test_collections_that_cannot_be_read_are_refused(
    collection: Path, entry: str, message: str
) -> None:
    with collection.open("a", encoding="utf-8") as file:
        file.write(f"[[dataset]]\n{entry}\n")

    with pytest.raises(PromptError, match=message):
        read(collection)


def test_a_collection_takes_no_slides_of_elsewhere(collection: Path) -> None:
    with pytest.raises(OptionError, match="--slides says nothing to data of the format collection"):
        read(collection, slides=collection.parent)


# CAMELYON.


def write_asap(file: Path, *annotations: tuple[str, BaseGeometry], kind: str = "Polygon") -> None:
    """Outlines with their groups, as ASAP writes them; the coordinates are not in order."""
    rows = []
    for number, (group, outline) in enumerate(annotations):
        coordinates = list(enumerate(shapely.get_coordinates(outline)[:-1].tolist()))
        points = "".join(
            f'<Coordinate Order="{order}" X="{x}" Y="{y}" />' for order, (x, y) in coordinates[::-1]
        )
        rows.append(
            f'<Annotation Name="Annotation {number}" Type="{kind}" PartOfGroup="{group}" '
            f'Color="#F4FA58"><Coordinates>{points}</Coordinates></Annotation>'
        )
    file.write_text(
        f'<?xml version="1.0"?>\n<ASAP_Annotations><Annotations>{"".join(rows)}</Annotations>'
        "<AnnotationGroups /></ASAP_Annotations>",
        encoding="utf-8",
    )


def test_camelyons_outlines_lose_what_is_cut_out_of_them(tmp_path: Path) -> None:
    hole = ellipse(150, 180, 20, 10)
    write_slide(tmp_path / "slides" / "tumor" / "tumor_001.tif")
    folder = tmp_path / "lesion_annotations"
    folder.mkdir()
    write_asap(folder / "tumor_001.xml", ("_0", OUTLINES[0]), ("_2", hole), ("_1", OUTLINES[2]))

    (field,) = read(folder, slides=tmp_path / "slides").fields

    assert_drawn(field, [OUTLINES[0], OUTLINES[2].difference(hole)])
    assert field.truths[0].class_name == "Tumor"
    assert (field.name, field.group) == ("tumor_001", "tumor_001")


def test_camelyon17_is_read_by_patient(tmp_path: Path) -> None:
    for node in (1, 4):
        write_slide(tmp_path / f"patient_004_node_{node}.tif")
        write_asap(tmp_path / f"patient_004_node_{node}.xml", ("metastases", OUTLINES[node % 2]))

    found = read(tmp_path)

    assert [field.group for field in found.fields] == ["patient_004", "patient_004"]
    assert [field.part for field in found.fields] == ["train", "train"]


def test_groups_of_ones_own_are_classes(tmp_path: Path) -> None:
    write_slide(tmp_path / "a.tif")
    write_asap(tmp_path / "a.xml", ("Gland", OUTLINES[0]), ("Vessel", OUTLINES[1]))

    assert read(tmp_path).classes == {"Gland": 1, "Vessel": 1}


def test_xml_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    for name in "abcd":
        write_slide(tmp_path / f"{name}.tif")
    write_asap(tmp_path / "a.xml", ("_0", OUTLINES[0]), ("_0", OUTLINES[1]), ("_2", REGION))
    write_asap(tmp_path / "b.xml", ("_0", OUTLINES[0]), kind="Dot")
    (tmp_path / "c.xml").write_text("<ASAP_Annotations>", encoding="utf-8")
    (tmp_path / "d.xml").write_text("<Annotations />", encoding="utf-8")
    write_asap(tmp_path / "e.xml", ("_0", OUTLINES[0]))
    write_slide(tmp_path / "f.tif")
    write_asap(tmp_path / "f.xml", ("_0", OUTLINES[0]), ("_0", BOW_TIE))

    found = read(tmp_path)

    assert [field.name for field in found.fields if field.truths] == ["f"]
    assert found.repaired == 1
    first, second, dot, broken, foreign, absent = reasons(found)
    assert first == "a.xml, annotation 1: it lies wholly in what is cut out"
    assert second == "a.xml, annotation 2: it lies wholly in what is cut out"
    assert dot == "b.xml, annotation 1: it is no area but Dot"
    assert broken.startswith("c.xml: It is not XML (")
    assert foreign == "d.xml: It holds no annotations of ASAP: leave it out."
    assert absent.startswith("e.xml: its slide is not in ")


@pytest.mark.parametrize("number", ["NaN", "", "ten"])
def test_camelyons_coordinates_that_are_no_numbers_are_named(tmp_path: Path, number: str) -> None:
    write_slide(tmp_path / "a.tif")
    write_asap(tmp_path / "a.xml", ("_0", OUTLINES[0]), ("_0", OUTLINES[1]))
    text = (tmp_path / "a.xml").read_text(encoding="utf-8")
    x, y = shapely.get_coordinates(OUTLINES[1])[0]
    broken = text.replace(f'X="{x}" Y="{y}"', f'X="{number}" Y="{y}"')
    (tmp_path / "a.xml").write_text(broken, encoding="utf-8")

    found = read(tmp_path)

    assert len(found.fields[0].truths) == 1
    assert reasons(found)[0].startswith("a.xml, annotation 2: its coordinates are not all ")


# PAIP2019.


def write_mask(path: Path, outlines: Sequence[BaseGeometry], **how: Any) -> None:
    mask = np.zeros((HEIGHT_PX, WIDTH_PX), dtype=np.uint8)
    for outline in outlines:
        mask[inside_of(outline)] = 1
    shrink = how.pop("shrink", 1)
    tifffile.imwrite(path, mask[shrink // 2 :: shrink, shrink // 2 :: shrink], **how)


WHOLE, VIABLE = OUTLINES[2], ellipse(150, 180, 30, 20)


def write_paip(folder: Path, **how: Any) -> None:
    write_slide(folder / "01_01_0083.tif").rename(folder / "01_01_0083.svs")
    write_mask(folder / "01_01_0083_whole.tif", [WHOLE], **how)
    write_mask(folder / "01_01_0083_viable.tif", [VIABLE], **how)
    (folder / "01_01_0083.xml").write_text("<Annotations />", encoding="utf-8")


@pytest.mark.parametrize(
    "how",
    [
        {},
        {"compression": "zlib", "tile": (64, 64)},
        {"compression": "zlib", "rowsperstrip": 7},
        {"shrink": 2, "tile": (16, 16)},
    ],
)
@pytest.mark.parametrize("largest_px", [1 << 24, WIDTH_PX * HEIGHT_PX // 8])
def test_paips_masks_are_read_at_any_scale(
    tmp_path: Path, how: dict[str, Any], largest_px: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_paip(tmp_path, **how)
    monkeypatch.setattr(paip, "LARGEST_PX", largest_px)

    (field,) = read(tmp_path).fields

    assert [truth.class_name for truth in field.truths] == ["Viable tumour", "Whole tumour"]
    assert_drawn(field, [VIABLE, WHOLE], at_least=0.87)
    centres = [np.array(truth.l0_outline.centroid.coords[0]) for truth in field.truths]
    assert np.abs(np.array(centres) - (150, 180)).max() < 1
    assert field.group == "01_01_0083"


def test_viable_tumour_alone_may_be_asked_for(tmp_path: Path) -> None:
    write_paip(tmp_path)

    assert read(tmp_path, classes=("Viable tumour",)).classes == {"Viable tumour": 1}


def test_masks_of_paip_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    write_paip(tmp_path)
    (tmp_path / "01_01_0083_viable.tif").write_bytes(b"II*\0 and no more")
    write_slide(tmp_path / "b.tif")
    tifffile.imwrite(tmp_path / "b_whole.tif", np.ones((100, 100), dtype=np.uint8))
    write_mask(tmp_path / "c_whole.tif", [WHOLE])

    found = read(tmp_path)

    assert found.classes == {"Whole tumour": 1}
    broken, shape, absent = reasons(found)
    assert broken.startswith("01_01_0083_viable.tif: It cannot be read (")
    assert "b_whole.tif: It has 100 x 100 pixels, which is no scale of its slide" in shape
    assert absent.startswith("c: its slide is not in ")
