"""The same answers from dask workers, whatever ends meanwhile."""

from __future__ import annotations

import re
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import CancelledError
from contextlib import closing, contextmanager
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import psutil
import pytest

from fixtures.command_line import run_python
from fixtures.engine_runs import (
    DEADLY,
    LONG,
    MODEL,
    MODULES,
    PARTS,
    PATIENCE_SECONDS,
    PROMPTS,
    Parts,
    answers,
    apart,
    assert_alike,
    begin,
    by_prompt,
    java_among,
    wait_for_first,
)
from wsisam_qupath.errors import DeviceError, OptionError, SlideError, WeightsError
from wsisam_qupath.inference import dask_cluster
from wsisam_qupath.inference.executors import DaskExecutor
from wsisam_qupath.options import OutlineOptions
from wsisam_qupath.prompts.results import SerializedResult
from wsisam_qupath.slide import Slide, open_slide

pytestmark = [pytest.mark.slow, pytest.mark.walk]


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


def dask_engine(cluster: Any) -> DaskExecutor:
    return DaskExecutor(*PARTS, cluster.scheduler_address)


def test_dask_workers_answer_the_same_without_java_and_after_one_was_killed(
    serial: dict[str, SerializedResult], tissue_slide: Slide, cluster: Any
) -> None:
    before = {worker.pid for worker in cluster.workers.values()}
    with closing(dask_engine(cluster)) as executor:
        assert executor.images_at_once == 6
        first = answers(executor, tissue_slide, apart(PROMPTS))
        for modules in executor._cluster._client.run(eval, MODULES).values():
            assert java_among(modules) == []

        jobs = begin(executor, tissue_slide, apart(PROMPTS * 4))
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
    with closing(dask_engine(cluster)) as executor:
        (deadly,) = begin(executor, tissue_slide, [[DEADLY]])
        with pytest.raises(DeviceError, match="Several dask workers ended"):
            deadly.result(timeout=PATIENCE_SECONDS)

        (other,) = begin(executor, tissue_slide, [PROMPTS[:1]])
        assert [one.prompt_id for one in other.result(timeout=PATIENCE_SECONDS)] == ["corner"]


def test_what_dask_workers_cannot_open_is_said_to_be_missing_there(
    tissue_path: Path, cluster: Any, tmp_path: Path
) -> None:
    here = tmp_path / "only here.tif"
    here.write_bytes(tissue_path.read_bytes())
    with closing(dask_engine(cluster)) as executor, open_slide(here) as slide:
        here.rename(tmp_path / "moved.tif")
        (job,) = begin(executor, slide, [PROMPTS[:1]])

        with pytest.raises(SlideError, match=r"^On a dask worker: .* same paths as here"):
            job.result(timeout=PATIENCE_SECONDS)


def test_other_errors_of_dask_workers_keep_their_kind_and_cure(
    tissue_slide: Slide, cluster: Any
) -> None:
    weights = Path("gone.pth")
    parts: Parts = (replace(MODEL, weights=weights), OutlineOptions())
    with closing(DaskExecutor(*parts, cluster.scheduler_address)) as executor:
        (job,) = begin(executor, tissue_slide, [PROMPTS[:1]])

        with pytest.raises(WeightsError, match=r"^On a dask worker: ") as error:
            job.result(timeout=PATIENCE_SECONDS)
    assert str(weights.absolute()) in str(error.value)  # a worker may run in another folder


def test_a_cancelled_job_is_no_error(tissue_slide: Slide, cluster: Any) -> None:
    with closing(dask_engine(cluster)) as executor:
        jobs = begin(executor, tissue_slide, apart(PROMPTS))
        assert jobs[-1].cancel()
        found = by_prompt([job.result(timeout=PATIENCE_SECONDS) for job in jobs[:-1]])

    assert len(found) == len(PROMPTS) - 1


def test_a_dask_engine_stops_at_once(tissue_slide: Slide, cluster: Any) -> None:
    executor = dask_engine(cluster)
    jobs = begin(executor, tissue_slide, [LONG] * 4)
    start = time.perf_counter()

    executor.close()

    assert time.perf_counter() - start < 2
    for job in jobs:
        with pytest.raises((CancelledError, DeviceError)):
            job.result(timeout=10)


def test_threads_of_a_dask_worker_share_one_model(
    distributed: Any, serial: dict[str, SerializedResult], tissue_slide: Slide
) -> None:
    with (
        local_cluster(distributed, 1, threads_per_worker=4) as cluster,
        closing(dask_engine(cluster)) as executor,
    ):
        found = answers(executor, tissue_slide, apart(PROMPTS))
        (loads,) = executor._cluster._client.run(eval, LOADS).values()

    assert_alike(found.values(), serial)
    assert loads == 1


TASKS = "__import__('wsisam_qupath.inference.tasks', fromlist=[''])"
LOADS = f"{TASKS}._load_last_segmenter.cache_info().misses"


def test_a_cluster_without_this_program_is_told_from_a_broken_one(
    distributed: Any, tissue_slide: Slide, tmp_path: Path
) -> None:
    hiding = tmp_path / "hiding.py"
    hiding.write_text(HIDING.replace("NAME", "wsisam_qupath"), encoding="utf-8")
    with (
        local_cluster(distributed, 1, preload=[str(hiding)]) as cluster,
        closing(dask_engine(cluster)) as executor,
    ):
        for job in begin(executor, tissue_slide, apart(PROMPTS)):
            with pytest.raises(DeviceError, match="install this version of wsisam-qupath"):
                job.result(timeout=PATIENCE_SECONDS)


def test_a_scheduler_that_goes_away_is_named(distributed: Any, tissue_slide: Slide) -> None:
    with local_cluster(distributed, 1) as cluster:
        executor = dask_engine(cluster)
        jobs = begin(executor, tissue_slide, [LONG] * 3)
    for job in jobs:
        with pytest.raises(DeviceError, match=r"scheduler at tcp://.* has stopped"):
            job.result(timeout=PATIENCE_SECONDS)
    start = time.perf_counter()

    executor.close()

    assert time.perf_counter() - start < 5


@pytest.mark.parametrize(
    "address", ["nonsense", "node1:port", "foo://node1:8786", "http://node1:8787", "tls://a:1", ""]
)
def test_what_is_no_address_of_a_scheduler_is_refused(distributed: Any, address: str) -> None:
    before = set(threading.enumerate())

    with pytest.raises(OptionError, match=r"no dask scheduler answers at .* `dask scheduler`"):
        DaskExecutor(*PARTS, address)

    assert set(threading.enumerate()) <= before


@pytest.mark.parametrize("what", ["nobody", "a web server", "one who says nothing"])
def test_an_address_where_no_scheduler_is_is_given_up_soon(
    distributed: Any, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    assert dask_cluster._CONNECT_SECONDS + dask_cluster._SILENCE_SECONDS < 20
    monkeypatch.setattr(dask_cluster, "_CONNECT_SECONDS", 1)
    monkeypatch.setattr(dask_cluster, "_SILENCE_SECONDS", 1)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        if what != "nobody":
            listener.listen()
        if what == "a web server":
            threading.Thread(target=refuse, args=(listener,), daemon=True).start()
        host, port = listener.getsockname()
        before = set(threading.enumerate())

        with pytest.raises(OptionError, match=f"no dask scheduler answers at {host}:{port}"):
            DaskExecutor(*PARTS, f"{host}:{port}")

    assert set(threading.enumerate()) <= before  # dask's own client would leave one


def refuse(listener: socket.socket) -> None:
    """As a web server does, such as dask's own page."""
    connection, _ = listener.accept()
    with connection:
        connection.sendall(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n" * 4)


HIDING = """
import re
import sys
class Hiding:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "NAME":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Hiding())
"""
"""Makes a package look as if it was not installed."""

WITHOUT_DASK = """
from wsisam_qupath.inference import executors
from wsisam_qupath.inference.executors import DaskExecutor
from wsisam_qupath.options import OutlineOptions
from wsisam_qupath.errors import OptionError
from wsisam_qupath.options import ModelSpec
try:
    DaskExecutor(ModelSpec(), OutlineOptions(), "tcp://127.0.0.1:8786")
except OptionError as error:
    print(error)
"""


def test_a_missing_dask_is_named_with_its_cure() -> None:
    ended = run_python("-c", HIDING.replace("NAME", "distributed") + WITHOUT_DASK)

    assert re.fullmatch(
        r"dask: dask is not installed: run `.*pip install distributed`\.\n", ended.out
    )
    assert ended.err == ""
