"""Open data sets, read from the folders that torch-em's loaders fill."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image
from shapely import affinity
from shapely.geometry import box
from shapely.geometry.base import BaseGeometry

from fixtures.open_sets import (
    FIRST,
    LUMENS,
    SECOND,
    SLIDE_MPP,
    SLIDES,
    THIRD,
    save,
    write_open_set,
    write_tevg,
)
from fixtures.training_data import (
    HEIGHT_PX,
    MPP,
    OUTLINES,
    WIDTH_PX,
    assert_drawn,
    overlap,
    read,
    reasons,
    tissue_of,
)
from wsisam_qupath.errors import PromptError
from wsisam_qupath_training.dataset import AnnotatedImage
from wsisam_qupath_training.sources import open_data
from wsisam_qupath_training.sources.collection import read_collection
from wsisam_qupath_training.sources.open_sets import OPEN_SETS
from wsisam_qupath_training.splits import group_by_part
from wsisam_qupath_training.toml_files import read_toml

RECIPE = Path(__file__).parents[3] / "training" / "recipes" / "open-tissue.toml"

DRAWN = {
    "camelyon16": {"metastasis": [FIRST, THIRD]},
    "camelyon17": {"metastasis": [FIRST, THIRD]},
    "crc_epithelium": {"epithelium": [SECOND, FIRST, THIRD]},
    "gleason2019": {
        "Gleason pattern 3": [FIRST],
        "Gleason pattern 4": [SECOND],
        "Gleason pattern 5": [THIRD],
    },
    "hashi": {"invasive cancer": [SECOND, FIRST]},
    "ocelot": {"cancer area": [FIRST, THIRD]},
    "tevg": {
        "arteriole": [FIRST],
        "arteriole lumen": [LUMENS[0]],
        "venule": [SECOND],
        "venule lumen": [LUMENS[1]],
        "nerve trunk": [THIRD],
    },
    "tiger": {"invasive tumor": [FIRST], "in-situ tumor": [THIRD], "healthy gland": [SECOND]},
}
"""Classes and outlines of the first image, in the order in which masks are read, row by row."""

GROUPS = {
    "camelyon16": ["tumor_001", "tumor_002"],
    "camelyon17": ["patient_004", "patient_009"],
    "crc_epithelium": ["crc_epithelium", "crc_epithelium"],
    "gleason2019": ["ZT76", "ZT80", "ZT111"],
    "hashi": ["8863_idx5", "a_idx8", "12749_idx5", "TCGA-A1-A0SK"],
    "ocelot": ["TCGA-BB-0002", "TCGA-AA-0001", "TCGA-AA-0001"],
    "tevg": ["011", "004", "004"],
    "tiger": ["TCGA-A1-A0SK", "100B", "100B"],
}
"""Patients of the images, in their order."""


def entry(name: str, *more: str) -> str:
    """What a collection says of a set."""
    lines = [f'folder = "{name}"', f'torch_em = "{name}"', *more]
    if name in SLIDES:
        lines.append(f"slides = {list(SLIDES[name])}")
    elif OPEN_SETS[name].mpp is None:
        lines.append(f"mpp = {4.0 if name == 'hashi' else MPP}")
    return "[[dataset]]\n" + "\n".join(lines) + "\n"


def write_collection(folder: Path, *entries: str) -> Path:
    file = folder / "open.toml"
    file.write_text("".join(entries), encoding="utf-8")
    return file


def scale(outline: BaseGeometry, factor: int) -> BaseGeometry:
    return affinity.scale(outline, factor, factor, origin=(0, 0))


def read_set(folder: Path, name: str, *more: str) -> tuple[AnnotatedImage, ...]:
    write_open_set(folder / name, name)
    return read(write_collection(folder, entry(name, *more))).images


@pytest.mark.parametrize("name", OPEN_SETS)
def test_each_set_is_read_from_the_layout_of_its_loader(tmp_path: Path, name: str) -> None:
    image = read_set(tmp_path, name)[0]

    expected = DRAWN[name]
    classes = [truth.class_name for truth in image.truths]
    assert classes == [one for one, outlines in expected.items() for _ in outlines]
    with image.slide.open() as slide:
        factor = slide.width_px // WIDTH_PX
    outlines = [scale(outline, factor) for drawn in expected.values() for outline in drawn]
    assert_drawn(image, outlines, at_least=0.96)


@pytest.mark.parametrize("name", OPEN_SETS)
def test_patients_are_told_by_what_the_set_says(tmp_path: Path, name: str) -> None:
    assert [image.group for image in read_set(tmp_path, name)] == GROUPS[name]


def test_pixel_sizes_are_those_of_the_source_or_of_the_collection(tmp_path: Path) -> None:
    (known, *_) = read_set(tmp_path / "a", "tiger")
    (stated, *_) = read_set(tmp_path / "b", "tiger", "mpp = 0.47")
    (camelyon, *_) = read_set(tmp_path / "c", "camelyon16")

    assert (known.slide.mpp, stated.slide.mpp) == (0.5, 0.47)
    with camelyon.slide.open() as slide:
        assert slide.mpp.x == pytest.approx(SLIDE_MPP)


def test_where_nobody_annotated_nothing_is_background(tmp_path: Path) -> None:
    whole, _, half = read_set(tmp_path, "ocelot")

    assert (whole.name, half.name) == ("601", "401")
    assert whole.l0_complete is None
    assert half.l0_complete is not None
    assert overlap(half.l0_complete, box(0, 0, WIDTH_PX // 2, HEIGHT_PX)) > 0.99


def test_images_with_the_same_name_are_told_apart_by_their_folders(tmp_path: Path) -> None:
    names = [image.name for image in read_set(tmp_path, "crc_epithelium")]

    assert names == ["HE/Cancer/A001-4", "HE/Normal mucosa/A001-4"]


def test_crumbs_of_a_mask_are_no_objects(tmp_path: Path) -> None:
    write_open_set(tmp_path / "ocelot", "ocelot")
    mask = tmp_path / "ocelot" / "ocelot2023_v1.0.1" / "annotations" / "test" / "tissue" / "601.png"
    marks = np.array(Image.open(mask))
    marks[5:15, 300:310] = 2
    Image.fromarray(marks).save(mask)

    found = read(write_collection(tmp_path, entry("ocelot")))

    assert found.classes == {"cancer area": 6}
    assert found.notes == ("ocelot: left out 1 region of masks that is smaller than 30 µm.",)


def test_damaged_files_are_named_and_the_others_are_read(tmp_path: Path) -> None:
    write_tevg(tmp_path / "tevg")
    masks = tmp_path / "tevg" / "fold_1" / "train" / "mask"
    (masks / "004_0247.png").write_bytes(b"\x89PNG and no more")
    Image.new("L", (10, 10)).save(masks / "004_0250.png")
    save(masks.with_name("img") / "004_0300.jpg", tissue_of(OUTLINES))

    found = read(write_collection(tmp_path, entry("tevg")))

    assert [image.name for image in found.images] == ["011_0123"]
    broken, size, absent = reasons(found)
    assert broken.startswith("004_0247: it cannot be used (")
    assert "it has 10 x 10 pixels, and its image has 320 x 240" in size
    assert absent == "004_0300: there is no mask of it"


def test_damaged_slides_are_named_and_the_others_are_read(tmp_path: Path) -> None:
    write_open_set(tmp_path / "camelyon16", "camelyon16")
    raw = tmp_path / "camelyon16" / "raw" / "CAMELYON16"
    (raw / "tumor_001_mask.tif").write_bytes(b"II*\0 and no more")
    collection = write_collection(tmp_path, entry("camelyon16"))

    found = read(collection)

    assert [image.name for image in found.images] == ["tumor_002"]
    assert reasons(found)[0].startswith("tumor_001: it cannot be used (It cannot be read (")

    tifffile.imwrite(raw / "tumor_001_mask.tif", np.ones((100, 100), dtype=np.uint8))
    (mask_of_another,) = reasons(read(collection))
    assert "its mask has 100 x 100 pixels, and it has 320 x 240" in mask_of_another


def test_large_masks_of_slides_are_read_coarser(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(open_data, "LARGEST_PX", WIDTH_PX * HEIGHT_PX // 4)

    image = read_set(tmp_path, "camelyon16")[0]

    assert_drawn(image, [FIRST, THIRD], at_least=0.9)
    fine = [len(truth.l0_outline.exterior.coords) for truth in image.truths]
    monkeypatch.undo()
    assert fine < [
        len(t.l0_outline.exterior.coords) for t in read_set(tmp_path, "camelyon16")[0].truths
    ]


def test_without_its_table_ocelot_is_never_split(tmp_path: Path) -> None:
    write_open_set(tmp_path / "ocelot", "ocelot")
    (tmp_path / "ocelot" / "ocelot2023_v1.0.1" / "metadata.json").unlink()
    collection = write_collection(tmp_path, entry("ocelot"))

    assert {image.group for image in read(collection).images} == {"ocelot"}

    (tmp_path / "ocelot" / "ocelot2023_v1.0.1" / "metadata.json").write_text("[]")
    with pytest.raises(PromptError, match="is no table of OCELOT's images"):
        read(collection)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ('torch_em = "rings"', "rings is none of camelyon16, camelyon17, "),
        ('torch_em = "tevg"', "state mpp: the µm/px of tevg is not known here"),
        ('torch_em = "ocelot"\nclass = "gland"', "class_name says nothing of an open set"),
        (
            'torch_em = "ocelot"\nslides = ["a"]',
            "slides says nothing of a set that comes as a whole",
        ),
        ('torch_em = "camelyon16"', "name the slides that are wanted, as slides"),
        ('slides = ["a"]', "slides says nothing without torch_em"),
    ],
)
def test_entries_that_make_no_sense_are_refused(tmp_path: Path, more: str, message: str) -> None:
    with pytest.raises(PromptError, match=message):
        read(write_collection(tmp_path, f'[[dataset]]\nfolder = "a"\n{more}\n'))


def test_a_folder_that_holds_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "ocelot").mkdir()

    with pytest.raises(PromptError, match="ocelot holds no images where torch-em puts them"):
        read(write_collection(tmp_path, entry("ocelot")))


def test_a_collection_may_say_its_own_patients(tmp_path: Path) -> None:
    images = read_set(tmp_path, "tevg", "group_pattern = '^(\\d\\d)'", 'test = ["01"]')

    assert [(image.group, image.part) for image in images] == [
        ("01", "test"),
        ("00", "train"),
        ("00", "train"),
    ]


def test_nested_objects_may_be_asked_for_by_several_points(tmp_path: Path) -> None:
    images = read_set(tmp_path, "tevg", "least_points = 3")

    assert [image.least_points for image in images] == [3, 3, 3]


def test_the_collection_that_ships_is_read_and_each_part_has_images(tmp_path: Path) -> None:
    """With the folders that it names filled, in little."""
    shutil.copy(RECIPE, tmp_path)
    entries = read_toml(RECIPE)["dataset"]
    for one in entries:
        write_open_set(tmp_path / one["folder"], one["torch_em"], one.get("slides"))

    found = read_collection(tmp_path / RECIPE.name)

    assert {image.dataset for image in found.dataset.images} == {one["folder"] for one in entries}
    by_part = group_by_part(found.dataset.images)
    parts = {part: {image.dataset for image in images} for part, images in by_part.items()}
    assert parts["train"] >= {"camelyon16", "camelyon17", "gleason2019"}
    assert parts["val"] >= {"camelyon16", "gleason2019"}
    assert parts["test"] >= {"camelyon16", "camelyon17", "gleason2019"}
