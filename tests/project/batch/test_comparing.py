"""Whose pixels count is found out where pixels are read, and only there."""

from __future__ import annotations

from pathlib import Path

import pytest

from fixtures.command_line import identity, rectangle
from fixtures.engine_runs import MODEL
from wsisam_qupath.inference.backends import ImageArray
from wsisam_qupath.inference.executors import LocalExecutor
from wsisam_qupath.inference.loading import resolve
from wsisam_qupath.options import OutlineOptions
from wsisam_qupath.project.batch.config import BatchConfig
from wsisam_qupath.project.batch.opening import SlideOpener
from wsisam_qupath.project.batch.run import Batch
from wsisam_qupath.project.batch.selection import PromptFilter
from wsisam_qupath.project.batch.table_writer import TableWriter
from wsisam_qupath.qupath.files.reading import read_project
from wsisam_qupath.qupath.jvm.creation import NewImage, add_images
from wsisam_qupath.qupath.jvm.process import QuPathProcess
from wsisam_qupath.report.outcome import ImageOutcome
from wsisam_qupath.slide.pyramid import write_pyramid

pytestmark = pytest.mark.qupath


class Listener:
    """Remembers what was noticed."""

    def __init__(self) -> None:
        self.notices: list[str] = []

    def on_prompts_found(self, tasks: int) -> None: ...

    def on_prompts_done(self, count: int) -> None: ...

    def on_notice(self, words: str) -> None:
        self.notices.append(words)

    def on_image_end(self, outcome: ImageOutcome) -> None: ...


@pytest.fixture
def project(tmp_path: Path, qupath: QuPathProcess, tissue: ImageArray) -> Path:
    """An image with a rectangle, which QuPath shows otherwise than its file says."""
    slide, path = tmp_path / "a.tif", tmp_path / "project" / "project.qpproj"
    write_pyramid(slide, tissue[:512, :512], mpp=0.5)
    path.parent.mkdir()
    drawn = rectangle(identity(1), (100, 100, 300, 300))
    qupath.run(add_images, path, [NewImage(slide, features=(drawn,))], "unset")
    project = read_project(path)
    SlideOpener(qupath, project, None).open(project.images[0])
    # QuPath's process still has the old file open; ours reads the new one.
    write_pyramid(tmp_path / "mirrored.tif", tissue[:512, :512][:, ::-1], mpp=0.5)
    (tmp_path / "mirrored.tif").replace(slide)
    return path


def look_at(path: Path, qupath: QuPathProcess, table: Path | None) -> tuple[ImageOutcome, Listener]:
    """Look at the image, to count its prompts or to make a table of them."""
    project, model, options = read_project(path), resolve(MODEL), OutlineOptions()
    writer = TableWriter(table, project.images) if table else None
    config = BatchConfig(project, PromptFilter(), options, model, plan_only=True, table=writer)
    opener, executor = SlideOpener(qupath, project, None), LocalExecutor(model, options)
    listener = Listener()
    batch = Batch(config, qupath, opener, executor, lambda: executor, listener)
    (outcome,) = batch.run(project.images)
    return outcome, listener


def test_prompts_that_are_only_counted_ask_for_no_pixels(
    project: Path, qupath: QuPathProcess
) -> None:
    outcome, listener = look_at(project, qupath, None)

    assert outcome.plan.prompts == 1
    assert listener.notices == []


def test_prompts_that_will_be_answered_are_for_the_pixels_that_qupath_shows(
    project: Path, qupath: QuPathProcess, tmp_path: Path
) -> None:
    outcome, listener = look_at(project, qupath, tmp_path / "slides.csv")

    assert outcome.plan.prompts == 1
    assert ["only QuPath can read it" in one for one in listener.notices] == [False, True]
    assert "read through QuPath" in listener.notices[0]
