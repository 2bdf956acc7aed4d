"""Prompts on the tissue of conftest.py, and engines that answer them."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from shapely.geometry import box, shape
from shapely.geometry.base import BaseGeometry

from wsisam_qupath.batch.engines import Engine, LocalEngine, Work
from wsisam_qupath.engine import SegmentOptions
from wsisam_qupath.geojson.provenance import ObjectType
from wsisam_qupath.geometry import Box
from wsisam_qupath.model.bases import find_base
from wsisam_qupath.planning import Planner
from wsisam_qupath.prompts import PathClass, Prompt
from wsisam_qupath.results import Answer
from wsisam_qupath.slide import Slide, open_slide
from wsisam_qupath.work import ModelSpec

Parts: TypeAlias = tuple[ModelSpec, SegmentOptions, ObjectType]

THREADS = max(1, (os.cpu_count() or 1) // 2)
"""What each of two processes gets; with as many, this process computes the same bits."""

PATIENCE_SECONDS = 300
"""For a machine that has much else to do."""

MODEL = ModelSpec(adapter=None, device="cpu", threads=THREADS)
PARTS: Parts = (MODEL, SegmentOptions(), "detection")
GLAND = PathClass("Gland", (0, 122, 255))
PROMPTS = (
    Prompt("corner", l0_box=Box(0, 0, 280, 266), path_class=GLAND),
    Prompt("top", l0_box=Box(262, 0, 470, 302)),
    Prompt("left", l0_box=Box(10, 200, 120, 320)),
    Prompt("middle", l0_box=Box(200, 180, 330, 300), l0_negatives=((210.0, 190.0),)),
    Prompt("right", l0_box=Box(400, 120, 512, 260)),
    Prompt("bottom", l0_outline=box(150, 330, 300, 480)),
    Prompt("click", l0_positives=((300.0, 100.0),)),
    Prompt("far click", l0_positives=((440.0, 440.0), (430.0, 450.0))),
)
LONG = tuple(
    Prompt(f"{x} {y}", l0_box=Box(x, y, x + 40, y + 40)) for x in range(0, 460, 70)
    for y in range(0, 460, 100)
)  # fmt: skip
"""More than a job, which takes seconds."""


class Deadly(Prompt):
    """Ends the process that receives it."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os._exit, (1,)


DEADLY = Deadly("deadly", l0_box=Box(0, 0, 100, 100))


@pytest.fixture(scope="module")
def serial(tissue_path: Path) -> dict[str, Answer]:
    """What the model in this process answers, by prompt."""
    with engine_of(LocalEngine(*PARTS)) as engine, open_slide(tissue_path) as slide:
        return answers(engine, slide, [PROMPTS])


@contextmanager
def engine_of(engine: Engine) -> Iterator[Engine]:
    with closing(engine):
        yield engine


def work(slide: Slide, prompts: Sequence[Prompt], delivered: list[Answer]) -> Work:
    planner = Planner(slide.mpp, find_base(MODEL.base).size_px)
    return Work(slide, tuple(prompts), planner, delivered.append)


def begin(
    engine: Engine, slide: Slide, images: Sequence[Sequence[Prompt]]
) -> list[Future[Sequence[Answer]]]:
    delivered: list[Answer] = []
    return [job for one in images for job in engine.answer(work(slide, one, delivered))]


def answers(engine: Engine, slide: Slide, images: Sequence[Sequence[Prompt]]) -> dict[str, Answer]:
    """Of all prompts of some images, which are one slide here."""
    delivered: list[Answer] = []
    jobs = [job for one in images for job in engine.answer(work(slide, one, delivered))]
    return by_prompt([delivered, *(job.result(timeout=PATIENCE_SECONDS) for job in jobs)])


def by_prompt(found: Sequence[Sequence[Answer]]) -> dict[str, Answer]:
    listed = [answer for some in found for answer in some]
    known = {answer.prompt_id: answer for answer in listed}
    assert len(known) == len(listed), "a prompt was answered twice"
    return known


def apart(prompts: Sequence[Prompt]) -> list[tuple[Prompt, ...]]:
    """An image a prompt, so that there are jobs to share out."""
    return [(prompt,) for prompt in prompts]


def wait_for_first(jobs: Sequence[Future[Any]]) -> None:
    end = time.monotonic() + PATIENCE_SECONDS
    while not any(job.done() for job in jobs):
        assert time.monotonic() < end
        time.sleep(0.01)


def assert_alike(found: Iterable[Answer], expected: Mapping[str, Answer]) -> None:
    """The same to the last digit but for the outlines, which share all but a thousandth."""
    for one in found:
        other = expected[one.prompt_id]
        assert (one.id, one.reason) == (other.id, other.reason)
        if one.feature is not None and other.feature is not None:
            assert are_alike(shape(one.feature["geometry"]), shape(other.feature["geometry"]))
        else:
            assert one.feature is other.feature is None


def are_alike(one: BaseGeometry, other: BaseGeometry) -> bool:
    """Another number of threads moved no outline by more, on any processor seen."""
    shared, whole = one.intersection(other), one.union(other)
    return bool(shared.area >= 0.999 * whole.area)


MODULES = "sorted(__import__('sys').modules)"


def java_among(modules: Sequence[str]) -> list[str]:
    return [name for name in modules if name.partition(".")[0] in ("jpype", "paquo")]
