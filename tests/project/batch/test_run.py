"""A batch and event loops; images in trouble need neither QuPath nor a model."""

import asyncio
from pathlib import Path

import pytest

from fixtures.engine_runs import MODEL
from wsisam_qupath.inference.executors import LocalExecutor
from wsisam_qupath.inference.loading import resolve
from wsisam_qupath.options import OutlineOptions
from wsisam_qupath.project.batch.config import BatchConfig
from wsisam_qupath.project.batch.opening import SlideOpener
from wsisam_qupath.project.batch.run import Batch
from wsisam_qupath.project.batch.selection import PromptFilter
from wsisam_qupath.qupath.files.entries import ImageEntry, Project
from wsisam_qupath.qupath.jvm.process import QuPathProcess
from wsisam_qupath.report.outcome import ImageOutcome


class Listener:
    """Remembers the images that have ended; some are too much for it."""

    def __init__(self, too_much: str = "") -> None:
        self.ended: list[str] = []
        self._too_much = too_much

    def on_prompts_found(self, tasks: int) -> None: ...

    def on_prompts_done(self, count: int) -> None: ...

    def on_notice(self, words: str) -> None: ...

    def on_image_end(self, outcome: ImageOutcome) -> None:
        if outcome.id == self._too_much:
            raise ZeroDivisionError(outcome.id)
        self.ended.append(outcome.id)


def troubled(folder: Path) -> list[ImageEntry]:
    return [
        ImageEntry(str(n), f"{n}.svs", folder / str(n), "", None, trouble=f"Slide {n} is gone.")
        for n in range(20)
    ]


def make_batch(folder: Path, listener: Listener) -> Batch:
    project = Project(folder / "project.qpproj", "0.6.0", tuple(troubled(folder)))
    model, options = resolve(MODEL), OutlineOptions()
    process, executor = QuPathProcess(), LocalExecutor(model, options)
    config = BatchConfig(project, PromptFilter(), options, model, plan_only=True)
    opener = SlideOpener(process, project, None)
    return Batch(config, process, opener, executor, lambda: executor, listener)


def run(batch: Batch, entries: list[ImageEntry]) -> list[ImageOutcome]:
    return batch.run(entries)


async def run_in_loop(batch: Batch, entries: list[ImageEntry]) -> list[ImageOutcome]:
    """As a cell of a notebook does."""
    return batch.run(entries)


@pytest.mark.parametrize("in_notebook", [False, True])
def test_outcomes_come_in_the_order_of_the_images(tmp_path: Path, in_notebook: bool) -> None:
    listener, entries = Listener(), troubled(tmp_path)
    batch = make_batch(tmp_path, listener)

    outcomes = asyncio.run(run_in_loop(batch, entries)) if in_notebook else run(batch, entries)

    assert [one.id for one in outcomes] == listener.ended == [str(n) for n in range(20)]
    assert {one.state for one in outcomes} == {"failed"}
    assert outcomes[7].reason == "Slide 7 is gone."


@pytest.mark.parametrize("in_notebook", [False, True])
def test_an_error_of_the_listener_is_raised_when_the_images_have_ended(
    tmp_path: Path, in_notebook: bool
) -> None:
    listener, entries = Listener("3"), troubled(tmp_path)
    batch = make_batch(tmp_path, listener)

    with pytest.raises(ZeroDivisionError, match="3"):
        asyncio.run(run_in_loop(batch, entries)) if in_notebook else run(batch, entries)

    assert len(listener.ended) == 19
