"""Collections of datasets, as they are read to train on."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from training_data import (
    HEIGHT_PX,
    OUTLINES,
    REGION,
    WIDTH_PX,
    make_field,
    overlap,
    read,
)
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
