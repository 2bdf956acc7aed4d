from __future__ import annotations

import os
import shutil
import stat
from dataclasses import replace
from pathlib import Path

import pytest

from fixtures.disks import small_disk
from fixtures.project_files import (
    QPDATA_HEAD,
    QPDATA_TAIL,
    ROI_OBJECT_CLASS,
    contents,
    image,
    make_project,
    save_data,
)
from wsisam_qupath.errors import ImageError, ProjectError
from wsisam_qupath.qupath.files.entries import ImageEntry, Project
from wsisam_qupath.qupath.files.integrity import (
    FileVersion,
    FileVersions,
    check_count,
    check_data,
    check_writable_image,
    check_writable_project,
    find_damaged_notes,
    read_versions,
)
from wsisam_qupath.qupath.files.reading import read_project

WITH_OBJECTS = QPDATA_HEAD + ROI_OBJECT_CLASS + QPDATA_TAIL

NO_ROOT = pytest.mark.skipif(
    getattr(os, "geteuid", lambda: 0)() == 0, reason="the administrator may do anything"
)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """Two images, of which the first was saved with two objects and the root."""
    slide = tmp_path / "slide.svs"
    slide.touch()
    path = make_project(
        tmp_path / "Prüfung 1", [image(1, slide, name="A ü.svs"), image(2, slide)], classes=[]
    )
    save_data(path, 1, n_objects=3, qpdata=WITH_OBJECTS)
    return read_project(path)


@pytest.fixture
def entry(project: Project) -> ImageEntry:
    return project.images[0]


@pytest.fixture
def unopened(project: Project) -> ImageEntry:
    return project.images[1]


def refusal(project: Project, entry: ImageEntry) -> str:
    """Why the objects of an image are not read; nothing is changed by looking."""
    before = contents(project.folder)
    with pytest.raises(ImageError) as caught:
        check_data(entry)
    assert contents(project.folder) == before
    message = str(caught.value)
    assert message.startswith("A ü.svs: ")
    return message


def is_believed(entry: ImageEntry, stated: int | None, loaded: int) -> bool:
    """Whether the objects that were read are taken for all that there are."""
    try:
        check_count(entry, stated, loaded)
    except ImageError:
        return False
    return True


def test_stamps_name_the_state_of_both_files(project: Project, entry: ImageEntry) -> None:
    os.utime(project.path, ns=(1, 1_700_000_000_123_456_700))
    os.utime(entry.qpdata, ns=(1, 1_600_000_000_000_000_100))

    assert read_versions(project, entry) == FileVersions(
        FileVersion(1_700_000_000_123_456_700, project.path.stat().st_size),
        FileVersion(1_600_000_000_000_000_100, len(WITH_OBJECTS)),
    )


def test_a_file_of_other_size_or_time_has_another_stamp(
    project: Project, entry: ImageEntry
) -> None:
    first = read_versions(project, entry)
    times = (entry.qpdata.stat().st_atime_ns, entry.qpdata.stat().st_mtime_ns)

    entry.qpdata.write_bytes(WITH_OBJECTS + b"x")
    os.utime(entry.qpdata, ns=times)
    longer = read_versions(project, entry)
    os.utime(project.path, ns=(0, 0))
    older = read_versions(project, entry)

    assert len({first, longer, older}) == 3


def test_an_image_without_objects_has_no_stamp_of_them(
    project: Project, unopened: ImageEntry
) -> None:
    assert read_versions(project, unopened).qpdata is None


def test_where_qupath_has_the_project_open_only_the_image_has_a_stamp(
    project: Project, entry: ImageEntry
) -> None:
    with_project = read_versions(project, entry)
    project.path.unlink()  # as QuPath does for a moment, whenever it saves

    assert read_versions(project, entry, with_project=False) == replace(with_project, project=None)


def test_a_project_that_goes_away_has_no_stamps(project: Project, entry: ImageEntry) -> None:
    project.path.unlink()

    with pytest.raises(ProjectError, match="is no longer there") as caught:
        read_versions(project, entry)

    assert not isinstance(caught.value, ImageError)


def test_a_whole_image_tells_its_count(entry: ImageEntry) -> None:
    assert check_data(entry) == 3


def test_an_image_that_was_never_opened_is_ordinary(unopened: ImageEntry) -> None:
    assert check_data(unopened) is None
    assert is_believed(unopened, None, 1)


@pytest.mark.parametrize(
    ("damaged", "words"),
    [
        (b"", "is empty"),
        (b"\xac\xed", "is not what QuPath writes"),
        (b"\xac\xed\x00\x05", "is cut short"),
        (WITH_OBJECTS[:-1], "is cut short"),
        (WITH_OBJECTS[: len(WITH_OBJECTS) // 2], "is cut short"),
        (WITH_OBJECTS + b"\0" * 100, "is cut short"),
        (b"\0" * 5000, "is not what QuPath writes"),
        (b"these are my annotations\n", "is not what QuPath writes"),
        (b'{"type": "FeatureCollection"}', "is not what QuPath writes"),
    ],
    ids=["empty", "2 bytes", "head", "last byte", "half", "zeros after", "zeros", "text", "JSON"],
)
def test_damaged_objects_are_not_read(
    project: Project, entry: ImageEntry, damaged: bytes, words: str
) -> None:
    entry.qpdata.write_bytes(damaged)

    assert refusal(project, entry) == (
        f"A ü.svs: {entry.qpdata} {words}. Put back a copy of it from a backup of yours."
    )


def test_the_newest_copy_beside_damaged_objects_is_named(
    project: Project, entry: ImageEntry
) -> None:
    for date in ("20250102-101112Z", "20251121-101112Z"):
        (entry.folder / f"data-{date}.wsisam-backup.qpdata").write_bytes(WITH_OBJECTS)
    entry.qpdata.write_bytes(b"")

    assert refusal(project, entry).endswith(
        "is empty. Put back a copy of it: data-20251121-101112Z.wsisam-backup.qpdata in the same "
        "folder, or a backup of yours."
    )


@pytest.mark.parametrize("qpdata", [WITH_OBJECTS, b"", None])
def test_a_save_that_qupath_did_not_end_is_left_to_qupath(
    project: Project, entry: ImageEntry, qpdata: bytes | None
) -> None:
    entry.qpdata.rename(entry.folder / "data.qpdata.bkp")
    if qpdata is not None:
        entry.qpdata.write_bytes(qpdata)

    assert refusal(project, entry) == (
        "A ü.svs: QuPath was stopped while it saved the image, for "
        f"{entry.folder / 'data.qpdata.bkp'} is still there. Open the image in QuPath, look "
        "whether its objects are right, and save it."
    )


def test_objects_that_are_counted_but_gone(project: Project, entry: ImageEntry) -> None:
    entry.qpdata.unlink()

    assert f"{entry.qpdata} is gone, but summary.json counts 3 objects" in refusal(project, entry)


def test_a_folder_in_the_place_of_the_objects(project: Project, entry: ImageEntry) -> None:
    entry.qpdata.unlink()
    entry.qpdata.mkdir()

    assert "check that it is a file of its own that you may read" in refusal(project, entry)


@NO_ROOT
def test_objects_that_may_not_be_read(entry: ImageEntry) -> None:
    entry.qpdata.chmod(0)

    with pytest.raises(ImageError, match="check that it is a file of its own that you may read"):
        check_data(entry)


@pytest.mark.parametrize(
    "summary",
    [None, b"", b"{", b"[]", b'{"hierarchy": 3}', b'{"hierarchy": {"nObjects": "3"}}', b"\xff"],
)
def test_a_summary_that_counts_nothing(entry: ImageEntry, summary: bytes | None) -> None:
    entry.summary.unlink()
    if summary is not None:
        entry.summary.write_bytes(summary)

    assert check_data(entry) is None


@pytest.mark.parametrize("loaded", [1, 2, 4])
def test_other_objects_than_counted_are_refused(entry: ImageEntry, loaded: int) -> None:
    with pytest.raises(ImageError) as caught:
        check_count(entry, 3, loaded)

    assert str(caught.value) == (
        f"A ü.svs: {entry.qpdata} reads as {loaded} objects, but summary.json counts 3. Open the "
        "image in QuPath and save it if its objects are right, else put back a copy of it from a "
        "backup of yours."
    )


def test_as_many_objects_as_counted_are_right(entry: ImageEntry) -> None:
    assert is_believed(entry, 3, 3)


def test_objects_that_nobody_counted_but_that_are_there_must_be_read(entry: ImageEntry) -> None:
    with pytest.raises(ImageError, match="holds objects, but reads as if it held none"):
        check_count(entry, None, 1)


def test_what_nobody_counted_may_be_empty_or_read(entry: ImageEntry) -> None:
    assert is_believed(entry, None, 3)
    entry.qpdata.write_bytes(QPDATA_HEAD + b"a long history of edits" * 10_000 + QPDATA_TAIL)
    assert is_believed(entry, None, 1)


def test_an_ordinary_project_can_be_written(project: Project, entry: ImageEntry) -> None:
    before = contents(project.folder)

    check_writable_project(project)
    for found in project.images:
        check_writable_image(found)

    assert contents(project.folder) == before


@pytest.mark.parametrize(
    "name", [".", "data", "wsisam-qupath", "project.qpproj", "classifiers/classes.json"]
)
def test_a_read_only_project_is_refused(project: Project, name: str) -> None:
    path = project.folder / name
    project.own_folder.mkdir()
    mode = path.stat().st_mode
    if os.name == "nt" and path.is_dir():
        pytest.skip("folders of Windows are not made read-only by a flag")
    path.chmod(mode & ~0o222)

    with pytest.raises(ProjectError) as caught:
        check_writable_project(project)

    path.chmod(mode)
    assert str(caught.value) == (
        f"The project {project.path} cannot be written, for {path} is write-protected: "
        "change its permissions, or work on a copy of the project."
    )


@pytest.mark.parametrize("name", ["data.qpdata", "summary.json"])
def test_read_only_objects_are_left_alone(entry: ImageEntry, name: str) -> None:
    path = entry.folder / name
    path.chmod(stat.S_IRUSR)

    with pytest.raises(ImageError) as caught:
        check_writable_image(entry)

    path.chmod(stat.S_IRUSR | stat.S_IWUSR)
    assert str(caught.value) == (
        f"A ü.svs: {path} is write-protected: change its permissions, or leave the image out."
    )


def test_a_full_disk_is_told_before_the_work(project: Project, tmp_path: Path) -> None:
    with small_disk(tmp_path, 1024) as disk:
        shutil.copytree(project.folder, disk / "p")
        copy = read_project(disk / "p")

        with pytest.raises(
            ProjectError, match=r"is full \(\d+ kB are free\): free some space on it"
        ):
            check_writable_project(copy)
        for found in copy.images:
            with pytest.raises(
                ImageError, match="saving it needs 4 MB on the project's disk, of which 0"
            ):
                check_writable_image(found)


@pytest.mark.parametrize("content", [b"", b'{"a": "b', b"null", b"[]"])
def test_a_project_that_qupath_was_stopped_while_saving_is_named(
    project: Project, content: bytes
) -> None:
    notes = project.folder / "data" / "metadata.json"
    notes.write_bytes(content)

    with pytest.raises(ProjectError) as caught:
        check_writable_project(project)

    assert str(caught.value) == (
        f"QuPath cannot open the project {project.path}, for it was stopped while it wrote "
        f"{notes}. Delete that file: it holds notes on the project as a whole, and neither images "
        "nor objects."
    )


def test_notes_on_a_project_are_no_hindrance(project: Project) -> None:
    (project.folder / "data" / "metadata.json").write_bytes(b'{"a": "b"}')
    check_writable_project(project)
    assert find_damaged_notes(project.files, project.folder) is None
