"""A backup put back, and the history of states after it."""

from __future__ import annotations

from itertools import count
from pathlib import Path

import pytest

from fixtures.disks import fill_up
from fixtures.images import DATED_BACKUP, NEW, OLD, OLD_SUMMARY, QUPATHS, Image, make_image
from wsisam_qupath.errors import ImageError
from wsisam_qupath.project.commit import restore
from wsisam_qupath.qupath.files.backups import list_backups


def test_a_backup_put_back_is_what_was_there(image: Image) -> None:
    image.commit()

    replaced = restore(image.entry, 1)

    assert image.is_old
    assert image.leftovers == []
    assert image.states == [(1, "batch", OLD), (2, "restore", NEW)]
    assert replaced == list_backups(image.entry)[1]


def test_restorations_keep_no_second_copy_of_what_is_kept(image: Image) -> None:
    image.commit()
    for number in (1, 2, 1, 2, 1):
        restore(image.entry, number)

    assert image.is_old
    assert image.states == [(1, "batch", OLD), (2, "restore", NEW)]


def test_a_restoration_never_removes_what_it_restores_or_the_first(image: Image) -> None:
    for number in range(12):
        image.commit(bytes([number]))
    oldest = list_backups(image.entry)[1]

    restore(image.entry, oldest.number)

    kept = [number for number, *_ in image.states]
    assert kept == [1, oldest.number, *range(oldest.number + 1, 14)]
    assert image.live[0] == oldest.path.read_bytes()


def test_an_image_that_had_no_data_can_have_none_again(image: Image) -> None:
    image.entry.qpdata.unlink()
    image.entry.summary.unlink()
    image.commit()

    restore(image.entry, None)

    assert image.live == (None, None)
    assert image.leftovers == []
    assert image.states == [(1, "restore", NEW)]


def test_data_that_had_no_summary_has_none_again(image: Image) -> None:
    image.entry.summary.unlink()
    image.commit()

    restore(image.entry, 1)

    assert image.live == (OLD, None)


def test_a_backup_of_an_early_version_is_put_back(image: Image) -> None:
    for name, content in DATED_BACKUP.items():
        image.put(name, content)
    image.put("data.qpdata", NEW)
    image.put("summary.json", b"{}")

    restore(image.entry, 1)

    assert image.is_old
    assert image.states == [(1, "unknown", OLD), (2, "restore", NEW)]


def test_a_backup_that_is_not_there_cannot_be_put_back(image: Image) -> None:
    before = image.files

    with pytest.raises(ImageError, match="has no backup 7"):
        restore(image.entry, 7)

    assert image.files == before


def test_a_full_disk_at_a_restoration_leaves_image_and_history_as_they_were(disk: Path) -> None:
    image = make_image(disk)
    image.commit(QUPATHS)
    before = image.files
    pages = 0
    for pages in count():
        filler = fill_up(disk, pages)
        try:
            restore(image.entry, 1)
        except ImageError as exc:
            assert "No space left on device" in str(exc)
            assert image.files == before
            filler.unlink()
        else:
            break

    assert image.is_old
    assert image.states == [(1, "batch", OLD), (2, "restore", QUPATHS)]
    assert pages > 40


def test_a_full_disk_loses_no_state_of_an_early_version(disk: Path) -> None:
    image = make_image(disk)
    for name, content in DATED_BACKUP.items():
        image.put(name, QUPATHS if name.endswith(".qpdata") else content)
        image.put(name.replace("2020", "2024"), content)  # a leap year too
    for pages in count():
        filler = fill_up(disk, pages)
        try:
            restore(image.entry, 1)
        except ImageError as exc:
            assert "No space left on device" in str(exc)
            assert image.is_old
            assert image.states[:2] == [(1, "unknown", QUPATHS), (2, "unknown", OLD)]
            assert list_backups(image.entry)[0].summary.read_bytes() == OLD_SUMMARY
            filler.unlink()
        else:
            break

    assert image.live == (QUPATHS, OLD_SUMMARY)
    assert image.states == [(1, "unknown", QUPATHS), (2, "unknown", OLD)]
    assert pages > 0
