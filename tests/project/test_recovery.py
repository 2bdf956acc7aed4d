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
    BACKUP_NAME,
    DATE,
    DATED_BACKUP,
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
from wsisam_qupath.errors import FormatError
from wsisam_qupath.project.commit import commit, recover, restore
from wsisam_qupath.qupath.files.backups import list_backups, number_backups, prune
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
        f"{BACKUP_NAME}.summary.json": OLD_SUMMARY[:9],
    },
    "a backup of an early version that got its number, but not yet its name": {
        **DATED_BACKUP,
        f"{BACKUP_NAME}.summary.json": OLD_SUMMARY,
    },
    "a backup of an early version that has its name, and the old summary": {
        **BACKUP,
        f"data-{DATE}.wsisam-backup.summary.json": OLD_SUMMARY,
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
    finished = next((kept for kept in (BACKUP, DATED_BACKUP) if kept.keys() <= left.keys()), {})
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
    assert [one.path.read_bytes() for one in list_backups(image.entry)] == [OLD]
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
    assert [one.path.read_bytes() for one in list_backups(image.entry)] == [OLD]


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


@pytest.mark.parametrize("further", [{}, {"format": 2, "sooner": True}])
@pytest.mark.parametrize("early", [False, True])
def test_a_marker_of_an_early_version_or_with_further_keys_is_understood(
    image: Image, early: bool, further: dict[str, object]
) -> None:
    image.put("data.qpdata", NEW)
    image.put_marker(NEW, **further)
    marker = image.entry.folder / "data.qpdata.wsisam-commit"
    if early:
        content = json.loads(marker.read_bytes())
        del content["format"]
        marker.write_text(json.dumps(content, indent=1), "ascii")

    assert recover(image.entry) == "finished"

    assert image.live == (NEW, b'{"timestamp":7}')


def test_a_marker_of_a_newer_version_is_refused_and_everything_left_alone(image: Image) -> None:
    for name, content in {**STAGED, **BACKUP, **NEXT_SUMMARY}.items():
        image.put(name, content)
    image.put_marker(NEW, format=3)
    before = image.files

    for attempt in (recover, lambda entry: restore(entry, 1)):
        with pytest.raises(FormatError) as caught:
            attempt(image.entry)
        assert "wsisam-commit is the note of an unfinished change in format 3" in str(caught.value)

    assert image.files == before


def test_data_that_was_removed_is_not_made_up_again(image: Image) -> None:
    image.put_marker(NEW)
    image.entry.qpdata.unlink()

    assert recover(image.entry) == "undone"

    assert image.live == (None, OLD_SUMMARY)


BOTH_STATES = [(1, OLD), (2, NEW)]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no fork and no kill -9")
class TestKilledAtEveryCall:
    @pytest.mark.walk
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
                assert image.is_old or [p.path.read_bytes() for p in list_backups(image.entry)] == [
                    OLD
                ]
                if done:
                    break

        assert list(dict.fromkeys(seen)) == ["undone", "finished", "nothing"]
        assert len(seen) > 60

    @pytest.mark.walk
    def test_a_restore_leaves_the_one_or_the_other(self, tmp_path: Path) -> None:
        seen = []
        with Killer() as killer:
            for nth in count(1):
                image = make_image(tmp_path / str(nth))
                for name, content in {**DATED_BACKUP, "data.qpdata": NEW}.items():
                    image.put(name, content)

                done = killer.lives_through(nth, restore, image.entry, 1)

                seen.append(recover(image.entry))
                restored = "finished" in seen
                assert image.live == (OLD if restored else NEW, OLD_SUMMARY)
                assert image.leftovers == []
                assert [(one, data) for one, _, data in image.states] in ([(1, OLD)], BOTH_STATES)
                assert not restored or [data for *_, data in image.states] == [OLD, NEW]
                assert all(
                    one.summary.read_bytes() == OLD_SUMMARY for one in list_backups(image.entry)
                )
                if done:
                    break

        assert list(dict.fromkeys(seen)) == ["nothing", "undone", "finished"]

    def test_states_of_early_versions_are_all_kept_while_they_get_their_numbers(
        self, tmp_path: Path
    ) -> None:
        early = [(1, "unknown", OLD), (2, "unknown", QUPATHS), (3, "unknown", NEW)]
        with Killer() as killer:
            for nth in count(1):
                image = make_image(tmp_path / str(nth))
                for name, content in DATED_BACKUP.items():
                    is_data = name.endswith(".qpdata")
                    image.put(name, content)
                    image.put(name.replace("2020", "2024"), QUPATHS if is_data else b"2")
                    image.put(name.replace("2020", "2028"), NEW if is_data else b"3")
                entry = image.entry

                done = killer.lives_through(nth, number_backups, entry, list_backups(entry))

                recover(entry)
                assert image.states == early
                assert image.is_old
                summaries = [one.summary.read_bytes() for one in list_backups(entry)]
                assert summaries == [OLD_SUMMARY, b"2", b"3"]
                assert image.leftovers == []
                if done:
                    break

        assert nth > 10

    def test_the_first_state_outlives_a_kill_while_old_ones_are_removed(
        self, tmp_path: Path
    ) -> None:
        with Killer() as killer:
            for nth in count(1):
                image = make_image(tmp_path / str(nth))
                for name, content in BACKUP.items():
                    image.put(name, content)
                    for number in range(2, 12):
                        image.put(name.replace("0001", f"{number:04}"), content)

                done = killer.lives_through(nth, prune, image.entry)

                recover(image.entry)
                assert image.leftovers == []
                numbers = [number for number, *_ in image.states]
                assert image.states[0] == (1, "batch", OLD)
                assert numbers in ([1, *range(2, 12)], [1, *range(3, 12)])
                assert list_backups(image.entry)[0].summary.read_bytes() == OLD_SUMMARY
                if done:
                    break

        assert numbers == [1, *range(3, 12)]

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
        states = [data for *_, data in image.states]
        assert all(data == data[:1] * 300_000 for data in states)
        assert not states or states[0] == b"\0" * 300_000

    assert image.states


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
