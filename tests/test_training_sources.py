"""Every format gives the objects that were drawn; what cannot be used is named, never lost."""

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
from wsisam_qupath_training.fields import Dataset, Field
from wsisam_qupath_training.sources import paip
from wsisam_qupath_training.sources.reading import DatasetOptions, read_dataset, recognised
from wsisam_qupath_training.splits import write_split

from coco_files import coco
from training_data import (
    HEIGHT_PX,
    MPP,
    OUTLINES,
    WIDTH_PX,
    drawn,
    ellipse,
    glands,
    inside_of,
    make_export,
    make_field,
    overlap,
    write_geojson,
    write_slide,
)
from wsisam_qupath.errors import OptionError, PromptError, SlideError
from wsisam_qupath.export.command import Exported, ExportRequest
from wsisam_qupath.geometry import Mpp
from wsisam_qupath.manifest import Manifest, write_manifest

BOW_TIE = Polygon([(10, 10), (60, 60), (60, 10), (10, 60)])
PIXEL = box(100, 100, 101, 101)
FAR = ellipse(5000, 5000, 30, 30)
REGION = box(20, 20, 300, 230)


def read(path: Path, **options: Any) -> Dataset:
    return read_dataset(path, options=DatasetOptions(**options)).dataset


def reasons(dataset: Dataset) -> list[str]:
    return [f"{case.id}: {case.reason}" for case in dataset.damaged]


def assert_drawn(field: Field, outlines: Sequence[BaseGeometry], at_least: float = 0.999) -> None:
    """Whether a field's objects are these, in this order."""
    assert len(field.truths) == len(outlines)
    for truth, outline in zip(field.truths, outlines, strict=True):
        assert truth.l0_outline.is_valid
        assert overlap(truth.l0_outline, outline) >= at_least


@pytest.fixture
def slides(tmp_path: Path) -> Path:
    """Two slides at 0.5 µm/px."""
    for name in ("a.tif", "b.tif"):
        write_slide(tmp_path / "slides" / name)
    return tmp_path / "slides"


@pytest.fixture
def export(tmp_path: Path, slides: Path) -> Path:
    """An export of both."""
    return make_export(
        tmp_path / "export", {"a.tif": glands(), "b.tif": glands(OUTLINES[:1])}, slides=slides
    )


# An export.


def test_an_export_gives_outlines_classes_groups_and_scale(export: Path, slides: Path) -> None:
    found = read_dataset(export)

    a, b = found.dataset.fields
    assert_drawn(a, OUTLINES)
    assert_drawn(b, OUTLINES[:1])
    assert found.dataset.classes == {"Gland": 4}
    assert (a.name, a.dataset, a.group) == ("a.tif", "export", "a")
    assert a.slide.location == str(slides / "a.tif")
    assert a.slide.mpp == Mpp(MPP, MPP)
    assert {a.part, b.part} == {"train", "val"}
    assert found.weights == {"export": 1.0}
    assert found.dataset.damaged == ()


def test_the_manifest_itself_may_be_named(export: Path) -> None:
    assert read(export / "manifest.json") == read(export)


def test_regions_say_where_all_is_annotated(tmp_path: Path, slides: Path) -> None:
    regions = [drawn(REGION, "Region*"), drawn(box(290, 0, 320, 40), "Region*")]
    folder = make_export(
        tmp_path / "export", {"a.tif": [*glands(), *regions], "b.tif": glands()}, slides=slides
    )

    a, b = read(folder).fields

    assert a.l0_complete is not None
    assert a.l0_complete.equals(REGION.union(box(290, 0, 320, 40)))
    assert len(a.truths) == 3
    assert b.l0_complete is None


def test_two_images_of_one_slide_are_one_group(tmp_path: Path, slides: Path) -> None:
    folder = make_export(tmp_path / "export", {"a.tif": glands()}, slides=slides)
    document = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    again = {**document["images"][0], "id": "2", "name": "again", "file": "again.geojson"}
    document["images"].append(again)
    (folder / "manifest.json").write_text(json.dumps(document), encoding="utf-8")
    write_geojson(folder / "again.geojson", glands())

    first, second = read(folder).fields

    assert first.group == second.group
    assert first.name != second.name
    assert first.part == second.part == "train"


def test_slides_that_moved_are_found_by_remap(tmp_path: Path, export: Path, slides: Path) -> None:
    moved = slides.rename(tmp_path / "moved")

    found = read(export, remap=((str(slides), str(moved)),))

    assert [Path(f.slide.location).parent for f in found.fields] == [moved, moved]


def test_slides_that_moved_are_found_by_their_names(
    tmp_path: Path, export: Path, slides: Path
) -> None:
    moved = tmp_path / "deep" / "below"
    moved.parent.mkdir()
    slides.rename(moved)

    found = read(export, slides=tmp_path / "deep")

    assert [f.slide.location for f in found.fields] == [
        str(moved / "a.tif"),
        str(moved / "b.tif"),
    ]


def test_missing_slides_are_named_and_the_others_used(export: Path, slides: Path) -> None:
    (slides / "b.tif").unlink()

    found = read(export)

    assert [field.name for field in found.fields] == ["a.tif"]
    (reason,) = reasons(found)
    assert reason.startswith("b.tif: Its slide ")
    assert reason.endswith("say with --remap OLD=NEW which folder is now where.")


def test_without_any_slide_there_is_nothing_to_learn_from(export: Path, slides: Path) -> None:
    for slide in slides.iterdir():
        slide.unlink()

    with pytest.raises(PromptError, match=r"no objects that can be used: 2 damaged, first a\.tif"):
        read(export)


def test_a_folder_of_slides_that_is_not_there_is_said(tmp_path: Path, export: Path) -> None:
    with pytest.raises(SlideError, match=r"There is no folder .*absent"):
        read(export, slides=tmp_path / "absent")


def test_an_empty_export_is_refused(tmp_path: Path) -> None:
    write_manifest(tmp_path, Manifest(()))

    with pytest.raises(
        PromptError, match=r"is an export without images\. Export the"
    ):
        read(tmp_path)


def test_an_export_without_objects_is_refused(tmp_path: Path, slides: Path) -> None:
    folder = make_export(tmp_path / "export", {"a.tif": []}, slides=slides)

    with pytest.raises(PromptError, match=r"no objects that can be used\. Draw outlines"):
        read(folder)


def test_classes_that_nobody_drew_are_refused_with_those_that_are_there(export: Path) -> None:
    with pytest.raises(PromptError, match=r"no objects of class Tumor. There are Gland \(4\)"):
        read(export, classes=("Tumor",))


def test_other_classes_are_left_out_where_some_are_asked_for(tmp_path: Path, slides: Path) -> None:
    features = [drawn(OUTLINES[0], "Gland"), drawn(OUTLINES[1], "Vessel"), drawn(OUTLINES[2], None)]
    folder = make_export(tmp_path / "export", {"a.tif": features}, slides=slides)

    assert read(folder).classes == {"Gland": 1, "Vessel": 1, "Unclassified": 1}
    (field,) = read(folder, classes=("Vessel",)).fields
    assert_drawn(field, OUTLINES[1:2])


def test_images_without_scale_are_named_with_the_cure(tmp_path: Path, slides: Path) -> None:
    write_slide(slides / "c.png")
    folder = make_export(
        tmp_path / "export", {"a.tif": glands(), "c.png": glands()}, slides=slides, mpp=None
    )

    found = read(folder)

    assert [field.name for field in found.fields] == ["a.tif"]
    (reason,) = reasons(found)
    assert "states no µm per pixel. Pass --mpp" in reason


def test_an_export_of_images_without_scale_alone_is_refused_with_the_cure(tmp_path: Path) -> None:
    write_slide(tmp_path / "c.png")
    folder = make_export(tmp_path / "export", {"c.png": glands()}, slides=tmp_path, mpp=None)

    with pytest.raises(PromptError, match=r"states no µm per pixel\. Pass --mpp"):
        read(folder)


def test_mpp_is_for_the_images_that_state_none(tmp_path: Path, slides: Path) -> None:
    write_slide(slides / "c.png")
    folder = make_export(
        tmp_path / "export", {"a.tif": glands(), "c.png": glands()}, slides=slides, mpp=None
    )

    found = read(folder, mpp=0.25)

    scales = [field.slide.open().mpp.x for field in found.fields]
    assert scales == pytest.approx([MPP, 0.25], rel=1e-6)


def test_objects_of_a_pixel_and_those_off_the_slide_are_named(tmp_path: Path, slides: Path) -> None:
    folder = make_export(
        tmp_path / "export", {"a.tif": glands([*OUTLINES, PIXEL, FAR])}, slides=slides
    )

    found = read(folder)

    assert_drawn(found.fields[0], OUTLINES)
    pixel, far = reasons(found)
    assert pixel.startswith("a.tif, object ")
    assert pixel.endswith("it has fewer than 9 pixels")
    assert far.endswith("it lies outside of the slide")


def test_objects_that_reach_over_the_edge_stay_whole(tmp_path: Path, slides: Path) -> None:
    over = ellipse(WIDTH_PX, 100, 40, 40)
    folder = make_export(tmp_path / "export", {"a.tif": glands([over])}, slides=slides)

    assert_drawn(read(folder).fields[0], [over])


def test_outlines_that_cross_themselves_are_repaired_and_counted(
    tmp_path: Path, slides: Path
) -> None:
    folder = make_export(
        tmp_path / "export", {"a.tif": glands([BOW_TIE, OUTLINES[1]])}, slides=slides
    )

    found = read(folder)

    assert found.repaired == 1
    outline = found.fields[0].truths[0].l0_outline
    assert outline.is_valid
    assert outline.area == pytest.approx(2 * 50 * 25 / 2)


def test_objects_that_overlap_are_both_kept(tmp_path: Path, slides: Path) -> None:
    both = [ellipse(100, 100, 40, 30), ellipse(120, 110, 40, 30)]
    folder = make_export(tmp_path / "export", {"a.tif": glands(both)}, slides=slides)

    assert_drawn(read(folder).fields[0], both)


def test_coordinates_that_are_no_numbers_are_named(export: Path) -> None:
    broken = drawn(OUTLINES[0]) | {"id": "broken"}
    broken["geometry"] = {"type": "Polygon", "coordinates": [[[0, 0], [math.nan, 9], [9, 9]]]}
    write_geojson(export / "a.tif.geojson", [broken, drawn(OUTLINES[1])])

    found = read(export)

    assert reasons(found) == ["a.tif, broken: its coordinates are not all finite"]
    assert_drawn(found.fields[0], OUTLINES[1:2])


def test_a_damaged_geojson_is_named_and_the_other_images_used(export: Path) -> None:
    (export / "a.tif.geojson").write_text("{", encoding="utf-8")

    found = read(export)

    assert [field.name for field in found.fields] == ["b.tif"]
    assert "is not JSON" in reasons(found)[0]


def test_a_damaged_slide_is_named_and_the_other_images_used(export: Path, slides: Path) -> None:
    (slides / "a.tif").write_bytes(b"no slide at all")

    found = read(export)

    assert [field.name for field in found.fields] == ["b.tif"]
    assert "a.tif is damaged or in no format" in reasons(found)[0]


def test_a_scale_that_cannot_be_is_named(tmp_path: Path, slides: Path) -> None:
    folder = make_export(tmp_path / "export", {"a.tif": glands()}, slides=slides, mpp=5000.0)

    with pytest.raises(PromptError, match="--mpp 5000 is out of range"):
        read(folder)


def test_a_project_is_exported_and_read(
    tmp_path: Path, slides: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = tmp_path / "Study" / "project.qpproj"
    project.parent.mkdir()
    project.write_text("{}", encoding="utf-8")

    def export_without_qupath(request: ExportRequest) -> Exported:
        assert request.project == project
        return Exported(make_export(request.out, {"a.tif": glands()}, slides=slides), Manifest(()))

    monkeypatch.setattr("wsisam_qupath.export.command.run_export", export_without_qupath)

    (field,) = read(project).fields

    assert_drawn(field, OUTLINES)
    assert field.dataset == "Study"


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


# Recognising, options and splits.


def test_what_is_no_data_is_refused_with_what_is(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("x", encoding="utf-8")

    for path in (tmp_path, tmp_path / "notes.txt"):
        with pytest.raises(PromptError, match=r"nothing to learn from. Understood are a folder"):
            read(path)


def test_a_path_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PromptError, match="check the name and the folder"):
        read(tmp_path / "absent")


def test_formats_are_told_apart_by_their_names(tmp_path: Path) -> None:
    cases = {
        "manifest.json": "export",
        "project.qpproj": "project",
        "CATCH.json": "coco",
        "a_instances.png": "masks",
        "a_whole.tif": "paip",
        "a.geojson": "geojson",
        "a.xml": "camelyon",
    }
    for name, expected in cases.items():
        folder = tmp_path / expected
        folder.mkdir()
        (folder / name).touch()

        assert recognised(folder) == expected


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"truth": "_mask.png"}, "--truth says nothing to data of the format export"),
        ({"mpp": 1000.0}, "--mpp 1000 is out of range"),
        ({"val_share": 0.7, "test_share": 0.7}, "together at most 1"),
        ({"format": "dicom"}, "dicom is no format. Use one of export, project"),
        ({"groups": Path("x"), "group_pattern": "x"}, "Pass one of them"),
    ],
)
def test_options_that_cannot_be_are_refused(
    export: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(OptionError, match=message):
        read(export, **options)


@pytest.mark.parametrize(
    ("pattern", "message"), [("(", "no regular expression"), ("x", "no group")]
)
def test_patterns_that_name_no_patient_are_refused(
    export: Path, pattern: str, message: str
) -> None:
    with pytest.raises(PromptError, match=message):
        read(export, group_pattern=pattern)


def patients(folder: Path) -> Path:
    """A table: both slides are of one patient."""
    table = folder / "patients.csv"
    table.write_text("a.tif;p\nb.tif;p\n", encoding="utf-8")
    return table


@pytest.mark.parametrize("by_table", [True, False])
def test_patients_are_told_by_table_or_pattern(
    tmp_path: Path, export: Path, by_table: bool
) -> None:
    how = {"groups": patients(tmp_path)} if by_table else {"group_pattern": "^([ab]?)"}

    found = read(export, **how)

    assert [field.group for field in found.fields] == (["p", "p"] if by_table else ["a", "b"])


def test_a_split_is_reused(tmp_path: Path, export: Path) -> None:
    found = read(export, seed=3)
    write_split(tmp_path / "split.tsv", found.fields)

    again = read(export, split=tmp_path / "split.tsv", seed=4)

    assert again.fields == found.fields


def test_a_split_that_names_no_slide_is_refused(tmp_path: Path, export: Path) -> None:
    split = tmp_path / "split.csv"
    split.write_text("x;train\ny;val\n", encoding="utf-8")

    with pytest.raises(PromptError, match=r"names none of the images, such as a\.tif"):
        read(export, split=split)


def test_a_patient_in_two_parts_is_refused(tmp_path: Path, export: Path) -> None:
    split = tmp_path / "split.csv"
    split.write_text("a.tif;train\nb.tif;val\n", encoding="utf-8")

    with pytest.raises(PromptError, match="p of export is in two parts of the split"):
        read(export, split=split, groups=patients(tmp_path))
