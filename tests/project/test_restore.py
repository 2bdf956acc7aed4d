"""What a command replaced comes back, however many came after it, and can be taken back again."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import pytest

from fixtures.command_line import run
from fixtures.images import NEW, OLD, QUPATHS, Image
from fixtures.project_files import image, make_project
from wsisam_qupath.errors import OptionError
from wsisam_qupath.project.commit import restore as restore_backup
from wsisam_qupath.project.restore import Wanted, print_states, run_restore
from wsisam_qupath.project.unfinished_restore import UnfinishedRestore
from wsisam_qupath.qupath.files.backups import Backup
from wsisam_qupath.qupath.files.entries import ImageEntry
from wsisam_qupath.qupath.files.reading import read_project

Restore: TypeAlias = Callable[..., list[str]]
"""Restores a state, and gives the lines that a user is told of it."""


@pytest.fixture
def committed(tmp_path: Path) -> Image:
    """A project of two images, of which the first was changed by a batch and the other never."""
    images = [image("1", "changed.svs"), image("2", "never.svs")]
    path = make_project(tmp_path / "Größe 1", images)
    project = read_project(path)
    entry = project.images[0]
    entry.folder.mkdir(parents=True, exist_ok=True)
    changed = Image(project, entry)
    changed.put("data.qpdata", OLD)
    changed.put("summary.json", b'{"timestamp":1,"hierarchy":{"nObjects":3}}')
    changed.commit()
    return changed


@pytest.fixture
def restore(committed: Image, capsys: pytest.CaptureFixture[str]) -> Restore:
    def restore(wanted: Wanted = "previous", *images: str) -> list[str]:
        run_restore(committed.project.path, images, wanted)
        lines = capsys.readouterr().err.splitlines()
        return [line for line in lines if not line.startswith("QuPath is running")]

    return restore


def test_a_second_restoration_goes_one_command_further_back(
    committed: Image, restore: Restore
) -> None:
    committed.commit(QUPATHS)

    first, after_first = restore(), committed.live[0]
    second, after_second = restore(), committed.live[0]
    third, after_third = restore(), committed.live[0]

    assert [after_first, after_second, after_third] == [NEW, OLD, OLD]
    assert committed.leftovers == []
    assert first == [
        "image 1: restored state 2, from before batch (4 objects); what was there (4 objects) is "
        "state 3.",
        "1 image restored, 0 failed; 1 other has no such state, or holds it now.",
    ]
    assert second[0] == (
        "image 1: restored state 1, from before batch (2 objects); what was there (4 objects) is "
        "state 2."
    )
    assert third == ["0 images restored, 0 failed; 2 others have no such state, or hold it now."]


def test_what_a_restoration_took_back_does_not_come_back_by_itself(
    committed: Image, restore: Restore
) -> None:
    restore()
    committed.commit(QUPATHS)
    restore()

    (said,) = restore()

    assert committed.live[0] == OLD
    assert said.startswith("0 images restored")
    commands = [command for _, command, _ in committed.states]
    assert commands == ["batch", "restore", "batch", "restore"]


def test_what_a_person_did_after_a_restoration_can_be_restored(
    committed: Image, restore: Restore
) -> None:
    restore()
    committed.put("data.qpdata", QUPATHS)

    restore()

    assert committed.live[0] == OLD
    assert committed.states[-1] == (3, "restore", QUPATHS)


def test_after_many_commands_each_kept_state_can_be_named(
    committed: Image, restore: Restore
) -> None:
    for number in range(12):
        committed.commit(bytes([number]) * 99)
    latest = committed.live

    restore("original")
    assert committed.live[0] == OLD

    restore(14, "* 1")
    assert committed.live == latest

    restore(8, "image 1")
    assert committed.live[0] == bytes([5]) * 99


def test_after_a_stop_the_same_command_restores_only_the_rest(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    images = make_committed_images(tmp_path, 3)
    project = images[0].project
    calls = 0

    def stop_after_two(entry: ImageEntry, number: int | None) -> Backup | None:
        nonlocal calls
        calls += 1
        if calls == 2:
            # A kill may come after the change, before anything is said of it.
            restore_backup(entry, number)
            raise KeyboardInterrupt
        return restore_backup(entry, number)

    monkeypatch.setattr("wsisam_qupath.project.restore.restore", stop_after_two)
    with pytest.raises(KeyboardInterrupt):
        run_restore(project.path, [])
    assert [one.live[0] for one in images] == [NEW, NEW, QUPATHS]
    capsys.readouterr()

    assert run_restore(project.path, [])

    assert [one.live[0] for one in images] == [NEW, NEW, NEW]
    said = capsys.readouterr().err
    assert "2 images had been restored by a run that was stopped" in said
    assert "1 image restored, 0 failed" in said
    assert run_restore(project.path, [])
    assert [one.live[0] for one in images] == [OLD, OLD, OLD]


def test_an_image_that_changed_after_a_stop_is_restored_like_any_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (changed,) = make_committed_images(tmp_path, 1)
    with monkeypatch.context() as patch:
        patch.setattr(UnfinishedRestore, "finish", lambda _: stop())
        with pytest.raises(KeyboardInterrupt):
            run_restore(changed.project.path, [])
    changed.commit(b"a batch came between")

    assert run_restore(changed.project.path, [])

    assert changed.live[0] == NEW


def stop() -> None:
    raise KeyboardInterrupt


def make_committed_images(folder: Path, count: int) -> list[Image]:
    """Images that two batches changed: from OLD to NEW, and from NEW to QUPATHS."""
    path = make_project(folder / "p", [image(str(n), f"{n}.svs") for n in range(count)])
    project = read_project(path)
    images = [Image(project, entry) for entry in project.images]
    for one in images:
        one.entry.folder.mkdir(parents=True, exist_ok=True)
        one.put("data.qpdata", OLD)
        one.put("summary.json", b'{"timestamp":1,"hierarchy":{"nObjects":3}}')
        one.commit()
        one.commit(QUPATHS)
    return images


def test_a_number_is_of_one_image(committed: Image, restore: Restore) -> None:
    with pytest.raises(OptionError, match="each image has a state 1 of its own"):
        restore(1)

    assert restore(8, "image 1") == [
        "image 1: failed. It has no state 8.",
        "0 images restored, 1 failed.",
    ]
    assert committed.live[0] == NEW


def test_a_list_without_states_says_so(
    committed: Image, capsys: pytest.CaptureFixture[str]
) -> None:
    print_states(committed.project.path, ["image 2"])

    assert capsys.readouterr() == ("No command of this program has changed these images.\n", "")


@pytest.mark.slow
def test_the_command_lists_and_restores(committed: Image) -> None:
    path = committed.project.path
    restored = run("restore", path, "--to", "original")
    assert (restored.code, restored.out) == (0, "")
    before = committed.files

    listed = run("restore", path, "--list")

    assert (listed.code, listed.err) == (0, "")
    heading, first, second = (re.split(r"  +", line.strip()) for line in listed.out.splitlines())
    columns = ["Image", "State", "Replaced by", "When", "Objects then", "Objects now"]
    assert heading == columns
    assert (first[:3], first[4:]) == (["image 1", "1 (original, as now)", "batch"], ["2", "2"])
    assert (second[:3], second[4:]) == (["image 1", "2", "restore"], ["4", "2"])
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d", first[3])
    assert committed.files == before


@pytest.mark.slow
def test_options_that_mean_nothing_are_said_to(committed: Image) -> None:
    stranger = run("restore", committed.project.path, "--images", "other")
    word = run("restore", committed.project.path, "--to", "yesterday")
    zero = run("restore", committed.project.path, "--images", "image 1", "--to", "0")

    assert stranger.code == word.code == 2
    assert "--images: other is no image of" in stranger.err
    assert "yesterday is neither a number nor the word original." in word.err
    assert zero.code == 3
    assert "image 1: failed. It has no state 0." in zero.err
