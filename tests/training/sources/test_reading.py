"""An export gives what was drawn; what cannot be used is named, never lost in silence."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from shapely.geometry import box

from fixtures.training_data import (
    BOW_TIE,
    MPP,
    OUTLINES,
    REGION,
    WIDTH_PX,
    assert_drawn,
    drawn,
    ellipse,
    glands,
    make_export,
    read,
    reasons,
    write_geojson,
    write_slide,
)
from wsisam_qupath.errors import PromptError, SlideError
from wsisam_qupath.geojson.manifest import Manifest, write_manifest
from wsisam_qupath.geometry import Mpp
from wsisam_qupath.project.create.command import CreateRequest, run_create
from wsisam_qupath.qupath.jvm.process import QuPathProcess
from wsisam_qupath_training.sources.reading import read_dataset

PIXEL = box(100, 100, 101, 101)
FAR = ellipse(5000, 5000, 30, 30)


def test_an_export_gives_outlines_classes_groups_and_scale(export: Path, slides: Path) -> None:
    found = read_dataset(export)

    a, b = found.dataset.images
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

    a, b = read(folder).images

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

    first, second = read(folder).images

    assert first.group == second.group
    assert first.name != second.name
    assert first.part == second.part == "train"


def test_slides_that_moved_are_found_by_remap(tmp_path: Path, export: Path, slides: Path) -> None:
    moved = slides.rename(tmp_path / "moved")

    found = read(export, remap=((str(slides), str(moved)),))

    assert [Path(f.slide.location).parent for f in found.images] == [moved, moved]


def test_slides_that_moved_are_found_by_their_names(
    tmp_path: Path, export: Path, slides: Path
) -> None:
    moved = tmp_path / "deep" / "below"
    moved.parent.mkdir()
    slides.rename(moved)

    found = read(export, slides=tmp_path / "deep")

    assert [f.slide.location for f in found.images] == [
        str(moved / "a.tif"),
        str(moved / "b.tif"),
    ]


def test_missing_slides_are_named_and_the_others_used(export: Path, slides: Path) -> None:
    (slides / "b.tif").unlink()

    found = read(export)

    assert [image.name for image in found.images] == ["a.tif"]
    (reason,) = reasons(found)
    assert reason.startswith("b.tif: Its slide ")
    assert reason.endswith("map its old folder to the one where it is now.")


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

    with pytest.raises(PromptError, match=r"is an export without images\. Export the"):
        read(tmp_path)


def test_an_export_without_objects_is_refused(tmp_path: Path, slides: Path) -> None:
    folder = make_export(tmp_path / "export", {"a.tif": []}, slides=slides)

    with pytest.raises(PromptError, match=r"no objects that can be used\. Outline some objects"):
        read(folder)


def test_classes_that_nobody_drew_are_refused_with_those_that_are_there(export: Path) -> None:
    with pytest.raises(PromptError, match=r"no objects of class Tumor. There are Gland \(4\)"):
        read(export, classes=("Tumor",))


def test_other_classes_are_left_out_where_some_are_asked_for(tmp_path: Path, slides: Path) -> None:
    features = [drawn(OUTLINES[0], "Gland"), drawn(OUTLINES[1], "Vessel"), drawn(OUTLINES[2], None)]
    folder = make_export(tmp_path / "export", {"a.tif": features}, slides=slides)

    assert read(folder).classes == {"Gland": 1, "Vessel": 1, "Unclassified": 1}
    (image,) = read(folder, classes=("Vessel",)).images
    assert_drawn(image, OUTLINES[1:2])


def test_images_without_scale_are_named_with_the_cure(tmp_path: Path, slides: Path) -> None:
    write_slide(slides / "c.png")
    folder = make_export(
        tmp_path / "export", {"a.tif": glands(), "c.png": glands()}, slides=slides, mpp=None
    )

    found = read(folder)

    assert [image.name for image in found.images] == ["a.tif"]
    (reason,) = reasons(found)
    assert "states no pixel size: give its µm per pixel as mpp" in reason


def test_an_export_of_images_without_scale_alone_is_refused_with_the_cure(tmp_path: Path) -> None:
    write_slide(tmp_path / "c.png")
    folder = make_export(tmp_path / "export", {"c.png": glands()}, slides=tmp_path, mpp=None)

    with pytest.raises(PromptError, match=r"states no pixel size: give its µm per pixel as mpp"):
        read(folder)


def test_mpp_is_for_the_images_that_state_none(tmp_path: Path, slides: Path) -> None:
    write_slide(slides / "c.png")
    folder = make_export(
        tmp_path / "export", {"a.tif": glands(), "c.png": glands()}, slides=slides, mpp=None
    )

    found = read(folder, mpp=0.25)

    scales = [image.slide.open().mpp.x for image in found.images]
    assert scales == pytest.approx([MPP, 0.25], rel=1e-6)


def test_objects_of_a_pixel_and_those_off_the_slide_are_named(tmp_path: Path, slides: Path) -> None:
    folder = make_export(
        tmp_path / "export", {"a.tif": glands([*OUTLINES, PIXEL, FAR])}, slides=slides
    )

    found = read(folder)

    assert_drawn(found.images[0], OUTLINES)
    pixel, far = reasons(found)
    assert pixel.startswith("a.tif, object ")
    assert pixel.endswith("it has fewer than 9 pixels")
    assert far.endswith("it lies outside of the slide")


def test_objects_that_reach_over_the_edge_stay_whole(tmp_path: Path, slides: Path) -> None:
    over = ellipse(WIDTH_PX, 100, 40, 40)
    folder = make_export(tmp_path / "export", {"a.tif": glands([over])}, slides=slides)

    assert_drawn(read(folder).images[0], [over])


def test_outlines_that_cross_themselves_are_repaired_and_counted(
    tmp_path: Path, slides: Path
) -> None:
    folder = make_export(
        tmp_path / "export", {"a.tif": glands([BOW_TIE, OUTLINES[1]])}, slides=slides
    )

    found = read(folder)

    assert found.repaired == 1
    outline = found.images[0].truths[0].l0_outline
    assert outline.is_valid
    assert outline.area == pytest.approx(2 * 50 * 25 / 2)


def test_objects_that_overlap_are_both_kept(tmp_path: Path, slides: Path) -> None:
    both = [ellipse(100, 100, 40, 30), ellipse(120, 110, 40, 30)]
    folder = make_export(tmp_path / "export", {"a.tif": glands(both)}, slides=slides)

    assert_drawn(read(folder).images[0], both)


def test_coordinates_that_are_no_numbers_are_named(export: Path) -> None:
    broken = drawn(OUTLINES[0]) | {"id": "broken"}
    broken["geometry"] = {"type": "Polygon", "coordinates": [[[0, 0], [math.nan, 9], [9, 9]]]}
    write_geojson(export / "a.tif.geojson", [broken, drawn(OUTLINES[1])])

    found = read(export)

    assert reasons(found) == ["a.tif, broken: its coordinates are not all finite"]
    assert_drawn(found.images[0], OUTLINES[1:2])


def test_a_damaged_geojson_is_named_and_the_other_images_used(export: Path) -> None:
    (export / "a.tif.geojson").write_text("{", encoding="utf-8")

    found = read(export)

    assert [image.name for image in found.images] == ["b.tif"]
    assert "is not JSON" in reasons(found)[0]


def test_a_damaged_slide_is_named_and_the_other_images_used(export: Path, slides: Path) -> None:
    (slides / "a.tif").write_bytes(b"no slide at all")

    found = read(export)

    assert [image.name for image in found.images] == ["b.tif"]
    assert "a.tif is damaged or in no format" in reasons(found)[0]


def test_a_scale_that_cannot_be_is_named(tmp_path: Path, slides: Path) -> None:
    folder = make_export(tmp_path / "export", {"a.tif": glands()}, slides=slides, mpp=5000.0)

    with pytest.raises(PromptError, match="mpp: 5000 is out of range"):
        read(folder)


def test_slides_of_a_server_are_found_by_the_names_of_their_images(
    export: Path, slides: Path
) -> None:
    manifest = export / "manifest.json"
    document = json.loads(manifest.read_text(encoding="utf-8"))
    document["images"][0]["uri"] = "https://omero.example/webclient/?show=image-1"
    manifest.write_text(json.dumps(document), encoding="utf-8")

    assert len(read(export, slides=slides).images) == 2
    assert "is not in a folder: download it" in reasons(read(export))[0]


@pytest.mark.qupath
def test_a_project_of_qupath_is_read_as_its_export_would_be(
    tmp_path: Path, qupath: QuPathProcess
) -> None:
    write_slide(tmp_path / "slides" / "a.tif")
    annotations = tmp_path / "annotations"
    annotations.mkdir()
    write_geojson(annotations / "a.geojson", [*glands(), drawn(REGION, "Region*")])
    made = run_create(CreateRequest(tmp_path / "Study", (str(tmp_path / "slides"),), annotations))

    (image,) = read(made.project).images

    assert_drawn(image, OUTLINES, at_least=0.99)
    assert (image.dataset, image.group) == ("Study", "a")
    assert image.l0_complete is not None
    assert image.l0_complete.equals(REGION)
