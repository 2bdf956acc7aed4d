"""Where prompts are answered: in this process, in several on this machine, or on a dask cluster.

All of them load the model when the first prompt comes, and answer with the same values.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Protocol, TypeAlias

from ..engine import Segmenter, SegmentOptions, Tally
from ..errors import DeviceError, OptionError
from ..geojson.provenance import ObjectType
from ..geometry import PatchPair
from ..planning import Planner
from ..prompts import Prompt
from ..results import Answer
from ..slide import Slide
from ..work import Job, ModelSpec, answer, load_segmenter, run_job

Deliver: TypeAlias = Callable[[Answer], None]

_JOB_PROMPTS = 32
"""Enough to make up for opening the slide elsewhere, few enough to share out and to lose."""

_TRIES = 3
"""A job that ended so many workers is at fault itself."""


@dataclass(frozen=True)
class Work:
    """Prompts on one slide.

    Attributes:
        planner: says which prompts share a patch pair.
        deliver: called from any thread, with answers that are ready before the others are.
    """

    slide: Slide
    prompts: tuple[Prompt, ...]
    planner: Planner
    deliver: Deliver


class Engine(Protocol):
    """Answers prompts, in threads, processes or machines of its own.

    Attributes:
        images_in_hand: so many images keep it busy while others are read and written.
    """

    images_in_hand: int

    def answer(self, work: Work) -> list[Future[Sequence[Answer]]]:
        """Start to answer prompts.

        Returns:
            Futures of the answers that were not delivered one by one.
        """
        ...

    def close(self) -> None:
        """Stop at once; what was not answered stays so."""
        ...


class LocalEngine:
    """One model in this process; answers are delivered one by one."""

    images_in_hand = 2

    def __init__(self, model: ModelSpec, options: SegmentOptions, object_type: ObjectType) -> None:
        self._model, self._options, self._object_type = model, options, object_type
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="engine")
        self._closed = threading.Event()
        self._segmenter: Segmenter | None = None

    @property
    def tally(self) -> Tally | None:
        """What was done so far; None before the first prompt."""
        return self._segmenter.tally if self._segmenter else None

    def answer(self, work: Work) -> list[Future[Sequence[Answer]]]:
        return [self._thread.submit(self._answer, work)]

    def _answer(self, work: Work) -> Sequence[Answer]:
        if self._segmenter is None:
            self._segmenter = load_segmenter(self._model)
        found = answer(self._segmenter, work.slide, work.prompts, self._options, self._object_type)
        with closing(found) as answers:
            for one in answers:
                if self._closed.is_set():
                    break
                work.deliver(one)
        return ()

    def close(self) -> None:
        self._closed.set()
        self._thread.shutdown(cancel_futures=True)


class _JobEngine:
    """Sends jobs away; what is common to processes and clusters."""

    def __init__(
        self, model: ModelSpec, options: SegmentOptions, object_type: ObjectType, workers: int
    ) -> None:
        self._model, self._options, self._object_type = model, options, object_type
        self.images_in_hand = 2 + 2 * workers

    def answer(self, work: Work) -> list[Future[Sequence[Answer]]]:
        return [
            self._send(
                Job(work.slide.reference, some, self._model, self._options, self._object_type)
            )
            for some in _packed(work.prompts, work.planner)
        ]

    def _send(self, job: Job) -> Future[Sequence[Answer]]:
        raise NotImplementedError


class ProcessEngine(_JobEngine):
    """Several processes on this machine, each with a model, or each with a GPU, of its own."""

    def __init__(
        self, model: ModelSpec, options: SegmentOptions, object_type: ObjectType, workers: int
    ) -> None:
        super().__init__(model, options, object_type, workers)
        self._models = _shared_out(model, workers)
        # One thread and one pool a worker: a process that is lost takes one job with it, while a
        # common pool would break for all.
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="worker")
        self._lock = threading.Lock()
        self._pools: dict[int, ProcessPoolExecutor] = {}
        self._closed = False

    def _send(self, job: Job) -> Future[Sequence[Answer]]:
        return self._threads.submit(self._run, job)

    def _run(self, job: Job) -> Sequence[Answer]:
        for _ in range(_TRIES):
            number, pool = self._own_pool()
            try:
                return pool.submit(run_job, replace(job, model=self._models[number])).result()
            except BrokenProcessPool:
                with self._lock:
                    self._pools.pop(number, None)
                if self._closed:
                    break
        raise DeviceError(
            f"A worker ended {_TRIES} times at the same prompts on {job.slide.location}. If memory "
            "ran out, use fewer --workers."
        )

    def _own_pool(self) -> tuple[int, ProcessPoolExecutor]:
        """The pool of this thread, by its number."""
        number = int(threading.current_thread().name.rpartition("_")[2])
        with self._lock:
            if number not in self._pools:
                self._pools[number] = ProcessPoolExecutor(
                    1, multiprocessing.get_context("spawn"), initializer=_leave_interrupts
                )
            return number, self._pools[number]

    def close(self) -> None:
        self._closed = True
        with self._lock:
            pools = list(self._pools.values())
        for pool in pools:
            for process in list((pool._processes or {}).values()):
                process.kill()
        self._threads.shutdown(cancel_futures=True)
        for pool in pools:
            pool.shutdown(cancel_futures=True)


class DaskEngine(_JobEngine):
    """An existing dask cluster, whose scheduler gives a lost worker's jobs to others.

    Raises:
        OptionError: dask is not installed, or no scheduler answers.
    """

    def __init__(
        self, model: ModelSpec, options: SegmentOptions, object_type: ObjectType, address: str
    ) -> None:
        try:
            from distributed import Client  # noqa: PLC0415 - an extra, and a second to import
        except ImportError as exc:
            raise OptionError(
                '--dask needs dask: run `pip install "wsisam-qupath[dask]"`.'
            ) from exc
        try:
            self._client = Client(address, timeout=15, set_as_default=False)
        except (OSError, ValueError) as exc:
            raise OptionError(
                f"No dask scheduler answers at {address}. Start one with `dask scheduler`, and "
                "give its address, e.g. tcp://node1:8786."
            ) from exc
        threads = sum(self._client.nthreads().values())
        super().__init__(model, options, object_type, max(1, threads))
        self._executor: Executor = self._client.get_executor(pure=False, retries=_TRIES)

    def _send(self, job: Job) -> Future[Sequence[Answer]]:
        return self._executor.submit(run_job, job)

    def close(self) -> None:
        self._executor.shutdown(wait=False)
        self._client.close()


def _leave_interrupts() -> None:
    """Ctrl-C reaches every process of a terminal; the driver alone ends the others."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _shared_out(model: ModelSpec, workers: int) -> list[ModelSpec]:
    """The model of each worker: a GPU each as far as they go, else its share of the cores."""
    from ..loading import choose, gpu_count  # noqa: PLC0415 - may import PyTorch

    device, _ = choose(model.device, model.backend)
    if device == "cuda":
        count = gpu_count()
        return [replace(model, device=f"cuda:{number % count}") for number in range(workers)]
    if device != "cpu":
        return [model] * workers
    return [replace(model, threads=max(1, (os.cpu_count() or 1) // workers))] * workers


def _packed(prompts: Sequence[Prompt], planner: Planner) -> Iterator[tuple[Prompt, ...]]:
    """Jobs of some size, in which prompts of one patch pair stay together."""
    by_pair: dict[PatchPair, list[Prompt]] = {}
    for prompt in prompts:
        by_pair.setdefault(planner.pair(prompt), []).append(prompt)
    pack: list[Prompt] = []
    for members in by_pair.values():
        if pack and len(pack) + len(members) > _JOB_PROMPTS:
            yield tuple(pack)
            pack = []
        pack += members
    if pack:
        yield tuple(pack)
