"""The same answers wherever prompts are answered, whatever ends meanwhile."""

from __future__ import annotations

import multiprocessing
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError, Future
from contextlib import closing, contextmanager
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any, TypeAlias

import psutil
import pytest
from shapely import from_wkt
from shapely.geometry import box, shape
from shapely.geometry.base import BaseGeometry

from batch_projects import copy_of, seen_by, write_annotations, write_slides
from command_line import environment, run, run_python
from qupath_fixtures import Seen, qupath
from wsisam_qupath.backends import ImageArray
from wsisam_qupath.batch import engines
from wsisam_qupath.batch.engines import DaskEngine, Engine, LocalEngine, ProcessEngine, Work
from wsisam_qupath.engine import SegmentOptions
from wsisam_qupath.errors import DeviceError, OptionError, SlideError, WeightsError
from wsisam_qupath.geojson.provenance import DRAWN_KEY, PROMPT_KEY, ObjectType
from wsisam_qupath.geometry import Box
from wsisam_qupath.model.bases import find_base
from wsisam_qupath.planning import Planner
from wsisam_qupath.prompts import PathClass, Prompt
from wsisam_qupath.qupath.process import QuPathProcess
from wsisam_qupath.results import Answer
from wsisam_qupath.slide import Slide, open_slide
from wsisam_qupath.work import ModelSpec

__all__ = ["qupath"]  # a fixture

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


def test_an_engine_in_this_process_delivers_answers_one_by_one(
    serial: dict[str, Answer], tissue_slide: Slide
) -> None:
    delivered: list[Answer] = []
    with engine_of(LocalEngine(*PARTS)) as engine:
        (job,) = engine.answer(work(tissue_slide, PROMPTS, delivered))
        assert job.result(timeout=PATIENCE_SECONDS) == ()

    assert by_prompt([delivered]) == serial
    assert list(serial) == [prompt.id for prompt in PROMPTS]
    assert any(answer.feature for answer in serial.values())
    assert any(answer.feature is None for answer in serial.values())


def test_the_number_of_threads_hardly_moves_an_outline(
    serial: dict[str, Answer], tissue_slide: Slide
) -> None:
    more = replace(MODEL, threads=THREADS + 1)
    with engine_of(LocalEngine(more, SegmentOptions(), "detection")) as engine:
        others = answers(engine, tissue_slide, [PROMPTS])

    assert_alike(others.values(), serial)


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


def test_processes_answer_the_same_without_java(
    serial: dict[str, Answer], tissue_slide: Slide
) -> None:
    with engine_of(ProcessEngine(*PARTS, workers=2)) as engine:
        found = answers(engine, tissue_slide, apart(PROMPTS))
        assert isinstance(engine, ProcessEngine)
        assert len(engine._pools) == 2
        for pool in engine._pools.values():
            assert java_among(pool.submit(eval, MODULES).result()) == []

    assert found == serial
    assert multiprocessing.active_children() == []


MODULES = "sorted(__import__('sys').modules)"


def java_among(modules: Sequence[str]) -> list[str]:
    return [name for name in modules if name.partition(".")[0] in ("jpype", "paquo")]


def test_what_a_killed_process_had_in_hand_is_done_again(
    serial: dict[str, Answer], tissue_slide: Slide
) -> None:
    with engine_of(ProcessEngine(*PARTS, workers=2)) as engine:
        jobs = begin(engine, tissue_slide, apart(PROMPTS))
        wait_for_first(jobs)
        killed = multiprocessing.active_children()
        killed[0].kill()
        found = by_prompt([job.result(timeout=PATIENCE_SECONDS) for job in jobs])
        living = {process.pid for process in multiprocessing.active_children()}

    assert found == serial
    assert killed[0].pid not in living
    assert len(living) == 2


def test_prompts_that_end_every_process_fail_alone(tissue_slide: Slide) -> None:
    with engine_of(ProcessEngine(*PARTS, workers=1)) as engine:
        deadly, other = begin(engine, tissue_slide, [[DEADLY], PROMPTS[:1]])

        with pytest.raises(DeviceError, match=r"ended 3 times.*fewer --workers"):
            deadly.result(timeout=PATIENCE_SECONDS)
        assert [answer.prompt_id for answer in other.result(timeout=PATIENCE_SECONDS)] == ["corner"]


@pytest.mark.parametrize("after", ["start", "first answer"])
def test_processes_stop_at_once(tissue_slide: Slide, after: str) -> None:
    engine = ProcessEngine(*PARTS, workers=2)
    jobs = begin(engine, tissue_slide, [PROMPTS[:1], PROMPTS[1:2], *[LONG] * 4])
    if after == "first answer":
        wait_for_first(jobs)
    children = multiprocessing.active_children()
    start = time.perf_counter()

    engine.close()

    assert time.perf_counter() - start < 2
    assert all(job.done() for job in jobs)
    assert multiprocessing.active_children() == []
    assert not any(psutil.pid_exists(child.pid or 0) for child in children)


def test_the_engine_in_this_process_stops_after_the_prompt_that_it_is_at(
    tissue_slide: Slide,
) -> None:
    engine = LocalEngine(*PARTS)
    delivered: list[Answer] = []
    jobs = [job for _ in range(3) for job in engine.answer(work(tissue_slide, LONG, delivered))]
    while not delivered:
        time.sleep(0.01)

    engine.close()

    assert len(delivered) < len(LONG)
    assert [job.cancelled() for job in jobs] == [False, True, True]


DRIVER = """
import sys, time
from pathlib import Path
from wsisam_qupath.batch import engines
from wsisam_qupath.batch.engines import ProcessEngine, Work
from wsisam_qupath.engine import SegmentOptions
from wsisam_qupath.geometry import Box
from wsisam_qupath.planning import Planner
from wsisam_qupath.prompts import Prompt
from wsisam_qupath.slide import open_slide
from wsisam_qupath.work import ModelSpec
import multiprocessing, os, signal
if __name__ == "__main__":
    engine = ProcessEngine(ModelSpec(device="cpu"), SegmentOptions(), "detection", 2)
    slide = open_slide(sys.argv[1])
    prompts = [Prompt(str(n), l0_box=Box(n, n, n + 99, n + 99)) for n in range(0, 400, 20)]
    for _ in range(9):
        engine.answer(Work(slide, tuple(prompts), Planner(slide.mpp, 256), print))
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
    end = time.monotonic() + 10
    while any(map(psutil.pid_exists, children)):
        assert time.monotonic() < end, "a worker outlives its driver"
        time.sleep(0.05)


@pytest.fixture(scope="module")
def distributed() -> Any:
    return pytest.importorskip("distributed", reason="no dask: pip install distributed")


@pytest.fixture(scope="module")
def cluster(distributed: Any) -> Iterator[Any]:
    """Two workers, a process with one thread each, and their scheduler."""
    with local_cluster(distributed, workers=2) as found:
        yield found


@contextmanager
def local_cluster(distributed: Any, workers: int, **options: Any) -> Iterator[Any]:
    given = {"threads_per_worker": 1, "dashboard_address": "127.0.0.1:0", **options}
    # A cluster gives up a worker that is dead so long after its death, be it another one by then.
    patience = {"distributed.deploy.lost-worker-timeout": f"{PATIENCE_SECONDS} s"}
    with (
        import_module("dask.config").set(patience),
        distributed.LocalCluster(n_workers=workers, **given) as found,
    ):
        yield found


def dask_engine(cluster: Any) -> DaskEngine:
    return DaskEngine(*PARTS, cluster.scheduler_address)


def test_dask_workers_answer_the_same_without_java_and_after_one_was_killed(
    serial: dict[str, Answer], tissue_slide: Slide, cluster: Any
) -> None:
    before = {worker.pid for worker in cluster.workers.values()}
    with closing(dask_engine(cluster)) as engine:
        assert engine.images_in_hand == 6
        first = answers(engine, tissue_slide, apart(PROMPTS))
        for modules in engine._client.run(eval, MODULES).values():
            assert java_among(modules) == []

        jobs = begin(engine, tissue_slide, apart(PROMPTS * 4))
        wait_for_first(jobs)
        psutil.Process(min(before)).kill()
        found = [answer for job in jobs for answer in job.result(timeout=PATIENCE_SECONDS)]

    assert not psutil.pid_exists(min(before))
    assert len(found) == 4 * len(PROMPTS)
    assert first.keys() == serial.keys()
    assert_alike([*first.values(), *found], serial)


def test_prompts_that_end_every_dask_worker_fail_and_others_are_done(
    tissue_slide: Slide, cluster: Any
) -> None:
    with closing(dask_engine(cluster)) as engine:
        (deadly,) = begin(engine, tissue_slide, [[DEADLY]])
        with pytest.raises(DeviceError, match="Several dask workers ended"):
            deadly.result(timeout=PATIENCE_SECONDS)

        (other,) = begin(engine, tissue_slide, [PROMPTS[:1]])
        assert [one.prompt_id for one in other.result(timeout=PATIENCE_SECONDS)] == ["corner"]


def test_what_dask_workers_cannot_open_is_said_to_be_missing_there(
    tissue_path: Path, cluster: Any, tmp_path: Path
) -> None:
    here = tmp_path / "only here.tif"
    here.write_bytes(tissue_path.read_bytes())
    with closing(dask_engine(cluster)) as engine, open_slide(here) as slide:
        here.rename(tmp_path / "moved.tif")
        (job,) = begin(engine, slide, [PROMPTS[:1]])

        with pytest.raises(SlideError, match=r"^A dask worker says: .* same paths as here"):
            job.result(timeout=PATIENCE_SECONDS)


def test_other_errors_of_dask_workers_keep_their_kind_and_cure(
    tissue_slide: Slide, cluster: Any
) -> None:
    weights = Path("gone.pth")
    parts: Parts = (replace(MODEL, weights=weights), SegmentOptions(), "detection")
    with closing(DaskEngine(*parts, cluster.scheduler_address)) as engine:
        (job,) = begin(engine, tissue_slide, [PROMPTS[:1]])

        with pytest.raises(WeightsError, match=r"^A dask worker says: ") as error:
            job.result(timeout=PATIENCE_SECONDS)
    assert str(weights.absolute()) in str(error.value)  # a worker may run in another folder


def test_a_cancelled_job_is_no_error(tissue_slide: Slide, cluster: Any) -> None:
    with closing(dask_engine(cluster)) as engine:
        jobs = begin(engine, tissue_slide, apart(PROMPTS))
        assert jobs[-1].cancel()
        found = by_prompt([job.result(timeout=PATIENCE_SECONDS) for job in jobs[:-1]])

    assert len(found) == len(PROMPTS) - 1


def test_a_dask_engine_stops_at_once(tissue_slide: Slide, cluster: Any) -> None:
    engine = dask_engine(cluster)
    jobs = begin(engine, tissue_slide, [LONG] * 4)
    start = time.perf_counter()

    engine.close()

    assert time.perf_counter() - start < 2
    for job in jobs:
        with pytest.raises((CancelledError, DeviceError)):
            job.result(timeout=10)


def test_threads_of_a_dask_worker_share_one_model(
    distributed: Any, serial: dict[str, Answer], tissue_slide: Slide
) -> None:
    with (
        local_cluster(distributed, 1, threads_per_worker=4) as cluster,
        closing(dask_engine(cluster)) as engine,
    ):
        found = answers(engine, tissue_slide, apart(PROMPTS))
        (loads,) = engine._client.run(eval, LOADS).values()

    assert_alike(found.values(), serial)
    assert loads == 1


LOADS = "__import__('wsisam_qupath.work', fromlist=[''])._last_segmenter.cache_info().misses"


def test_a_cluster_without_this_program_is_told_from_a_broken_one(
    distributed: Any, tissue_slide: Slide, tmp_path: Path
) -> None:
    hiding = tmp_path / "hiding.py"
    hiding.write_text(HIDING.replace("NAME", "wsisam_qupath"), encoding="utf-8")
    with (
        local_cluster(distributed, 1, preload=[str(hiding)]) as cluster,
        closing(dask_engine(cluster)) as engine,
    ):
        for job in begin(engine, tissue_slide, apart(PROMPTS)):
            with pytest.raises(DeviceError, match="install this version of wsisam-qupath"):
                job.result(timeout=PATIENCE_SECONDS)


def test_a_scheduler_that_goes_away_is_named(distributed: Any, tissue_slide: Slide) -> None:
    with local_cluster(distributed, 1) as cluster:
        engine = dask_engine(cluster)
        jobs = begin(engine, tissue_slide, [LONG] * 3)
    for job in jobs:
        with pytest.raises(DeviceError, match=r"scheduler at tcp://.* is gone"):
            job.result(timeout=PATIENCE_SECONDS)
    start = time.perf_counter()

    engine.close()

    assert time.perf_counter() - start < 5


@pytest.mark.parametrize(
    "address", ["nonsense", "node1:port", "foo://node1:8786", "http://node1:8787", "tls://a:1", ""]
)
def test_what_is_no_address_of_a_scheduler_is_refused(distributed: Any, address: str) -> None:
    with pytest.raises(OptionError, match=r"No dask scheduler answers at .* `dask scheduler`"):
        DaskEngine(*PARTS, address)


@pytest.mark.parametrize("what", ["nobody", "a web server", "one who says nothing"])
def test_an_address_where_no_scheduler_is_is_given_up_soon(
    distributed: Any, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    assert engines._CONNECT_SECONDS + engines._SILENCE_SECONDS < 20
    monkeypatch.setattr(engines, "_CONNECT_SECONDS", 1)
    monkeypatch.setattr(engines, "_SILENCE_SECONDS", 1)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        if what != "nobody":
            listener.listen()
        if what == "a web server":
            threading.Thread(target=refuse, args=(listener,), daemon=True).start()
        host, port = listener.getsockname()

        with pytest.raises(OptionError, match=f"No dask scheduler answers at {host}:{port}"):
            DaskEngine(*PARTS, f"{host}:{port}")


def refuse(listener: socket.socket) -> None:
    """As a web server does, such as dask's own page."""
    connection, _ = listener.accept()
    with connection:
        connection.sendall(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n" * 4)


HIDING = """
import sys
class Hiding:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "NAME":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Hiding())
"""
"""Makes a package look as if it was not installed."""

WITHOUT_DASK = """
from wsisam_qupath.batch import engines
from wsisam_qupath.batch.engines import DaskEngine
from wsisam_qupath.engine import SegmentOptions
from wsisam_qupath.errors import OptionError
from wsisam_qupath.work import ModelSpec
try:
    DaskEngine(ModelSpec(), SegmentOptions(), "detection", "tcp://127.0.0.1:8786")
except OptionError as error:
    print(error)
"""


def test_a_missing_dask_is_named_with_its_cure() -> None:
    ended = run_python("-c", HIDING.replace("NAME", "distributed") + WITHOUT_DASK)

    assert ended.out == '--dask needs dask: run `pip install "wsisam-qupath[dask]"`.\n'
    assert ended.err == ""


@pytest.mark.qupath
def test_a_project_gets_the_same_from_processes(
    qupath: QuPathProcess, tissue: ImageArray, tmp_path: Path
) -> None:
    slides = write_slides(tmp_path / "slides", tissue)
    drawn = write_annotations(tmp_path / "drawn")
    alone = tmp_path / "alone" / "project.qpproj"
    made = run("create", alone, "--images", slides, "--annotations", drawn)
    assert made.code == 0, made.err
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
