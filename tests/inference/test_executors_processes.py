"""The same answers from this process and from several, whatever ends meanwhile."""

from __future__ import annotations

import multiprocessing
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from shapely import from_wkt

from fixtures.batch_projects import copy_of, create_project, seen_by
from fixtures.command_line import environment, run
from fixtures.engine_runs import (
    DEADLY,
    LONG,
    MODEL,
    MODULES,
    PARTS,
    PATIENCE_SECONDS,
    PROMPTS,
    THREADS,
    answers,
    apart,
    are_alike,
    assert_alike,
    begin,
    by_prompt,
    engine_of,
    java_among,
    wait_for_first,
    work,
)
from fixtures.qupath_fixtures import Seen
from wsisam_qupath.errors import DeviceError
from wsisam_qupath.geojson.provenance import DRAWN_KEY, PROMPT_KEY
from wsisam_qupath.inference.backends import ImageArray
from wsisam_qupath.inference.executors import LocalExecutor, ProcessExecutor
from wsisam_qupath.inference.loading import resolve
from wsisam_qupath.options import OutlineOptions
from wsisam_qupath.prompts.results import SerializedResult
from wsisam_qupath.qupath.jvm.process import QuPathProcess
from wsisam_qupath.slide import Slide

pytestmark = [pytest.mark.slow, pytest.mark.walk]


def test_an_engine_in_this_process_delivers_answers_one_by_one(
    serial: dict[str, SerializedResult], tissue_slide: Slide
) -> None:
    delivered: list[SerializedResult] = []
    with engine_of(LocalExecutor(resolve(MODEL), OutlineOptions())) as executor:
        (job,) = executor.submit(work(tissue_slide, PROMPTS, delivered))
        assert job.result(timeout=PATIENCE_SECONDS) == ()

    assert by_prompt([delivered]) == serial
    assert list(serial) == [prompt.id for prompt in PROMPTS]
    assert any(answer.feature for answer in serial.values())
    assert any(answer.feature is None for answer in serial.values())


def test_the_number_of_threads_hardly_moves_an_outline(
    serial: dict[str, SerializedResult], tissue_slide: Slide
) -> None:
    more = replace(MODEL, threads=THREADS + 1)
    with engine_of(LocalExecutor(resolve(more), OutlineOptions())) as executor:
        others = answers(executor, tissue_slide, [PROMPTS])

    assert_alike(others.values(), serial)


def test_processes_answer_the_same_without_java(
    serial: dict[str, SerializedResult], tissue_slide: Slide
) -> None:
    with engine_of(ProcessExecutor(*PARTS, workers=2)) as executor:
        found = answers(executor, tissue_slide, apart(PROMPTS))
        assert isinstance(executor, ProcessExecutor)
        assert len(executor._workers._pools) == 2
        for pool in executor._workers._pools.values():
            assert java_among(pool.submit(eval, MODULES).result()) == []

    assert found == serial
    assert multiprocessing.active_children() == []


def test_what_a_killed_process_had_in_hand_is_done_again(
    serial: dict[str, SerializedResult], tissue_slide: Slide
) -> None:
    with engine_of(ProcessExecutor(*PARTS, workers=2)) as executor:
        jobs = begin(executor, tissue_slide, apart(PROMPTS))
        wait_for_first(jobs)
        killed = multiprocessing.active_children()
        killed[0].kill()
        found = by_prompt([job.result(timeout=PATIENCE_SECONDS) for job in jobs])
        living = {process.pid for process in multiprocessing.active_children()}

    assert found == serial
    assert killed[0].pid not in living
    assert len(living) == 2


def test_prompts_that_end_every_process_fail_alone(tissue_slide: Slide) -> None:
    with engine_of(ProcessExecutor(*PARTS, workers=1)) as executor:
        deadly, other = begin(executor, tissue_slide, [[DEADLY], PROMPTS[:1]])

        with pytest.raises(DeviceError, match=r"ended 3 times.*fewer workers"):
            deadly.result(timeout=PATIENCE_SECONDS)
        assert [answer.prompt_id for answer in other.result(timeout=PATIENCE_SECONDS)] == ["corner"]


@pytest.mark.parametrize("after", ["start", "first answer"])
def test_processes_stop_at_once(tissue_slide: Slide, after: str) -> None:
    executor = ProcessExecutor(*PARTS, workers=2)
    jobs = begin(executor, tissue_slide, [PROMPTS[:1], PROMPTS[1:2], *[LONG] * 4])
    if after == "first answer":
        wait_for_first(jobs)
    children = multiprocessing.active_children()
    start = time.perf_counter()

    executor.close()

    assert time.perf_counter() - start < 2
    assert all(job.done() for job in jobs)
    assert multiprocessing.active_children() == []
    assert not any(psutil.pid_exists(child.pid or 0) for child in children)


def test_the_engine_in_this_process_stops_after_the_prompt_that_it_is_at(
    tissue_slide: Slide,
) -> None:
    executor = LocalExecutor(resolve(MODEL), OutlineOptions())
    delivered: list[SerializedResult] = []
    jobs = [job for _ in range(3) for job in executor.submit(work(tissue_slide, LONG, delivered))]
    while not delivered:
        time.sleep(0.01)

    executor.close()

    assert len(delivered) < len(LONG)
    assert [job.cancelled() for job in jobs] == [False, True, True]


DRIVER = """
import sys, time
from pathlib import Path
from wsisam_qupath.inference import executors
from wsisam_qupath.inference.executors import ProcessExecutor, Work
from wsisam_qupath.options import OutlineOptions
from wsisam_qupath.geometry import Box
from wsisam_qupath.prompts.planner import Planner
from wsisam_qupath.prompts import Prompt
from wsisam_qupath.slide import open_slide
from wsisam_qupath.options import ModelSpec
import multiprocessing, os, signal
if __name__ == "__main__":
    engine = ProcessExecutor(ModelSpec(device="cpu"), OutlineOptions(), 2)
    slide = open_slide(sys.argv[1])
    prompts = [Prompt(str(n), l0_box=Box(n, n, n + 99, n + 99)) for n in range(0, 400, 20)]
    for _ in range(9):
        engine.submit(Work(slide, tuple(prompts), Planner(slide.mpp, 256), print))
    while len(children := multiprocessing.active_children()) < 2:
        time.sleep(0.01)
    print(*[child.pid for child in children], flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows knows no SIGKILL")
def test_processes_end_with_a_killed_driver(tissue_path: Path, tmp_path: Path) -> None:
    script = tmp_path / "driver.py"
    script.write_text(DRIVER, encoding="utf-8")

    command = [sys.executable, str(script), str(tissue_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment()) as driver:
        assert driver.stdout is not None
        children = [int(pid) for pid in driver.stdout.readline().split()]

    assert len(children) == 2
    end = time.monotonic() + 120
    while any(map(psutil.pid_exists, children)):
        assert time.monotonic() < end, "a worker outlives its driver"
        time.sleep(0.05)


@pytest.mark.qupath
def test_a_project_gets_the_same_from_processes(
    qupath: QuPathProcess, tissue: ImageArray, tmp_path: Path
) -> None:
    alone = create_project(tmp_path, tissue)
    shared = copy_of(alone, tmp_path / "shared")

    for project, options in ((alone, ()), (shared, ("--workers", 2))):
        ended = run("batch", project, "--device", "cpu", *options)
        assert (ended.code, ended.out) == (0, ""), ended.err

    expected, found = seen_by(qupath, alone), seen_by(qupath, shared)
    assert found.keys() == expected.keys()
    for image, objects in expected.items():
        assert [without_outline(one) for one in found[image].values()] == [
            without_outline(one) for one in objects.values()
        ]
        for one in objects.values():
            assert are_alike(from_wkt(one.wkt), from_wkt(found[image][one.id].wkt))
    results = [one for objects in found.values() for one in objects.values() if is_result(one)]
    assert len(results) > 2


def without_outline(seen: Seen) -> Seen:
    """All that the number of threads has no part in."""
    return replace(seen, wkt="", measurements={}, metadata={**seen.metadata, DRAWN_KEY: ""})


def is_result(seen: Seen) -> bool:
    return PROMPT_KEY in seen.metadata
