from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from fixtures.disks import fill_up
from fixtures.images import (
    BACKUP,
    BACKUP_NAME,
    DATE,
    DATED_BACKUP,
    NEW,
    NEW_SUMMARY,
    OLD,
    OLD_SUMMARY,
    QUPATHS,
    Image,
    make_image,
)
from wsisam_qupath.errors import FormatError, ImageError, ProjectError
from wsisam_qupath.project.commit import commit, recover, restore
from wsisam_qupath.qupath.files.backups import compute_checksum, copy_synced, list_backups
from wsisam_qupath.qupath.files.entries import ImageEntry
from wsisam_qupath.qupath.files.integrity import read_versions


def test_a_commit_replaces_data_and_summary_and_keeps_the_old_ones(image: Image) -> None:
    backup = image.commit()

    assert backup is not None
    assert image.is_new
    assert backup.read_bytes() == OLD
    assert set(image.files) == {
        "data.qpdata",
        "summary.json",
        "thumbnail.jpg",
        backup.name,
        backup.with_suffix(".summary.json").name,
    }
    assert backup.with_suffix(".summary.json").read_bytes() == OLD_SUMMARY


def test_a_backup_is_named_by_number_command_and_time_in_utc(image: Image) -> None:
    before = time.strftime("%Y%m%d-%H%M%S", time.gmtime())

    backup = commit(
        image.project, image.entry, image.stage(), image.versions, command="project job"
    )

    after = time.strftime("%Y%m%d-%H%M%S", time.gmtime())
    assert backup is not None
    named, _, format_and_kind = backup.name.partition(".")
    assert (named[:23], format_and_kind) == ("data-0001-project-job-2", "wsisam-backup2.qpdata")
    assert before <= named[22:-1] <= after
    (listed,) = list_backups(image.entry)
    assert (listed.number, listed.command) == (1, "project job")
    assert f"{listed.time:%Y%m%d-%H%M%S}Z" == named[22:]


def test_an_image_without_data_gets_some_and_no_backup(image: Image) -> None:
    image.entry.qpdata.unlink()
    image.entry.summary.unlink()

    backup = image.commit()

    assert backup is None
    assert image.is_new
    assert set(image.files) == {"data.qpdata", "summary.json", "thumbnail.jpg"}


def content_of(number: int) -> bytes:
    return bytes([number]) * 100


def test_the_first_state_stays_for_ever_and_the_nine_newest(image: Image) -> None:
    for number in range(13):
        image.commit(content_of(number))

    kept = [(one, "batch", content_of(one - 2)) for one in range(5, 14)]
    assert image.states == [(1, "batch", OLD), *kept]
    assert sum("wsisam" in name for name in image.files) == 20


def test_states_that_take_much_room_are_the_first_and_the_three_newest(
    image: Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wsisam_qupath.qupath.files.backups.MORE_KEPT_BYTES", 350)
    for number in range(8):
        image.commit(content_of(number))
    assert [number for number, *_ in image.states] == [1, 6, 7, 8]

    monkeypatch.setattr("wsisam_qupath.qupath.files.backups.MORE_KEPT_BYTES", 450)
    image.commit(content_of(8))
    assert [number for number, *_ in image.states] == [1, 6, 7, 8, 9]


def test_a_new_backup_is_the_newest_whatever_the_clock_says(image: Image) -> None:
    for name in BACKUP:
        image.put(name.replace("2020", "2096").replace("0001", "0010"), b"later")

    backup = image.commit()

    assert backup is not None
    assert backup.name.startswith("data-0011-batch-202")
    assert [number for number, *_ in image.states] == [10, 11]


def test_backups_of_early_versions_get_numbers_that_stay(image: Image) -> None:
    times = ["20261121-145501Z", "20261121-145501Z-2", "20261121-145501Z-10", "20261122-000000Z"]
    for order, dated in enumerate(times):
        image.put(f"data-{dated}.wsisam-backup.qpdata", content_of(order))
        image.put(f"data-{dated}.wsisam-backup.summary.json", b"%d" % order)
    unknown = [(order + 1, "unknown", content_of(order)) for order in range(4)]
    assert image.states == unknown

    image.commit()

    assert image.states == [*unknown, (5, "batch", OLD)]
    assert not [name for name in image.files if name.endswith(".wsisam-backup.qpdata")]
    summaries = [one.summary.read_bytes() for one in list_backups(image.entry)]
    assert summaries == [b"0", b"1", b"2", b"3", OLD_SUMMARY]


def test_backups_of_a_newer_version_are_refused_and_left_alone(image: Image) -> None:
    image.put("data-3.of.something-else.wsisam-backup3.qpdata", b"new")
    before = image.files

    with pytest.raises(FormatError, match="is a backup in format 3, which a newer version"):
        image.commit()

    assert image.files == before


def test_foreign_files_are_never_pruned(image: Image) -> None:
    foreign = {
        name: name.encode()
        for name in (
            "data-old.wsisam-backup.qpdata",
            f"data-{DATE}.wsisam-backup.qpdata.txt",
            "data-20209999-235959Z.wsisam-backup.qpdata",
            f"{BACKUP_NAME}.qpdata.txt",
            f"my data-{DATE}.wsisam-backup.qpdata",
            "data.qpdata.2020",
            "data-2020.summary.json",
            ".0123456789abcdef.tmp",
        )
    }
    for name, content in foreign.items():
        image.put(name, content)
    folder = image.entry.folder / f"{BACKUP_NAME}.qpdata"
    folder.mkdir()

    for number in range(12):
        image.commit(bytes([number]))

    assert {name: image.files[name] for name in foreign} == foreign
    assert folder.is_dir()
    assert len(list_backups(image.entry)) == 10


@pytest.mark.parametrize("kept", [BACKUP, DATED_BACKUP])
def test_a_state_that_has_a_backup_gets_no_second_one(image: Image, kept: dict[str, bytes]) -> None:
    for name, content in kept.items():
        image.put(name, content)

    backup = image.commit()

    (only,) = list_backups(image.entry)
    assert backup == only.path


def test_what_a_restoration_keeps_is_kept_again_before_a_batch(image: Image) -> None:
    image.commit()
    restore(image.entry, 1)
    restore(image.entry, 2)

    image.commit(QUPATHS)

    assert image.states == [(1, "batch", OLD), (2, "restore", NEW), (3, "batch", NEW)]


def test_a_backup_with_another_summary_is_another_state(image: Image) -> None:
    image.put(f"{BACKUP_NAME}.qpdata", OLD)

    image.commit()

    assert image.states == [(1, "batch", OLD), (2, "batch", OLD)]


def change_data(image: Image) -> None:
    image.put("data.qpdata", QUPATHS)


def touch_data(image: Image) -> None:
    os.utime(image.entry.qpdata, ns=(1, 1))


def remove_data(image: Image) -> None:
    image.entry.qpdata.unlink()


def change_project(image: Image) -> None:
    image.project.path.write_text("{ }")


CHANGES = [change_data, touch_data, remove_data, change_project]


@pytest.mark.parametrize("change", CHANGES)
def test_an_image_that_changed_since_it_was_read_stays_as_it_is(
    image: Image, change: Callable[[Image], None]
) -> None:
    versions = image.versions
    change(image)
    before = image.files
    staged = image.stage()

    with pytest.raises(ImageError) as caught:
        commit(image.project, image.entry, staged, versions)

    assert str(caught.value) == (
        "Image Präparat 7 (alt) changed on disk while it was processed: close the project in "
        "QuPath and run again; nothing was written."
    )
    assert image.files == before


class WhileSummarised(Mapping[str, Any]):
    """A summary during whose reading, in the middle of the commit, something happens."""

    def __init__(self, event: Callable[[], object]) -> None:
        self._event = event

    def __iter__(self) -> Iterator[str]:
        self._event()
        return iter(NEW_SUMMARY)

    def __getitem__(self, name: str) -> Any:
        return NEW_SUMMARY[name]

    def __len__(self) -> int:
        return len(NEW_SUMMARY)


@pytest.mark.parametrize("change", CHANGES)
def test_what_changes_in_the_middle_of_a_commit_wins(
    image: Image, change: Callable[[Image], None]
) -> None:
    states: list[dict[str, bytes]] = []

    def change_and_look() -> None:
        assert len(list_backups(image.entry)) == 1
        change(image)
        states.append(image.files)

    versions = image.versions
    staged = image.stage(summary=WhileSummarised(change_and_look))

    with pytest.raises(ImageError, match="changed on disk"):
        commit(image.project, image.entry, staged, versions)

    assert image.files == {n: c for n, c in states[0].items() if "wsisam" not in n}


def test_a_commit_that_fails_removes_no_older_backup(image: Image) -> None:
    made = [image.commit(bytes([number])) for number in range(12)]
    versions = image.versions
    staged = image.stage(summary=WhileSummarised(lambda: change_data(image)))

    with pytest.raises(ImageError):
        commit(image.project, image.entry, staged, versions)

    assert [one.path for one in list_backups(image.entry)] == [made[0], *made[-9:]]


def test_where_qupath_has_the_project_open_it_may_save_it_in_the_middle_but_not_the_image(
    image: Image,
) -> None:
    versions = read_versions(image.project, image.entry, with_project=False)
    image.project.path.write_bytes(b"{}")

    commit(image.project, image.entry, image.stage(), versions)

    assert image.is_new
    image.put("data.qpdata", QUPATHS)
    with pytest.raises(ImageError, match="changed on disk"):
        commit(image.project, image.entry, image.stage(), versions)
    assert image.live[0] == QUPATHS


def test_a_project_that_is_gone_is_said_to_be(image: Image) -> None:
    versions = image.versions
    staged = image.stage()
    image.project.path.unlink()

    with pytest.raises(ProjectError, match="no longer there"):
        commit(image.project, image.entry, staged, versions)

    assert image.is_old
    assert image.leftovers == []


def test_a_staged_file_that_is_gone_changes_nothing(image: Image) -> None:
    staged = image.stage()
    staged.path.unlink()
    before = image.files

    with pytest.raises(ImageError, match="nothing of it was changed"):
        commit(image.project, image.entry, staged, image.versions)

    assert image.files == before


def test_a_full_disk_leaves_the_image_as_it_was(disk: Path) -> None:
    image = make_image(disk)
    before, versions = image.files, image.versions
    pages = 0
    for pages in count():
        staged = image.stage()
        filler = fill_up(disk, pages)
        try:
            backup = commit(image.project, image.entry, staged, versions)
        except ImageError as exc:
            assert "No space left on device" in str(exc)
            assert str(exc).endswith("then run again; nothing of it was changed.")
            assert image.files == before
            filler.unlink()
        else:
            break

    assert image.is_new
    assert image.leftovers == []
    assert backup is not None
    assert backup.read_bytes() == OLD
    assert 40 < pages < 50


def test_a_disk_that_becomes_read_only_is_said_to_be(disk: Path) -> None:
    image = make_image(disk)
    staged, before = image.stage(), image.files
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)

    with pytest.raises(ImageError) as committing:
        commit(image.project, image.entry, staged, image.versions)
    with pytest.raises(ImageError) as recovering:
        recover(image.entry)

    assert str(committing.value) == (
        "Image Präparat 7 (alt) cannot be written (Read-only file system): check free "
        f"space and permissions in {image.entry.folder}, then run again; nothing of it was changed."
    )
    assert "has an unfinished earlier change" in str(recovering.value)
    assert image.files == before


def test_a_copy_that_differs_is_refused(image: Image, monkeypatch: pytest.MonkeyPatch) -> None:
    def of_a_bad_disk(entry: ImageEntry, path: Path) -> str:
        if path.name == "copy":
            path.write_bytes(b"rotten")
        return compute_checksum(entry, path)

    monkeypatch.setattr("wsisam_qupath.qupath.files.backups.compute_checksum", of_a_bad_disk)

    with pytest.raises(ImageError, match="does not come out right"):
        copy_synced(image.entry, image.entry.qpdata, image.entry.folder / "copy")
