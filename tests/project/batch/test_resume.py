"""Batches that are killed, interrupted, disturbed and doubled: each image is old or new, whole."""

from __future__ import annotations

import os
import signal
import stat
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from fixtures.batch_projects import (
    Batched,
    batched_copy,
    copy_of,
    data_of,
    journal_of,
    journaled,
    leftovers,
    mirrored,
    seen_by,
    words_of,
)
from fixtures.command_line import GLAND, LARGE_GLAND, Answer, Feature, identity, rectangle, run
from fixtures.qupath_fixtures import add_objects
from fixtures.running_batches import Moment, RunningBatch
from wsisam_qupath.inference.backends import ImageArray
from wsisam_qupath.qupath.jvm.creation import NewImage, add_images
from wsisam_qupath.qupath.jvm.process import QuPathProcess
from wsisam_qupath.slide.pyramid import write_pyramid

pytestmark = [
    pytest.mark.slow,
    pytest.mark.walk,
    pytest.mark.qupath,
    pytest.mark.skipif(os.name == "nt", reason="kills and groups of processes are POSIX's"),
]

FIRST, SECOND, THIRD = NAMES = ("1 a.tif", "2 b.tif", "3 ü.tif")

BOXES = (LARGE_GLAND, (20, 20, 240, 230), (10, 40, 260, 250), GLAND)
"""The last one is answered on another pair of patches than the others."""


def prompts(image: int) -> list[Feature]:
    """Rectangles without a class, of the project's, and of a class that it does not know."""
    classes = (None, "Tumor", "Drüse", "Drüse")
    boxes = [
        rectangle(identity(10 * image + number), corners, class_name)
        for number, (corners, class_name) in enumerate(zip(BOXES, classes, strict=True))
    ]
    return boxes if image == 1 else boxes[:3]


@pytest.fixture(scope="module")
def created(
    tmp_path_factory: pytest.TempPathFactory, qupath: QuPathProcess, tissue: ImageArray
) -> Path:
    """A project of three slides; not to be changed."""
    folder = tmp_path_factory.mktemp("resume")
    project = folder / "project" / "project.qpproj"
    project.parent.mkdir()
    pictures = (tissue, mirrored(tissue), np.ascontiguousarray(tissue.transpose(1, 0, 2)))
    for name, picture in zip(NAMES, pictures, strict=True):
        write_pyramid(folder / name, picture, mpp=0.5)
    images = [
        NewImage(folder / name, features=tuple(prompts(number)))
        for number, name in enumerate(NAMES, start=1)
    ]
    qupath.run(add_images, project, images, "brightfield-h-e")
    return project


@pytest.fixture(scope="module")
def undisturbed(
    tmp_path_factory: pytest.TempPathFactory, qupath: QuPathProcess, created: Path
) -> Batched:
    found = batched_copy(qupath, created, tmp_path_factory.mktemp("undisturbed") / "p")
    assert [len(objects) for objects in found.after.values()] == [8, 6, 6]
    return found


def is_staged(project: Path, name: str) -> bool:
    """Whether QuPath writes, or wrote, the new objects of an image."""
    entry_id = str(1 + NAMES.index(name))  # read_project() would take longer than the writing
    return (project.parent / "data" / entry_id / "data.qpdata.wsisam-new").exists()


def has_answers(project: Path, name: str, count: int) -> bool:
    """Whether so many answers of an image are in its journal."""
    return len(journaled(project, name)) >= count


KILL, INTERRUPT = signal.Signals(9), signal.Signals(2)

STOPS: list[tuple[signal.Signals, Moment | Callable[[Path], bool]]] = [
    (KILL, partial(has_answers, name=FIRST, count=2)),
    (KILL, Moment("os.rename", "history/1.json")),  # all answers of the image are there
    (INTERRUPT, partial(is_staged, name=FIRST)),
    (KILL, partial(is_staged, name=FIRST)),
    (KILL, Moment("os.rename", "data/1/data.qpdata.wsisam-commit")),
    (INTERRUPT, Moment("os.rename", "data/1/data.qpdata")),
    (KILL, Moment("os.rename", "data/1/data.qpdata")),  # before the new objects are in place
    (KILL, Moment("os.rename", "data/1/summary.json")),  # after that
    (KILL, Moment("os.remove", "journal/2.jsonl")),  # of an image that is written
    (KILL, partial(is_staged, name=THIRD)),
]

WITHOUT_MODEL = range(2, 8)
"""Stops in whose runs the answers are known, so that no model is needed."""


def stop(
    project: Path,
    how: signal.Signals,
    at: Moment | Callable[[Path], bool],
    *options: str,
    **variables: str,
) -> Answer:
    """Run a batch that gets a signal at a moment."""
    moment = at if isinstance(at, Moment) else None
    with RunningBatch(project, *options, at=moment, signal_number=how, **variables) as batch:
        if not isinstance(at, Moment):
            batch.wait_until(lambda: at(project))
            batch.kill() if how == KILL else batch.interrupt()
        return batch.ended()


def check_interrupted(answer: Answer, project: Path) -> None:
    assert (answer.code, answer.out) == (130, "")
    assert words_of(answer) == ["Interrupted. No file was left half-written."]
    assert not leftovers(project)


def test_after_any_kill_or_ctrl_c_the_end_is_that_of_an_undisturbed_run(
    undisturbed: Batched, project: Path, qupath: QuPathProcess, tmp_path: Path
) -> None:
    known: dict[str, list[str]] = {name: [] for name in NAMES}
    cache = tmp_path / "no model"
    for number, (how, at) in enumerate(STOPS):
        if number in WITHOUT_MODEL:
            answer = stop(project, how, at, "--images", FIRST, WSISAM_QUPATH_CACHE=str(cache))
        else:
            answer = stop(project, how, at)

        if how == KILL:
            assert answer.code == -KILL
        else:
            check_interrupted(answer, project)
        for name, objects in seen_by(qupath, project).items():
            assert objects in (undisturbed.before[name], undisturbed.after[name])
            known[name] = still_known(project, name, known[name])
    assert list(cache.iterdir()) == []

    last = run("batch", project)

    assert last.code == 0, last.err
    assert seen_by(qupath, project) == undisturbed.after
    assert not leftovers(project)
    assert not any(journaled(project, name) for name in NAMES)

    back = run("restore", project, "--to", "original")

    assert back.code == 0, back.err
    assert seen_by(qupath, project) == undisturbed.before
    assert not leftovers(project)


def still_known(project: Path, name: str, before: list[str]) -> list[str]:
    """The answers in the journal of an image, to which a run adds, and which are not made again.

    Once the image is written, none are needed.
    """
    path, now = journal_of(project, name), journaled(project, name)
    if path.exists():
        assert now[: len(before)] == before
        assert len(set(now)) == len(now) <= len(BOXES)
        # Another file in its place would not have this mark.
        assert not before or stat.S_IMODE(path.stat().st_mode) == 0o600
        path.chmod(0o600)
    return now


def test_a_second_batch_says_who_works_on_the_project_and_the_first_goes_on(project: Path) -> None:
    with RunningBatch(project) as batch:
        batch.wait_until(lambda: has_answers(project, FIRST, 1))
        batch.pause()  # it holds its lock all the same
        second = run("batch", project)
        batch.interrupt()
        check_interrupted(batch.ended(), project)

    assert (second.code, second.out) == (2, "")
    (line,) = words_of(second)
    assert f"Another batch works on {project} (process {batch.pid} on " in line
    assert "wait until it is done, or end it." in line


def test_one_image_that_java_died_of_and_one_that_changed_do_not_stop_the_third(
    undisturbed: Batched, project: Path, qupath: QuPathProcess, tmp_path: Path
) -> None:
    others = copy_of(project, tmp_path / "others")
    qupath.run(add_objects, others, "2", [rectangle(identity(99), (5, 5, 50, 50), "Neu")])
    old, theirs = data_of(project, FIRST).read_bytes(), data_of(others, SECOND).read_bytes()

    with RunningBatch(project) as batch:
        batch.wait_until(lambda: has_answers(project, FIRST, 1))
        (java_pid,) = batch.java_pids()
        batch.wait_until(lambda: is_staged(project, FIRST))
        os.kill(java_pid, signal.SIGKILL)
        batch.wait_until(lambda: has_answers(project, SECOND, 1))
        for name in ("data.qpdata", "summary.json"):
            new = data_of(others, SECOND).with_name(name)
            new.replace(data_of(project, SECOND).with_name(name))
        answer = batch.ended()

    assert (answer.code, answer.out) == (3, "")
    assert data_of(project, FIRST).read_bytes() == old
    assert data_of(project, SECOND).read_bytes() == theirs
    assert seen_by(qupath, project)[THIRD] == undisturbed.after[THIRD]
    assert not leftovers(project)
    lines = [line for line in answer.words if ": failed. " in line]
    assert lines[0].startswith(
        f"{FIRST}: failed. QuPath's Java virtual machine ended unexpectedly."
    )
    assert "run this again" in lines[0]
    assert lines[1].startswith(f"{SECOND}: failed. ")
    assert "close the project in QuPath" in lines[1]
    assert len(lines) == 2

    again = run("batch", project)

    assert (again.code, again.out) == (0, "")
    after = seen_by(qupath, project)
    assert after[FIRST] == undisturbed.after[FIRST]
    assert undisturbed.after[SECOND].items() < after[SECOND].items()
