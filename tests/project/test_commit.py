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
    DATE,
    NEW,
    NEW_SUMMARY,
    OLD,
    OLD_SUMMARY,
    QUPATHS,
    Image,
    make_image,
)
from wsisam_qupath.errors import ImageError, ProjectError
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


def test_a_backup_is_named_by_the_time_in_utc(image: Image) -> None:
    before = time.strftime("%Y%m%d-%H%M%S", time.gmtime())

    backup = image.commit()

    after = time.strftime("%Y%m%d-%H%M%S", time.gmtime())
    assert backup is not None
    assert f"data-{before}Z" <= backup.name.partition(".")[0] <= f"data-{after}Z"


def test_an_image_without_data_gets_some_and_no_backup(image: Image) -> None:
    image.entry.qpdata.unlink()
    image.entry.summary.unlink()

    backup = image.commit()

    assert backup is None
    assert image.is_new
    assert set(image.files) == {"data.qpdata", "summary.json", "thumbnail.jpg"}


def test_the_last_three_backups_are_kept_also_those_of_one_second(image: Image) -> None:
    contents = [bytes([number]) * 100 for number in range(6)]

    made = [image.commit(content) for content in contents]

    assert len(set(made)) == 6
    assert list_backups(image.entry) == made[-3:]
    assert [path.read_bytes() for path in list_backups(image.entry)] == contents[2:5]
    assert sum("wsisam" in name for name in image.files) == 6


def test_a_new_backup_is_the_newest_whatever_the_clock_says(image: Image) -> None:
    future = ["data-20991231-235959Z", "data-20991231-235959Z-2", "data-20991231-235959Z-10"]
    for number, name in enumerate(future):
        image.put(f"{name}.wsisam-backup.qpdata", bytes([number]))

    backup = image.commit()

    assert backup is not None
    assert backup.name == "data-20991231-235959Z-11.wsisam-backup.qpdata"
    assert [path.name.partition(".")[0] for path in list_backups(image.entry)] == [
        "data-20991231-235959Z-2",
        "data-20991231-235959Z-10",
        "data-20991231-235959Z-11",
    ]


def test_foreign_files_are_never_pruned(image: Image) -> None:
    foreign = {
        name: name.encode()
        for name in (
            "data-old.wsisam-backup.qpdata",
            f"data-{DATE}.wsisam-backup.qpdata.txt",
            f"my data-{DATE}.wsisam-backup.qpdata",
            "data.qpdata.2020",
            "data-2020.summary.json",
            ".0123456789abcdef.tmp",
        )
    }
    for name, content in foreign.items():
        image.put(name, content)
    folder = image.entry.folder / f"data-{DATE}.wsisam-backup.qpdata"
    folder.mkdir()

    for number in range(5):
        image.commit(bytes([number]))

    assert {name: image.files[name] for name in foreign} == foreign
    assert folder.is_dir()
    assert len(list_backups(image.entry)) == 3


def test_a_state_that_has_a_backup_gets_no_second_one(image: Image) -> None:
    for name, content in BACKUP.items():
        image.put(name, content)

    backup = image.commit()

    assert backup == image.entry.folder / f"data-{DATE}.wsisam-backup.qpdata"
    assert list_backups(image.entry) == [backup]


def test_a_backup_with_another_summary_is_another_state(image: Image) -> None:
    image.put(f"data-{DATE}.wsisam-backup.qpdata", OLD)

    backup = image.commit()

    assert list_backups(image.entry) == [image.entry.folder / min(BACKUP), backup]


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
    made = [image.commit(bytes([number])) for number in range(3)]
    versions = image.versions
    staged = image.stage(summary=WhileSummarised(lambda: change_data(image)))

    with pytest.raises(ImageError):
        commit(image.project, image.entry, staged, versions)

    assert list_backups(image.entry) == made


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


def test_a_backup_put_back_is_what_was_there(image: Image) -> None:
    backup = image.commit()

    restore(image.entry, backup)

    assert image.is_old
    assert image.leftovers == []
    assert [path.read_bytes() for path in list_backups(image.entry)] == [OLD, NEW]


def test_an_image_that_had_no_data_can_have_none_again(image: Image) -> None:
    image.entry.qpdata.unlink()
    image.entry.summary.unlink()
    backup = image.commit()

    restore(image.entry, backup)

    assert image.live == (None, None)
    assert image.leftovers == []
    assert [path.read_bytes() for path in list_backups(image.entry)] == [NEW]


def test_data_that_had_no_summary_has_none_again(image: Image) -> None:
    image.entry.summary.unlink()
    backup = image.commit()

    restore(image.entry, backup)

    assert image.live == (OLD, None)


def test_a_backup_that_is_gone_cannot_be_put_back(image: Image) -> None:
    before = image.files

    with pytest.raises(ImageError, match="nothing of it was changed"):
        restore(image.entry, image.entry.folder / f"data-{DATE}.wsisam-backup.qpdata")

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
