"""A QuPath project is read, or refused with what is wrong with it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from fixtures.project_files import contents, image, make_project, metadata
from wsisam_qupath.errors import ProjectError
from wsisam_qupath.geometry import Mpp
from wsisam_qupath.qupath.files.entries import ImageEntry
from wsisam_qupath.qupath.files.reading import read_project


def refusal(path: Path) -> str:
    """Why a project is not read; what lies beside it stays as it is."""
    folder = path if path.is_dir() else path.parent
    before = contents(folder)
    with pytest.raises(ProjectError) as caught:
        read_project(path)
    assert contents(folder) == before
    return str(caught.value)


def test_an_image_that_was_saved_states_size_scale_and_planes(tmp_path: Path, slide: Path) -> None:
    stated = metadata(size_px=(4000, 3000), mpp=(0.25, 0.5), planes=(5, 2))
    path = make_project(tmp_path / "project", [image(7, slide, name="A", metadata=stated)])

    project = read_project(path)

    assert project.path == path
    assert project.version == "0.6.0"
    assert project.images == (
        ImageEntry(
            id="7",
            name="A",
            folder=tmp_path / "project" / "data" / "7",
            uri=slide.as_uri(),
            slide=slide,
            mpp=Mpp(0.25, 0.5),
            size_px=(4000, 3000),
            z_count=5,
            t_count=2,
        ),
    )


def test_the_folder_stands_for_its_project(tmp_path: Path) -> None:
    path = make_project(tmp_path / "Größe und Maß", file_name="Studie ß.qpproj")

    assert read_project(path.parent) == read_project(path)


def test_a_path_may_be_relative(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make_project(tmp_path)
    monkeypatch.chdir(tmp_path)

    assert read_project("project.qpproj").path == path


def test_a_project_may_have_no_images(tmp_path: Path) -> None:
    assert read_project(make_project(tmp_path)).images == ()


def test_images_keep_the_order_of_the_project(tmp_path: Path, slide: Path) -> None:
    path = make_project(tmp_path / "p", [image(number, slide) for number in (3, 1, 2)])

    assert [found.id for found in read_project(path).images] == ["3", "1", "2"]


def test_several_images_may_have_one_name(tmp_path: Path, slide: Path) -> None:
    path = make_project(tmp_path / "p", [image(n, slide, name="same") for n in (1, 2)])

    assert [found.name for found in read_project(path).images] == ["same", "same"]


def test_a_byte_order_mark_is_no_harm(tmp_path: Path) -> None:
    path = make_project(tmp_path)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())

    assert read_project(path).version == "0.6.0"


@pytest.mark.parametrize(
    ("stated", "version"),
    [
        ("0.7.0", "0.7.0"),
        ("0.6.0-rc1", "0.6.0-rc1"),
        ("v0.2.0-m3", "0.2.0-m3"),
        ("0.7.0-SNAPSHOT", "0.7.0-SNAPSHOT"),
        ("0.5", "0.5"),
    ],
)
def test_versions_of_known_formats_are_read(tmp_path: Path, stated: str, version: str) -> None:
    assert read_project(make_project(tmp_path, version=stated)).version == version


def test_a_project_that_is_not_there(tmp_path: Path) -> None:
    path = tmp_path / "project.qpproj"

    assert refusal(path) == f"There is no project {path}: check the name and the folder."


@pytest.mark.parametrize("name", ["no folder", "a\0b.qpproj", "x" * 5000])
def test_a_path_that_leads_nowhere(tmp_path: Path, name: str) -> None:
    with pytest.raises(ProjectError):
        read_project(tmp_path / name)


def test_a_project_that_qupath_had_half_replaced_is_in_its_backup(tmp_path: Path) -> None:
    path = make_project(tmp_path)
    path.rename(tmp_path / "project.qpproj.backup")

    for place in (path, tmp_path):
        assert "copy that to project.qpproj" in refusal(place)


def test_a_folder_without_a_project(tmp_path: Path) -> None:
    assert refusal(tmp_path) == (
        f"There is no QuPath project (.qpproj) in {tmp_path}: pass the folder or the file of one."
    )


def test_a_folder_with_two_projects(tmp_path: Path) -> None:
    for name in ("a.qpproj", "b.qpproj"):
        make_project(tmp_path, file_name=name)

    assert refusal(tmp_path) == (
        f"{tmp_path} holds 2 projects (a.qpproj, b.qpproj): pass the one you mean."
    )


def test_a_slide_is_no_project(slide: Path) -> None:
    assert refusal(slide).startswith(f"{slide} is not a QuPath project: pass the file that ends in")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is damaged or cut short (not JSON)"),
        (b"\0" * 512, "is damaged or cut short (not JSON)"),
        (b'{"version": "0.6.0", "images": [{"entryID": 1', "is damaged or cut short (not JSON)"),
        (b'{"version": "0.6.0" "images": []}', "is damaged (not JSON)"),
        (b"[" * 100_000, "is damaged or cut short (not JSON)"),
        (b'{"lastID": ' + b"1" * 5000 + b"}", "is damaged (not JSON)"),
        ('{"version": "0.6.0", "images": [], "uri": "ü"}'.encode("latin-1"), "(not UTF-8 text)"),
    ],
    ids=["empty", "zeros", "cut short", "no comma", "deep", "long number", "latin-1"],
)
def test_a_damaged_project(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "project.qpproj"
    path.write_bytes(content)

    message = refusal(path)

    assert message.startswith(f"The project {path} ")
    assert words in message
    assert message.endswith("put back a backup of yours.")


def test_a_damaged_project_names_the_backup_that_qupath_keeps(tmp_path: Path) -> None:
    path = make_project(tmp_path)
    (tmp_path / "project.qpproj.backup").write_bytes(path.read_bytes())
    path.write_bytes(path.read_bytes()[:-20])

    assert refusal(path).endswith(
        "QuPath keeps the one from before its last save in project.qpproj.backup; copy that to "
        "project.qpproj."
    )


@pytest.mark.parametrize(
    "content", ["[]", "1", "null", "{}", '{"version": "0.6.0"}', '{"images": {}}']
)
def test_json_without_a_list_of_images_is_no_project(tmp_path: Path, content: str) -> None:
    path = tmp_path / "project.qpproj"
    path.write_text(content)

    assert refusal(path).startswith(f"{path} is not a QuPath project, for it lists no images")


@pytest.mark.parametrize(
    ("version", "words"),
    [
        (None, "does not say which QuPath wrote it: open it in QuPath 0.6 and save it."),
        (6, "does not say which QuPath wrote it: open it in QuPath 0.6 and save it."),
        ("newest", "says that QuPath 'newest' wrote it, which is no version"),
        ("v0.2.0-m1", "newer ones cannot read it"),
        ("v0.2.0-m2", "newer ones cannot read it"),
        ("0.1.2", "newer ones cannot read it"),
        ("0.8.0", "newer than this program knows (0.7): update wsisam-qupath."),
        ("v0.10.1-rc2", "newer than this program knows (0.7): update wsisam-qupath."),
        ("1.0.0", "newer than this program knows (0.7): update wsisam-qupath."),
    ],
)
def test_a_version_that_is_not_known(tmp_path: Path, version: object, words: str) -> None:
    path = make_project(tmp_path, version=version)

    message = refusal(path)

    assert words in message
    assert str(path) in message


def test_images_that_share_an_id_would_overwrite_each_other(tmp_path: Path, slide: Path) -> None:
    path = make_project(tmp_path / "p", [image(1, slide), image(2, slide), image("1", slide)])

    assert "2 images of" in refusal(path)
    assert "(image 1, image 1): remove all but one" in refusal(path)


@pytest.mark.skipif(getattr(os, "geteuid", lambda: 0)() == 0, reason="root may read anything")
def test_a_project_that_may_not_be_read(tmp_path: Path) -> None:
    path = make_project(tmp_path)
    path.chmod(0)

    with pytest.raises(ProjectError, match="check that you may read it"):
        read_project(path)


def test_reading_leaves_no_trace(tmp_path: Path, slide: Path) -> None:
    path = make_project(tmp_path / "p", [image(1, slide), {"entryID": 2}])
    before = contents(path.parent)

    read_project(path)

    assert contents(path.parent) == before
    assert json.loads(before["project.qpproj"])["version"] == "0.6.0"
