from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from itertools import count
from pathlib import Path

import pytest

from fixtures.disks import fill_up
from fixtures.images import (
    BACKUP,
    DATE,
    NEW,
    NEXT_SUMMARY,
    OLD,
    OLD_SUMMARY,
    QUPATHS,
    STAGED,
    Image,
    make_image,
)
from fixtures.killing import Killer
from wsisam_qupath.project.commit import commit, recover, restore
from wsisam_qupath.qupath.files.backups import list_backups
from wsisam_qupath.qupath.files.entries import ImageEntry

pytestmark = pytest.mark.slow


def test_nothing_is_to_recover_where_nothing_was_begun(image: Image, tmp_path: Path) -> None:
    before = image.files
    nowhere = ImageEntry("9", "new", tmp_path / "data" / "9", "", None)

    assert recover(image.entry) == "nothing"
    assert recover(nowhere) == "nothing"

    assert image.files == before
    assert not nowhere.folder.exists()


BEFORE_THE_MARKER: dict[str, dict[str, bytes]] = {
    "half a staged file": {"data.qpdata.wsisam-new": NEW[:99]},
    "QuPath's own copy of a staged file": {"data.qpdata.wsisam-new.backup": NEW[:99]},
    "a staged file": STAGED,
    "half a backup": {**STAGED, "data.qpdata.wsisam-copy": OLD[:99]},
    "a backup without its data": {
        **STAGED,
        "data.qpdata.wsisam-copy": OLD,
        f"data-{DATE}.wsisam-backup.summary.json": OLD_SUMMARY[:9],
    },
    "a backup": {**STAGED, **BACKUP},
    "half a summary": {**STAGED, **BACKUP, "summary.json.wsisam-new": b'{"ti'},
    "a summary": {**STAGED, **BACKUP, **NEXT_SUMMARY},
    "half a marker": {
        **STAGED,
        **BACKUP,
        **NEXT_SUMMARY,
        "data.qpdata.wsisam-commit-new": b'{"sha',
    },
}


@pytest.mark.parametrize("left", BEFORE_THE_MARKER.values(), ids=BEFORE_THE_MARKER)
def test_what_was_left_before_the_marker_is_undone(image: Image, left: dict[str, bytes]) -> None:
    for name, content in left.items():
        image.put(name, content)

    recovery = recover(image.entry)

    assert recovery == "undone"
    assert image.is_old
    assert image.leftovers == []
    finished = BACKUP if BACKUP.keys() <= left.keys() else {}
    assert {n: c for n, c in image.files.items() if "wsisam" in n} == finished
    assert recover(image.entry) == "nothing"


def test_a_marker_before_the_step_is_undone(image: Image) -> None:
    for name, content in {**STAGED, **BACKUP, **NEXT_SUMMARY}.items():
        image.put(name, content)
    image.put_marker(NEW)

    assert recover(image.entry) == "undone"

    assert image.is_old
    assert image.leftovers == []
    assert recover(image.entry) == "nothing"


@pytest.mark.parametrize("next_summary", [NEXT_SUMMARY, {}, {"summary.json.wsisam-new": b'{"t'}])
@pytest.mark.parametrize("summary", [OLD_SUMMARY, b'{"timestamp":7}', None])
def test_a_marker_after_the_step_is_finished(
    image: Image, next_summary: dict[str, bytes], summary: bytes | None
) -> None:
    for name, content in {**BACKUP, **next_summary, "data.qpdata": NEW}.items():
        image.put(name, content)
    image.entry.summary.unlink()
    if summary is not None:
        image.put("summary.json", summary)
    image.put_marker(NEW)

    assert recover(image.entry) == "finished"

    assert image.live == (NEW, b'{"timestamp":7}')
    assert image.leftovers == []
    assert [path.read_bytes() for path in list_backups(image.entry)] == [OLD]
    assert recover(image.entry) == "nothing"


@pytest.mark.parametrize("staged", [STAGED, {}])
def test_what_qupath_saved_since_is_never_overwritten(
    image: Image, staged: dict[str, bytes]
) -> None:
    for name, content in {**staged, **BACKUP, **NEXT_SUMMARY}.items():
        image.put(name, content)
    image.put("data.qpdata", QUPATHS)
    image.put("summary.json", b'{"timestamp":8}')
    image.put_marker(NEW)

    assert recover(image.entry) == "undone"

    assert image.live == (QUPATHS, b'{"timestamp":8}')
    assert image.leftovers == []
    assert [path.read_bytes() for path in list_backups(image.entry)] == [OLD]


def test_other_data_of_the_same_size_is_not_taken_for_ours(image: Image) -> None:
    image.put("data.qpdata", NEW[:-1] + b"?")
    image.put_marker(NEW)

    assert recover(image.entry) == "undone"

    assert image.live == (NEW[:-1] + b"?", OLD_SUMMARY)


@pytest.mark.parametrize(
    "marker",
    [b"", b"{", b"\xff\xfe", b"[]", b"7", b"{}", b"[" * 100_000, b'{"sha256": 1}', b"\0" * 300],
)
def test_a_damaged_marker_is_undone(image: Image, marker: bytes) -> None:
    for name, content in {**STAGED, **BACKUP, **NEXT_SUMMARY}.items():
        image.put(name, content)
    image.put("data.qpdata.wsisam-commit", marker)

    assert recover(image.entry) == "undone"

    assert image.is_old
    assert image.leftovers == []


def test_a_marker_with_numbers_for_words_is_undone(image: Image) -> None:
    image.put_marker(OLD, summary=7)

    assert recover(image.entry) == "undone"

    assert image.is_old


def test_data_that_was_removed_is_not_made_up_again(image: Image) -> None:
    image.put_marker(NEW)
    image.entry.qpdata.unlink()

    assert recover(image.entry) == "undone"

    assert image.live == (None, OLD_SUMMARY)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no fork and no kill -9")
class TestKilledAtEveryCall:
    def test_a_commit_leaves_the_old_or_the_new(self, tmp_path: Path) -> None:
        seen = []
        with Killer() as killer:
            for nth in count(1):
                image = make_image(tmp_path / str(nth))
                versions, staged = image.versions, image.stage()

                done = killer.lives_through(
                    nth, commit, image.project, image.entry, staged, versions
                )

                recovery = recover(image.entry)
                seen.append(recovery)
                assert image.is_old if recovery == "undone" else image.is_new
                assert image.leftovers == []
                assert image.is_old or [p.read_bytes() for p in list_backups(image.entry)] == [OLD]
                if done:
                    break

        assert list(dict.fromkeys(seen)) == ["undone", "finished", "nothing"]
        assert len(seen) > 60

    def test_a_restore_leaves_the_one_or_the_other(self, tmp_path: Path) -> None:
        seen = []
        with Killer() as killer:
            for nth in count(1):
                image = make_image(tmp_path / str(nth))
                for name, content in {**BACKUP, "data.qpdata": NEW}.items():
                    image.put(name, content)
                backup = image.entry.folder / min(BACKUP)

                done = killer.lives_through(nth, restore, image.entry, backup)

                seen.append(recover(image.entry))
                restored = "finished" in seen
                assert image.live == (OLD if restored else NEW, OLD_SUMMARY)
                assert image.leftovers == []
                if done:
                    break

        assert list(dict.fromkeys(seen)) == ["nothing", "undone", "finished"]

    @pytest.mark.parametrize("data", [OLD, NEW, QUPATHS])
    def test_a_recovery_can_be_repeated(self, tmp_path: Path, data: bytes) -> None:
        summary = b'{"timestamp":7}' if data == NEW else OLD_SUMMARY
        with Killer() as killer:
            for nth in count(1):
                image = make_image(tmp_path / str(nth))
                image.put("data.qpdata", data)
                for name, content in {**STAGED, **BACKUP, **NEXT_SUMMARY}.items():
                    image.put(name, content)
                image.put_marker(NEW)

                done = killer.lives_through(nth, recover, image.entry)

                recover(image.entry)
                assert image.live == (data, summary)
                assert image.leftovers == []
                if done:
                    break

        assert nth > 10


COMMITTING = """
import itertools, sys
from pathlib import Path
sys.path[:0] = sys.argv[2:]
from wsisam_qupath.project.commit import commit, make_staging_path
from wsisam_qupath.qupath.files.entries import ImageEntry, Project
from wsisam_qupath.qupath.files.integrity import read_versions
from wsisam_qupath.qupath.values import Staged
path = Path(sys.argv[1])
entry = ImageEntry("7", "", path.parent / "data" / "7", "", None)
project = Project(path, "0.6.0", (entry,))
print("ready", flush=True)
for number in itertools.count():
    content, stamps = bytes([number % 251]) * 300_000, read_versions(project, entry)
    make_staging_path(entry).write_bytes(content)
    commit(project, entry, Staged(make_staging_path(entry), 1, {"first": content[0]}), stamps)
"""
"""Commits for ever. Its summaries tell the data that they belong to."""


def test_a_kill_at_any_time_leaves_data_and_summary_of_one_commit(image: Image) -> None:
    chance = random.Random(4)
    image.put("data.qpdata", b"\0" * 300_000)
    image.put("summary.json", b'{"first":0}')
    command = [sys.executable, "-c", COMMITTING, str(image.project.path), *sys.path]

    for _ in range(6):
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            time.sleep(chance.uniform(0, 0.2))
            process.kill()

        recover(image.entry)

        data, summary = image.live
        assert data is not None
        assert summary is not None
        assert data == data[:1] * 300_000
        assert json.loads(summary)["first"] == data[0]
        assert image.leftovers == []
        assert all(
            p.read_bytes() == p.read_bytes()[:1] * 300_000 for p in list_backups(image.entry)
        )

    assert list_backups(image.entry)


def test_what_the_step_left_is_finished_on_a_disk_that_is_full(disk: Path) -> None:
    image = make_image(disk)
    image.put("data.qpdata", NEW)
    for name, content in {**BACKUP, **NEXT_SUMMARY}.items():
        image.put(name, content)
    os.utime(image.entry.folder / min(NEXT_SUMMARY), ns=(5, 5))
    image.put_marker(NEW)
    fill_up(disk, 0)

    assert recover(image.entry) == "finished"

    assert image.live == (NEW, b'{"timestamp":7}')
    assert image.entry.summary.stat().st_mtime_ns == 5  # renamed, not written again
