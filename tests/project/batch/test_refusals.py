"""No project, QuPath or disk to work with: a sentence, an exit code, and nothing changed."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fixtures.batch_projects import copy_of, words_of
from fixtures.command_line import Answer, run_here
from fixtures.disks import small_disk
from fixtures.project_files import (
    QPDATA_HEAD,
    QPDATA_TAIL,
    contents,
    image,
    make_project,
    metadata,
    save_data,
)
from fixtures.qupath_folders import make_qupath

pytestmark = pytest.mark.slow


def complaint(answer: Answer) -> str:
    """The one line of a command that could not start."""
    assert (answer.code, answer.out) == (2, ""), answer
    (line,) = words_of(answer)
    assert line.startswith("wsisam-qupath: ")
    assert len(line) < 500
    return line


# Nothing can start: no project

NO_PROJECT = {
    "text.txt": "is not a QuPath project: pass the file that ends in .qpproj, or its folder",
    "text.qpproj": "is damaged or cut short (not JSON): put back a backup",
    "empty.qpproj": "is damaged or cut short (not JSON): put back a backup",
    "cut.qpproj": "QuPath keeps the one from before its last save in cut.qpproj.backup",
    "list.qpproj": "is not a QuPath project, for it lists no images: pass another file",
    "newer.qpproj": "QuPath 0.9.0 wrote the project",
    "without images.qpproj": "has no images: add some in QuPath",
    "missing.qpproj": "There is no project",
    "leerer Ordner": "There is no QuPath project (.qpproj) in",
    "Ordner.qpproj": "There is no QuPath project (.qpproj) in",
    "": "holds 6 projects",
}


@pytest.fixture(scope="module")
def no_projects(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("no projects") / "Größe 1"
    whole = make_project(folder, [image(1, "file:/gone.tif")], file_name="cut.qpproj").read_text()
    texts = {
        "text.txt": "no project",
        "text.qpproj": "no project",
        "empty.qpproj": "",
        "cut.qpproj": whole[: len(whole) // 2],
        "cut.qpproj.backup": whole,
        "list.qpproj": "[1, 2]",
        "newer.qpproj": whole.replace("0.6.0", "0.9.0"),
        "without images.qpproj": json.dumps({"version": "0.6.0", "images": []}),
    }
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    (folder / "leerer Ordner").mkdir()
    (folder / "Ordner.qpproj").mkdir()
    return folder


@pytest.mark.parametrize("name", NO_PROJECT)
def test_what_is_no_project_is_refused(
    no_projects: Path, name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    before = contents(no_projects)

    assert NO_PROJECT[name] in complaint(run_here(capfd, "batch", no_projects / name))

    assert contents(no_projects) == before


# Nothing can start: no QuPath, or the project cannot be written. No Java is needed for these.


@pytest.fixture
def sound(tissue_path: Path, tmp_path: Path) -> Path:
    """A project in which nothing is wrong, as far as can be seen without QuPath."""
    slide = image(1, tissue_path, metadata=metadata(size_px=(512, 512)))
    project = make_project(tmp_path / "Prüfung 1", [slide])
    save_data(project, 1)
    return project


@pytest.fixture
def like_qupath(tmp_path: Path) -> dict[str, str]:
    """Variables that have a QuPath found, which must not be started."""
    make_qupath(tmp_path / "QuPath-0.6.0")
    return {"PAQUO_QUPATH_DIR": str(tmp_path / "QuPath-0.6.0")}


def test_without_qupath_the_ways_to_get_it_are_named(
    sound: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    before = contents(sound.parent)

    answer = run_here(
        capfd,
        "batch",
        sound,
        PAQUO_QUPATH_DIR="",
        PAQUO_QUPATH_SEARCH_CONDA="false",
        PAQUO_QUPATH_SEARCH_DIRS=json.dumps([str(tmp_path)]),
    )

    assert "There is no QuPath where paquo looks for it. Run `wsisam-qupath setup`" in complaint(
        answer
    )
    assert contents(sound.parent) == before


def test_a_wrong_folder_of_qupath_is_named(
    sound: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    before = contents(sound.parent)

    answer = run_here(capfd, "batch", sound, PAQUO_QUPATH_DIR=str(tmp_path / "nichts"))

    assert (
        f"PAQUO_QUPATH_DIR, or qupath_dir in .paquo.toml, names {tmp_path / 'nichts'}, which "
        in (complaint(answer))
    )
    assert contents(sound.parent) == before


def test_a_qupath_that_is_too_old_is_refused(
    sound: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    make_qupath(tmp_path / "QuPath", "0.3.2")
    before = contents(sound.parent)

    answer = run_here(capfd, "batch", sound, PAQUO_QUPATH_DIR=str(tmp_path / "QuPath"))

    assert "is 0.3.2, which is too old: install 0.5.1 or newer" in complaint(answer)
    assert contents(sound.parent) == before


@pytest.mark.parametrize("options", [["--mpp", "0"], ["--mpp", "nan"]])
def test_a_scale_that_cannot_be_is_refused(
    sound: Path, options: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    before = contents(sound.parent)

    assert "give µm per pixel, from 0.01 to 100" in complaint(
        run_here(capfd, "batch", sound, *options)
    )

    assert contents(sound.parent) == before


@pytest.mark.skipif(sys.platform == "win32", reason="Windows' folders have no such mode")
def test_a_project_that_its_owner_protected_is_not_touched(
    sound: Path, like_qupath: dict[str, str], capfd: pytest.CaptureFixture[str]
) -> None:
    before = contents(sound.parent)
    sound.parent.chmod(0o555)
    try:
        answer = run_here(capfd, "batch", sound, **like_qupath)
    finally:
        sound.parent.chmod(0o755)

    assert f"cannot be written, for {sound.parent} is write-protected: change its" in complaint(
        answer
    )
    assert contents(sound.parent) == before


def test_a_project_on_a_read_only_disk_is_refused(
    sound: Path, like_qupath: dict[str, str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with read_only(sound.parent, tmp_path / "nur lesen") as folder:
        line = complaint(run_here(capfd, "batch", folder / sound.name, **like_qupath))

    assert f"cannot be written, for {folder} is write-protected: change its permissions, or" in line


@contextmanager
def read_only(folder: Path, at: Path) -> Iterator[Path]:
    """The same folder at another place, where nobody can write; skips where it cannot be had."""
    at.mkdir()
    bind = ["mount", "--bind", str(folder), str(at)]
    if sys.platform != "linux" or subprocess.run(bind, capture_output=True, check=False).returncode:
        pytest.skip("only root can mount a folder as read-only, and on Linux only")
    try:
        subprocess.run(["mount", "-o", "remount,ro,bind", str(at)], check=True)
        yield at
    finally:
        subprocess.run(["umount", str(at)], check=True)


def test_a_full_disk_is_refused(
    sound: Path, like_qupath: dict[str, str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with small_disk(tmp_path, size_kib=2048) as disk:
        project = copy_of(sound, disk / "Projekt")
        before = contents(disk)

        line = complaint(run_here(capfd, "batch", project, **like_qupath))

        assert contents(disk) == before
    assert "kB are free): free some space on it." in line


@pytest.mark.skipif(sys.platform == "win32", reason="Windows' folders have no such mode")
def test_an_image_that_cannot_be_written_fails_before_it_is_read(
    sound: Path, like_qupath: dict[str, str], capfd: pytest.CaptureFixture[str]
) -> None:
    data = sound.parent / "data" / "1"
    before = contents(data)
    data.chmod(0o555)
    try:
        answer = run_here(capfd, "batch", sound, **like_qupath)
    finally:
        data.chmod(0o755)

    assert (answer.code, answer.out) == (3, "")
    assert f"image 1: failed. {data} is write-protected: change its permissions, or leave" in (
        answer.err
    )
    assert contents(data) == before


def test_an_image_that_the_disk_has_no_room_for_fails_before_it_is_read(
    sound: Path, like_qupath: dict[str, str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    save_data(sound, 1, qpdata=QPDATA_HEAD + bytes(3 << 19) + QPDATA_TAIL)
    with small_disk(tmp_path, size_kib=7 << 10) as disk:
        project = copy_of(sound, disk / "Projekt")
        before = contents(project.parent / "data")

        answer = run_here(capfd, "batch", project, **like_qupath)

        assert contents(project.parent / "data") == before
    assert (answer.code, answer.out) == (3, "")
    assert "image 1: failed. saving it needs 7 MB on the project's disk, of which 5 MB are" in (
        answer.err
    )
