"""Formats that are recognized, options that are refused, patients and splits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fixtures.training_data import read
from wsisam_qupath.errors import OptionError, PromptError
from wsisam_qupath_training.sources.reading import recognize_format
from wsisam_qupath_training.splits import write_split


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

        assert recognize_format(folder) == expected


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"truth": "_mask.png"}, "truth: has no meaning for data of the format export"),
        ({"mpp": 1000.0}, "mpp: 1000 is out of range"),
        ({"val_share": 0.7, "test_share": 0.7}, "together at most 1"),
        ({"format": "dicom"}, "format: dicom is none of export, project"),
        ({"groups": Path("x"), "group_pattern": "x"}, "give one of both"),
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


@pytest.mark.parametrize("group_by_table", [True, False])
def test_patients_are_told_by_table_or_pattern(
    tmp_path: Path, export: Path, group_by_table: bool
) -> None:
    how = {"groups": patients(tmp_path)} if group_by_table else {"group_pattern": "^([ab]?)"}

    found = read(export, **how)

    assert [image.group for image in found.images] == (["p", "p"] if group_by_table else ["a", "b"])


def test_a_split_is_reused(tmp_path: Path, export: Path) -> None:
    found = read(export, seed=3)
    write_split(tmp_path / "split.tsv", found.images)

    again = read(export, split=tmp_path / "split.tsv", seed=4)

    assert again.images == found.images


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
