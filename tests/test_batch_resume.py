"""Batches that are killed, interrupted, disturbed and doubled: each image is old or new, whole."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from batch_projects import (
    GLAND,
    LARGE_GLAND,
    Moment,
    RunningBatch,
    copy_of,
    data_of,
    identity,
    journaled,
    leftovers,
    mirrored,
    seen_by,
)
from command_line import Feature, rectangle, run
from qupath_fixtures import Seen, add_objects, qupath
from wsisam_qupath.backends import ImageArray
from wsisam_qupath.pyramid import write_pyramid
from wsisam_qupath.qupath.creation import NewImage, add_images
from wsisam_qupath.qupath.process import QuPathProcess

__all__ = ["qupath"]  # a fixture

pytestmark = [
    pytest.mark.qupath,
    pytest.mark.skipif(os.name == "nt", reason="kills and groups of processes are POSIX's"),
]

FIRST, SECOND, THIRD = NAMES = ("1 a.tif", "2 b.tif", "3 ü.tif")

Objects = dict[str, dict[str, Seen]]

BOXES = (LARGE_GLAND, GLAND, (20, 20, 240, 230), (270, 10, 460, 290), (10, 40, 260, 250))
"""Answered on two pairs of patches."""


def prompts(image: int) -> list[Feature]:
    """Rectangles without a class, of the project's, and of a class that it does not know."""
    classes = (None, "Tumor", "Drüse", "Drüse", None)
    return [
        rectangle(identity(10 * image + number), corners, class_name)
        for number, (corners, class_name) in enumerate(zip(BOXES, classes, strict=True))
    ]


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


@dataclass(frozen=True)
class Undisturbed:
    """What QuPath sees before and after a run that nobody disturbed."""

    before: Objects
    after: Objects


@pytest.fixture(scope="module")
def undisturbed(
    tmp_path_factory: pytest.TempPathFactory, qupath: QuPathProcess, created: Path
) -> Undisturbed:
    project = copy_of(created, tmp_path_factory.mktemp("undisturbed") / "p")
    answer = run("batch", project)
    assert answer.code == 0, answer.err
    found = Undisturbed(seen_by(qupath, created), seen_by(qupath, project))
    assert [len(objects) for objects in found.after.values()] == [10, 10, 10]
    return found


@pytest.fixture
def project(created: Path, tmp_path: Path) -> Path:
    return copy_of(created, tmp_path / "p")


def staged(project: Path, name: str) -> Callable[[], bool]:
    """Whether QuPath writes, or wrote, the new objects of an image."""
    return data_of(project, name).with_name("data.qpdata.wsisam-new").exists


def has_answers(project: Path, name: str, count: int) -> Callable[[], bool]:
    """Whether so many answers of an image are in its journal."""
    return lambda: len(journaled(project, name)) >= count


MOMENTS = {
    "two answers are there": (has_answers, FIRST, 2),
    "all answers of an image are there": Moment("os.rename", "ledger/1.json"),
    "QuPath writes the new objects": (staged, FIRST),
    "before the marker is there": Moment("os.rename", "data/1/data.qpdata.wsisam-commit"),
    "before the new objects are in place": Moment("os.rename", "data/1/data.qpdata"),
    "after that": Moment("os.rename", "data/1/summary.json"),
    "before the journal of a written image goes": Moment("os.remove", "journal/2.jsonl"),
    "QuPath writes the last image": (staged, THIRD),
}


def kill_at(project: Path, moment: Moment | tuple[Callable[..., Callable[[], bool]], ...]) -> None:
    if isinstance(moment, Moment):
        with RunningBatch(project, at=moment, signal_number=signal.SIGKILL) as batch:
            assert batch.ended().code == -signal.SIGKILL
        return
    make, *given = moment
    condition = make(project, *given)
    with RunningBatch(project) as batch:
        batch.wait_until(condition)
        batch.kill()


def test_after_kills_at_many_moments_the_end_is_that_of_an_undisturbed_run(
    undisturbed: Undisturbed, project: Path, qupath: QuPathProcess
) -> None:
    old = {name: data_of(project, name).read_bytes() for name in NAMES}
    answered: dict[str, list[str]] = {name: [] for name in NAMES}
    for moment in MOMENTS.values():
        written = [name for name in NAMES if data_of(project, name).read_bytes() != old[name]]
        kill_at(project, moment)

        for name, objects in seen_by(qupath, project).items():
            assert objects in (undisturbed.before[name], undisturbed.after[name])
            # Each run adds to what earlier ones computed; a written image needs none of it.
            now = journaled(project, name)
            assert now[: len(answered[name])] == answered[name] or not now
            assert len(set(now)) == len(now) <= len(BOXES)
            assert name not in written or now in ([], answered[name])
            answered[name] = now

    last = run("batch", project)

    assert last.code == 0, last.err
    assert seen_by(qupath, project) == undisturbed.after
    assert not leftovers(project)
    assert not any(journaled(project, name) for name in NAMES)


def test_ctrl_c_ends_it_with_a_line_and_leaves_nothing_half_done(
    undisturbed: Undisturbed, project: Path, qupath: QuPathProcess
) -> None:
    only = ("--images", FIRST)

    with RunningBatch(project, *only) as batch:
        batch.wait_until(has_answers(project, FIRST, 1))
        batch.pause()  # it holds its lock all the same
        second = run("batch", project)
        batch.interrupt()
        check_interrupted(batch, project)
    assert second.code == 2
    (line,) = second.words
    assert f"Another batch works on {project} (process {batch.pid} on " in line
    assert "wait until it is done, or end it." in line

    with RunningBatch(project, *only) as batch:
        batch.wait_until(staged(project, FIRST))
        batch.interrupt()
        check_interrupted(batch, project)

    step = Moment("os.rename", "data/1/data.qpdata")
    with RunningBatch(project, *only, at=step, signal_number=signal.SIGINT) as batch:
        check_interrupted(batch, project)
    assert seen_by(qupath, project)[FIRST] == undisturbed.before[FIRST]

    assert run("batch", project, *only).code == 0
    assert seen_by(qupath, project)[FIRST] == undisturbed.after[FIRST]


def check_interrupted(batch: RunningBatch, project: Path) -> None:
    answer = batch.ended()
    assert (answer.code, answer.out) == (130, "")
    assert answer.words == ["Interrupted. No result is half written."]
    assert not leftovers(project)
    assert len(journaled(project, FIRST)) > 0


def test_one_image_that_java_died_of_and_one_that_changed_do_not_stop_the_third(
    undisturbed: Undisturbed, project: Path, qupath: QuPathProcess, tmp_path: Path
) -> None:
    others = copy_of(project, tmp_path / "others")
    qupath.run(add_objects, others, "2", [rectangle(identity(99), (5, 5, 50, 50), "Neu")])
    old, theirs = data_of(project, FIRST).read_bytes(), data_of(others, SECOND).read_bytes()

    with RunningBatch(project) as batch:
        batch.wait_until(staged(project, FIRST))
        batch.kill_java()
        batch.wait_until(has_answers(project, SECOND, 1))
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
    assert lines[0].startswith(f"{FIRST}: failed. QuPath's Java machine ended unexpectedly.")
    assert "run this again" in lines[0]
    assert lines[1].startswith(f"{SECOND}: failed. ")
    assert "close the project in QuPath" in lines[1]
    assert len(lines) == 2

    again = run("batch", project)

    assert (again.code, again.out) == (0, "")
    after = seen_by(qupath, project)
    assert after[FIRST] == undisturbed.after[FIRST]
    assert undisturbed.after[SECOND].items() < after[SECOND].items()
