"""Collections of datasets, as they are read to train on."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fixtures.training_data import HEIGHT_PX, OUTLINES, REGION, WIDTH_PX, make_image, overlap, read
from wsisam_qupath.errors import OptionError, PromptError
from wsisam_qupath_training.sources.collection import read_collection
from wsisam_qupath_training.sources.reading import read_dataset


def write_collection(folder: Path, *entries: str) -> Path:
    """Tables of a collection, of the folders beside it."""
    file = folder / "all.toml"
    file.write_text("".join(f"[[dataset]]\n{one}\n" for one in entries), encoding="utf-8")
    return file


@pytest.fixture
def collection(tmp_path: Path) -> Path:
    """Two folders of label masks, one with patients by table and one by name."""
    for name in ("1", "2", "3"):
        make_image(tmp_path / "glas", name)
    groups = [{"name": name, "patient": int(name) % 2} for name in "123"]
    (tmp_path / "glas" / "fields.json").write_text(json.dumps(groups), encoding="utf-8")
    make_image(tmp_path / "fat", "m1-a", outlines=OUTLINES[:1])
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
    assert [(f.dataset, f.name, f.group, f.part) for f in found.dataset.images] == [
        ("glas", "1", "1", "test"),
        ("glas", "2", "0", "train"),
        ("glas", "3", "1", "test"),
        ("fat", "m1-a", "m1", "train"),
    ]
    assert found.dataset.images[0].slide.mpp == 0.62


def test_a_collection_is_checked_as_it_is_read(collection: Path) -> None:
    found = read_collection(collection).dataset

    assert read(collection) == replace(found, has_own_split=True)


def test_a_folder_may_be_left_out_of_a_collection(collection: Path) -> None:
    found = read_collection(collection, without=("glas",))

    assert found.weights == {"fat": 1.0}
    assert {image.dataset for image in found.dataset.images} == {"fat"}


def test_the_pixel_size_of_each_image_may_stand_in_the_table(tmp_path: Path) -> None:
    for name in ("1", "2"):
        make_image(tmp_path / "glas", name)
    rows = [{"name": "1", "group": "a", "um": 0.25}, {"name": "2", "group": "b", "um": "0.5"}]
    (tmp_path / "glas" / "index.json").write_text(json.dumps(rows), encoding="utf-8")
    file = write_collection(tmp_path, 'folder = "glas"\ngroups = "index.json"\nmpp_key = "um"')

    images = read(file).images

    assert [(image.name, image.slide.mpp) for image in images] == [("1", 0.25), ("2", 0.5)]
    assert [image.group for image in images] == ["a", "b"]


def test_a_folder_says_how_many_points_its_objects_need(tmp_path: Path) -> None:
    make_image(tmp_path / "lumina", "1")
    file = write_collection(tmp_path, 'folder = "lumina"\nmpp = 0.5\nleast_points = 3')

    assert [image.least_points for image in read(file).images] == [3]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"name": "1", "group": "a", "um": 0.25}, r"index\.json states no µm/px of 2\. Correct"),
        ({"name": "2", "group": "b", "um": "fine"}, r"states no µm/px of 2"),
        ({"name": "2", "group": "b", "um": 0}, r"states no µm/px of 2"),
        ({"name": "2", "group": "b", "um": "inf"}, r"states no µm/px of 2"),
        ({"name": "2", "group": "b"}, r'is no list of objects with "name" and "um"'),
    ],
)
def test_a_table_that_lacks_the_pixel_size_of_an_image_is_refused(
    tmp_path: Path, row: dict[str, object], message: str
) -> None:
    make_image(tmp_path / "glas", "2")
    (tmp_path / "glas" / "index.json").write_text(json.dumps([row]), encoding="utf-8")
    entry = 'folder = "glas"\ngroups = "index.json"\nmpp_key = "um"'
    if row["name"] != "2":  # the groups come from elsewhere, so that the pixel size is missed
        entry += "\none_group = true"

    with pytest.raises(PromptError, match=message):
        read(write_collection(tmp_path, entry))


@pytest.mark.parametrize("more", ["", 'groups = "index.json"\nmpp = 0.5'])
def test_a_key_of_pixel_sizes_needs_a_table_and_stands_alone(tmp_path: Path, more: str) -> None:
    make_image(tmp_path / "glas", "1")
    file = write_collection(tmp_path, f'folder = "glas"\nmpp_key = "um"\n{more}')

    with pytest.raises(PromptError, match="mpp_key names a key of the table groups"):
        read(file)


def test_where_masks_cover_all_may_be_said(tmp_path: Path) -> None:
    make_image(tmp_path / "crypts")
    covered = np.zeros((HEIGHT_PX, WIDTH_PX), dtype=np.uint8)
    covered[20:230, 20:300] = 255
    Image.fromarray(covered).save(tmp_path / "crypts" / "a_cover.png")
    file = write_collection(tmp_path, 'folder = "crypts"\ncover = "_cover.png"')

    (image,) = read(file).images

    assert image.l0_complete is not None
    assert overlap(image.l0_complete, REGION) > 0.99


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
    with pytest.raises(
        OptionError, match="slides: has no meaning for data of the format collection"
    ):
        read(collection, slides=collection.parent)
