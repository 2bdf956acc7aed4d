"""Slides that are not where their project says, and where else they are looked for."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path, PurePosixPath, PureWindowsPath

import pytest

from fixtures.letters import OTHER_FORM, Form
from fixtures.project_files import image, make_project
from wsisam_qupath.errors import OptionError
from wsisam_qupath.qupath.files.locations import locations, parse_pure_path
from wsisam_qupath.qupath.files.reading import read_project

POSIX = pytest.mark.skipif(os.name == "nt", reason="paths of POSIX are not of this system")


@pytest.mark.parametrize(
    "uri",
    [
        "file:/old/x/a%20b%20%C3%BC.svs",
        "file:///old/x/a%20b%20%C3%BC.svs",
        "file:/C:/Old%20Slides/a%20b%20%C3%BC.svs",
        "file:///c:/old%20slides/a%20b%20%C3%BC.svs",
        "file:////server/share/a%20b%20%C3%BC.svs",
        "file://server/share/a%20b%20%C3%BC.svs",
    ],
)
def test_moved_slides_are_found_where_the_user_says(tmp_path: Path, slide: Path, uri: str) -> None:
    path = make_project(tmp_path / "p", [image(1, uri)])
    remap = [
        ("/old/x", str(slide.parent)),
        ("C:\\Old Slides\\", str(slide.parent)),
        ("//server/share", slide.parent.as_uri()),
    ]

    (found,) = read_project(path, remap=remap).images

    assert (found.slide, found.trouble) == (slide, None)
    assert found.uri == uri


@pytest.mark.parametrize(("stated", "asked"), OTHER_FORM)
def test_an_old_place_is_known_however_letters_are_composed(
    tmp_path: Path, slide: Path, stated: Form, asked: Form
) -> None:
    old = unicodedata.normalize(stated, f"/alte Prüfung/{slide.name}")
    path = make_project(tmp_path / "p", [image(1, f"file://{old.replace(' ', '%20')}")])
    remap = [(unicodedata.normalize(asked, "/alte Prüfung"), str(slide.parent))]

    (found,) = read_project(path, remap=remap).images

    assert found.slide == slide


def test_the_longest_old_place_wins(tmp_path: Path, slide: Path) -> None:
    path = make_project(tmp_path / "p", [image(1, "file:///old/x/y/a%20b%20ü.svs")])
    remap = [("/old", "/nowhere"), ("/old/x/y", str(slide.parent)), ("/old/x", "/nowhere")]

    assert read_project(path, remap=remap).images[0].slide == slide


def test_a_single_slide_can_be_moved(tmp_path: Path, slide: Path) -> None:
    path = make_project(tmp_path / "p", [image(1, "file:///old/name.svs")])

    assert read_project(path, remap=[("file:///old/name.svs", str(slide))]).images[0].slide == slide


def test_half_a_name_of_a_folder_is_none(tmp_path: Path, slide: Path) -> None:
    path = make_project(tmp_path / "p", [image(1, "file:///old/slides2/a%20b%20ü.svs")])

    (found,) = read_project(path, remap=[("/old/slides", str(slide.parent))]).images

    assert found.slide is None


def test_what_the_user_says_wins_over_what_is_there(tmp_path: Path, slide: Path) -> None:
    path = make_project(tmp_path / "p", [image(1, slide)])

    (found,) = read_project(path, remap=[(str(slide.parent), str(tmp_path / "new"))]).images

    assert found.trouble is not None
    assert str(tmp_path / "new" / slide.name) in found.trouble


@pytest.mark.parametrize(("old", "new"), [("", "/x"), ("/x", ""), ("https://host/x", "/x")])
def test_a_remap_that_names_no_folders(tmp_path: Path, old: str, new: str) -> None:
    path = make_project(tmp_path)

    with pytest.raises(OptionError, match="does not name two folders"):
        read_project(path, remap=[(old, new)])


@pytest.mark.parametrize(
    ("old_project", "old_slide"),
    [
        ("file:/gone/study/p/project.qpproj", "file:///gone/study/slides/a%20b%20ü.svs"),
        ("file:/C:/study/p/project.qpproj", "file:/c:/Study/slides/a%20b%20%C3%BC.svs"),
        ("file:/C:/p/project.qpproj", "file:/C:/slides/a%20b%20%C3%BC.svs"),
        ("file:////srv/share/p/project.qpproj", "file:////srv/share/slides/a%20b%20%C3%BC.svs"),
    ],
)
def test_slides_that_moved_with_their_project_are_found(
    tmp_path: Path, slide: Path, old_project: str, old_slide: str
) -> None:
    path = make_project(tmp_path / "p", [image(1, old_slide)], uri=old_project)

    (found,) = read_project(path).images

    assert found.slide == slide


@pytest.mark.parametrize(
    "uri", ["file:/D:/p/project.qpproj", "file:/p/project.qpproj", "?", "s3://x"]
)
def test_a_slide_that_was_elsewhere_did_not_move_along(
    tmp_path: Path, slide: Path, uri: str
) -> None:
    path = make_project(tmp_path / "p", [image(1, "file:/C:/slides/a%20b%20ü.svs")], uri=uri)

    assert read_project(path).images[0].slide is None


@POSIX
def test_posix_paths_can_be_moved_to_windows() -> None:
    places = locations(Path("/p"), None, [("/mnt/slides", "D:\\slides")])

    assert places.moves == ((PurePosixPath("/mnt/slides"), PureWindowsPath("D:\\slides")),)


@pytest.mark.parametrize(
    ("location", "path"),
    [
        ("/a b/x.svs", PurePosixPath("/a b/x.svs")),
        ("file:/a%20b/x.svs", PurePosixPath("/a b/x.svs")),
        ("file://localhost/x.svs", PurePosixPath("/x.svs")),
        ("C:\\a\\x.svs", PureWindowsPath("C:/a/x.svs")),
        ("c:/a/x.svs", PureWindowsPath("C:/A/X.SVS")),
        ("file:///C:/a/x.svs", PureWindowsPath("C:/a/x.svs")),
        ("\\\\server\\share\\x.svs", PureWindowsPath("//server/share/x.svs")),
        ("file:////server/share/x.svs", PureWindowsPath("//server/share/x.svs")),
        ("file://server/share/x.svs", PureWindowsPath("//server/share/x.svs")),
    ],
)
def test_a_location_tells_the_system_that_it_is_of(
    location: str, path: PurePosixPath | PureWindowsPath
) -> None:
    assert parse_pure_path(location) == path


@pytest.mark.parametrize("old", ["Z:", "Z:\\", "z:/"])
def test_a_drive_alone_is_all_of_it(tmp_path: Path, slide: Path, old: str) -> None:
    path = make_project(tmp_path / "p", [image(1, "file:/Z:/a%20b%20%C3%BC.svs")])

    (found,) = read_project(path, remap=[(old, str(slide.parent))]).images

    assert found.slide == slide


@POSIX
def test_a_slide_is_found_whose_letters_are_decomposed(tmp_path: Path) -> None:
    on_disk = tmp_path / unicodedata.normalize("NFD", "Präparat.svs")
    on_disk.write_bytes(b"x")
    stated = (tmp_path / unicodedata.normalize("NFC", "Präparat.svs")).as_uri()
    path = make_project(tmp_path / "p", [image(1, stated)])

    (found,) = read_project(path).images

    assert found.slide == on_disk
