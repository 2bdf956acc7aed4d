import unicodedata
from pathlib import Path

import pytest

from wsisam_qupath.files.names import name_key
from wsisam_qupath.slide.names import (
    find_best_match,
    find_existing,
    is_image_name,
    strip_format,
)


@pytest.mark.parametrize("name", ["a.TIF", "b.ome.tif", "c.jp2", "d.BMP", "e.dcm", "f.Svs"])
def test_every_format_is_known_in_any_case(name: str) -> None:
    assert is_image_name(name)
    assert strip_format(name) == name[0]


def test_hidden_files_are_no_images() -> None:
    assert not is_image_name("._a.jpg")


def test_composed_and_decomposed_names_are_the_same() -> None:
    composed = unicodedata.normalize("NFC", "Präparat.jpg")
    decomposed = unicodedata.normalize("NFD", composed)
    assert composed != decomposed
    assert name_key(composed) == name_key(decomposed)


@pytest.mark.parametrize(
    "location",
    [
        "images\\a.jpg",
        "images/a.jpg",
        "..\\..\\images\\A.JPG",
        "/data/upload/images/a.jpg",
        "C:\\data\\images\\a.jpg",
        "images%2Fa.jpg",
    ],
)
def test_a_path_of_another_computer_means_the_file_with_most_names_in_common(location: str) -> None:
    paths = [Path("/here/images/a.jpg"), Path("/here/other/a.jpg")]
    assert find_best_match(location, paths) == paths[0]


def test_two_files_that_agree_equally_are_none() -> None:
    assert find_best_match("a.jpg", [Path("/x/a.jpg"), Path("/y/a.jpg")]) is None


def test_a_file_is_found_whose_folder_is_spelled_otherwise(tmp_path: Path) -> None:
    folder = tmp_path / unicodedata.normalize("NFC", "Prüfung")
    folder.mkdir()
    (folder / "Slide.svs").touch()
    asked = tmp_path / unicodedata.normalize("NFD", "Prüfung") / "slide.svs"
    assert find_existing(asked) == folder / "Slide.svs"
    assert find_existing(tmp_path / "nothing" / "slide.svs") is None
    assert find_existing(tmp_path / ("x" * 5000)) is None
