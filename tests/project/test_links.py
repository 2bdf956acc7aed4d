"""Links, pipes and second names in a project that was received: nothing outside is touched."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from fixtures.images import NEW, Image, image
from fixtures.project_files import contents
from wsisam_qupath.errors import ImageError, WsiSamError
from wsisam_qupath.project.commit import commit, make_staging_path, recover, restore
from wsisam_qupath.project.history import History, Written
from wsisam_qupath.project.journal import Journal
from wsisam_qupath.project.lock import project_lock
from wsisam_qupath.prompts.results import SerializedResult
from wsisam_qupath.qupath.files.classes import add_classes, read_class_names
from wsisam_qupath.qupath.files.integrity import (
    check_data,
    check_writable_image,
    check_writable_project,
)
from wsisam_qupath.qupath.values import Staged

__all__ = ["image"]  # fixture

pytestmark = pytest.mark.skipif(os.name == "nt", reason="links need rights on Windows")

IN_IMAGE = (
    "data.qpdata",
    "summary.json",
    "data.qpdata.wsisam-new",
    "data.qpdata.wsisam-new.backup",
    "data.qpdata.wsisam-copy",
    "data.qpdata.wsisam-commit",
    "data.qpdata.wsisam-commit-new",
    "summary.json.wsisam-new",
    "data-20991231-235959Z.wsisam-backup.qpdata",
    "data-20991231-235959Z.wsisam-backup.summary.json",
)
IN_PROJECT = (
    "wsisam-qupath",
    "wsisam-qupath/lock",
    "wsisam-qupath/lock.json",
    "wsisam-qupath/journal",
    "wsisam-qupath/journal/7.jsonl",
    "wsisam-qupath/ledger",
    "wsisam-qupath/ledger/7.json",
    "classifiers",
    "classifiers/classes.json",
    "data",
    "data/7",
    *(f"data/7/{name}" for name in IN_IMAGE),
)


def everything(image: Image) -> list[Callable[[], object]]:
    """All that writes into a project or reads its files, without Java."""
    project, entry = image.project, image.entry

    def lock() -> None:
        with project_lock(project, what="batch"):
            pass

    def journal() -> None:
        with Journal(project, entry, "slide") as found:
            found.read()
            found.append([SerializedResult("result", "prompt", None, "nothing")])
            found.clear()

    def ledger() -> None:
        found = History(project, entry)
        found.read()
        found.add([Written("r", "p", "1", None, "detection")], {})

    def change() -> None:
        with entry.files.create(make_staging_path(entry)) as file:
            file.write(NEW)
        commit(project, entry, Staged(make_staging_path(entry), 5, {}), image.versions)
        restore(entry, 1)

    return [
        lock,
        journal,
        ledger,
        change,
        lambda: recover(entry),
        lambda: check_data(entry),
        lambda: check_writable_image(entry),
        lambda: check_writable_project(project),
        lambda: read_class_names(project),
        lambda: add_classes(project, {"Tumor": 1, "New": 2}),
    ]


def put(path: Path, make: Callable[[Path], object]) -> None:
    """Something in the place of a file or folder; what was there goes beside it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists():
        path.rename(path.with_name(f"{path.name}.real"))
    make(path)


@pytest.mark.parametrize("name", IN_PROJECT)
@pytest.mark.parametrize("leads", ["to a file", "to a folder", "nowhere"])
def test_a_link_in_a_project_changes_nothing_outside(
    image: Image, tmp_path: Path, name: str, leads: str
) -> None:
    outside = tmp_path / "outside"
    (outside / "7").mkdir(parents=True)
    (outside / "thesis.txt").write_bytes(b"months of work")
    (outside / "7" / "data.qpdata").write_bytes(b"another project's")
    before = contents(outside)
    target = {"to a file": "thesis.txt", "to a folder": "."}.get(leads, "not-there")
    put(image.project.folder / name, lambda path: path.symlink_to(outside / target))

    for use in everything(image):
        with suppress(WsiSamError, OSError):  # OSError: of this test's own making of the new file
            use()

    assert contents(outside) == before


@pytest.mark.parametrize("name", IN_PROJECT)
def test_a_pipe_in_a_project_is_never_waited_for(image: Image, name: str) -> None:
    pipe = image.project.folder / name
    put(pipe, os.mkfifo)

    for use in everything(image):
        with suppress(WsiSamError, OSError):
            use()

    # It stays where it is, or goes as a remnant of ours does; nothing is written in its place.
    assert pipe.is_fifo() or not pipe.exists()


@pytest.mark.parametrize("name", ["data", "data/7"])
def test_a_pipe_in_place_of_an_images_folder_is_one_sentence(image: Image, name: str) -> None:
    put(image.project.folder / name, os.mkfifo)

    with pytest.raises(ImageError, match=r"data\.qpdata cannot be read \(Not a directory\): check"):
        check_writable_image(image.entry)


@pytest.mark.parametrize("name", IN_PROJECT)
def test_a_second_name_of_a_file_outside_leaves_that_as_it_is(
    image: Image, tmp_path: Path, name: str
) -> None:
    thesis = tmp_path / "thesis.txt"
    thesis.write_bytes(b"months of work")
    put(image.project.folder / name, lambda path: os.link(thesis, path))

    for use in everything(image):
        with suppress(WsiSamError, OSError):
            use()

    assert thesis.read_bytes() == b"months of work"


def test_links_are_named_before_the_work_starts(image: Image, tmp_path: Path) -> None:
    put(image.entry.qpdata, lambda path: path.symlink_to(tmp_path / "elsewhere"))
    with pytest.raises(WsiSamError, match=r"data\.qpdata is a link, and links in a project are"):
        check_writable_image(image.entry)

    put(image.project.own_folder, lambda path: path.symlink_to(tmp_path))
    with pytest.raises(WsiSamError, match="wsisam-qupath is a link: links in a project are not"):
        check_writable_project(image.project)
