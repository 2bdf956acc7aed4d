"""Where prompts are answered: in this process, in several on this machine, or on a dask cluster.

All of them load the model when the first prompt comes, and answer with the same values.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from dataclasses import dataclass, replace
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any, Protocol, TypeAlias

from ..errors import DeviceError, OptionError, SlideError, WsiSamError, escape
from ..geojson.provenance import ObjectType
from ..geometry import PatchPair
from ..prompts import Prompt
from ..prompts.planner import Planner
from ..prompts.results import SerializedResult
from ..slide import Slide
from .options import SegmentOptions
from .segmenter import Segmenter, Tally
from .tasks import ModelSpec, SegmentTask, load_segmenter, predict, run_task

Deliver: TypeAlias = Callable[[SerializedResult], None]

_TASK_PROMPTS = 32
"""Enough to make up for opening the slide elsewhere, few enough to share out and to lose."""

_TRIES = 3
"""A job that ended so many workers is at fault itself."""

_CONNECT_SECONDS = 10
"""For the scheduler to answer. It is tried anew as long, for it may be starting."""

_SILENCE_SECONDS = 5
"""More, for what takes the connection and then says nothing."""


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


class Executor(Protocol):
    """Answers prompts, in threads, processes or machines of its own.

    Attributes:
        images_in_hand: so many images keep it busy while others are read and written.
    """

    images_in_hand: int

    def submit(self, work: Work) -> list[Future[Sequence[SerializedResult]]]:
        """Start to answer prompts.

        Returns:
            Futures of the answers that were not delivered one by one.
        """
        ...

    def close(self) -> None:
        """Stop at once; what was not answered stays so."""
        ...


class LocalExecutor:
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

    def submit(self, work: Work) -> list[Future[Sequence[SerializedResult]]]:
        return [self._thread.submit(self._predict, work)]

    def _predict(self, work: Work) -> Sequence[SerializedResult]:
        if self._segmenter is None:
            self._segmenter = load_segmenter(self._model)
        found = predict(self._segmenter, work.slide, work.prompts, self._options, self._object_type)
        with closing(found) as answers:
            for one in answers:
                if self._closed.is_set():
                    break
                work.deliver(one)
        return ()

    def close(self) -> None:
        self._closed.set()
        self._thread.shutdown(cancel_futures=True)


class _TaskExecutor(ABC):
    """Sends jobs away; what is common to processes and clusters."""

    def __init__(
        self, model: ModelSpec, options: SegmentOptions, object_type: ObjectType, workers: int
    ) -> None:
        self._model, self._options, self._object_type = model, options, object_type
        self.images_in_hand = 2 + 2 * workers

    def submit(self, work: Work) -> list[Future[Sequence[SerializedResult]]]:
        return [
            self._send(
                SegmentTask(
                    work.slide.reference, some, self._model, self._options, self._object_type
                )
            )
            for some in _pack_prompts(work.prompts, work.planner)
        ]

    @abstractmethod
    def _send(self, task: SegmentTask) -> Future[Sequence[SerializedResult]]:
        """Let a job be answered somewhere."""


class ProcessExecutor(_TaskExecutor):
    """Several processes on this machine, each with a model, or each with a GPU, of its own."""

    def __init__(
        self, model: ModelSpec, options: SegmentOptions, object_type: ObjectType, workers: int
    ) -> None:
        super().__init__(model, options, object_type, workers)
        self._models = _assign_devices(model, workers)
        # One thread and one pool a worker: a process that is lost takes one job with it, while a
        # common pool would break for all.
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="worker")
        self._lock = threading.Lock()
        self._pools: dict[int, ProcessPoolExecutor] = {}
        self._closed = False

    def _send(self, task: SegmentTask) -> Future[Sequence[SerializedResult]]:
        return self._threads.submit(self._run, task)

    def _run(self, task: SegmentTask) -> Sequence[SerializedResult]:
        number = int(threading.current_thread().name.rpartition("_")[2])
        own_job = replace(task, model=self._models[number])
        for _ in range(_TRIES):
            try:
                return self._begin(number, own_job).result()
            except BrokenProcessPool:
                with self._lock:
                    self._pools.pop(number, None)
        raise DeviceError(
            f"A worker ended {_TRIES} times at the same prompts on "
            f"{task.slide.location}. If memory ran out, use fewer --workers."
        )

    def _begin(self, number: int, task: SegmentTask) -> Future[list[SerializedResult]]:
        """Hand a job to the process of this number, which is started where there is none."""
        with self._lock:  # held until the process is there: else `close` could not see it
            if self._closed:
                raise DeviceError("The workers were stopped before these prompts.")
            if number not in self._pools:
                self._pools[number] = ProcessPoolExecutor(
                    1, multiprocessing.get_context("spawn"), initializer=_prepare
                )
            return self._pools[number].submit(run_task, task)

    def close(self) -> None:
        with self._lock:
            self._closed = True
            pools = list(self._pools.values())
        for pool in pools:
            for process in list((pool._processes or {}).values()):
                process.kill()
        self._threads.shutdown(cancel_futures=True)
        for pool in pools:
            pool.shutdown(cancel_futures=True)


class DaskExecutor(_TaskExecutor):
    """An existing dask cluster, whose scheduler gives a lost worker's jobs to others.

    Raises:
        OptionError: dask is not installed, or no scheduler answers.
    """

    def __init__(
        self, model: ModelSpec, options: SegmentOptions, object_type: ObjectType, address: str
    ) -> None:
        self._address = address
        self._client = _connect(address)
        threads = list(self._client.nthreads().values())
        # A worker computes with the cores that it was given: there may be more of them on a node.
        own = replace(_from_any_folder(model), threads=min(threads, default=None))
        super().__init__(own, options, object_type, max(1, sum(threads)))
        self._executor = self._client.get_executor(pure=False)

    def _send(self, task: SegmentTask) -> Future[Sequence[SerializedResult]]:
        # As bytes: a worker (or scheduler) that lacks this package would end at the job itself,
        # without a word to us, and the next one after it.
        sent = self._executor.submit(pickle.loads, pickle.dumps(_Call(task)))
        outcome: Future[Sequence[SerializedResult]] = Future()
        outcome.add_done_callback(lambda _: sent.cancel())  # nothing, if it is done
        sent.add_done_callback(lambda _: self._forward_result(sent, outcome))
        return outcome

    def _forward_result(
        self, sent: Future[Any], outcome: Future[Sequence[SerializedResult]]
    ) -> None:
        if not outcome.set_running_or_notify_cancel():
            return
        error = self._find_error(sent)
        if error is None:
            outcome.set_result(sent.result())
        else:
            outcome.set_exception(error)

    def _find_error(self, sent: Future[Any]) -> BaseException | None:
        """What is wrong with an answer, in words for the user; None if there is one."""
        from distributed import KilledWorker

        if sent.cancelled():
            return DeviceError(
                f"The dask scheduler at {self._address} is gone: start it again, and run this "
                "again."
            )
        error = sent.exception()
        if isinstance(error, KilledWorker):
            return DeviceError(
                "Several dask workers ended at the same prompts: see their logs. If memory ran "
                "out, give them more."
            )
        if isinstance(error, ImportError):
            return DeviceError(
                f"A dask worker cannot do the work ({error}): install this version of "
                "wsisam-qupath there too."
            )
        if isinstance(error, SlideError):
            return SlideError(
                f"A dask worker says: {error} Workers need the slides at the same paths as here."
            )
        if isinstance(error, WsiSamError):
            return type(error)(f"A dask worker says: {error}")
        return error

    def close(self) -> None:
        self._executor.shutdown(wait=False)
        self._client.close()


@dataclass(frozen=True)
class _Call:
    """Unpickles as the answers to a job."""

    task: SegmentTask

    def __reduce__(
        self,
    ) -> tuple[Callable[[SegmentTask], list[SerializedResult]], tuple[SegmentTask]]:
        return _run, (self.task,)


def _run(task: SegmentTask) -> list[SerializedResult]:
    # Here, where a worker with a version of this package from before batches lacks it, and says so.
    return run_task(task)


def _connect(address: str) -> Any:
    """A client of the scheduler there.

    Raises:
        OptionError: dask is not installed, or no scheduler answers.
    """
    try:
        import distributed  # an extra, and a second to import
    except ImportError as exc:
        raise OptionError('--dask needs dask: run `pip install "wsisam-qupath[dask]"`.') from exc
    client: Any = distributed.Client  # has no types
    connected: Future[Any] = Future()

    def connect() -> None:
        try:
            connected.set_result(client(address, timeout=_CONNECT_SECONDS, set_as_default=False))
        except BaseException as exc:  # noqa: BLE001 - goes to whoever waits
            connected.set_exception(exc)

    # Not in this thread: it waits for ever for what takes the connection and says nothing.
    threading.Thread(target=connect, name="dask-connect", daemon=True).start()
    try:
        return connected.result(_CONNECT_SECONDS + _SILENCE_SECONDS)
    except ImportError as exc:
        raise OptionError(
            f"The dask scheduler at {address} does not go together with the dask here ({exc}): "
            "install the same version on both."
        ) from exc
    # MemoryError: it takes what a web server says for the length of an answer.
    except (OSError, ValueError, TypeError, MemoryError, FutureTimeoutError, TimeoutError) as exc:
        raise OptionError(
            f"No dask scheduler answers at {escape(address)}. Start one with `dask scheduler`, "
            "and give the address that it prints, e.g. tcp://node1:8786."
        ) from exc


def _from_any_folder(model: ModelSpec) -> ModelSpec:
    """The same model where paths of here are not relative to the current folder."""
    adapter = model.adapter.absolute() if isinstance(model.adapter, Path) else model.adapter
    weights = None if model.weights is None else model.weights.absolute()
    return replace(model, adapter=adapter, weights=weights)


def _prepare() -> None:
    """First thing in a worker process."""
    # Ctrl-C reaches every process of a terminal; the driver alone ends the others.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_driver, daemon=True).start()


def _end_with_driver() -> None:
    """End this process when the driver is gone, also by ``kill -9``."""
    driver = multiprocessing.parent_process()
    assert driver is not None
    wait([driver.sentinel])
    os._exit(1)


def _assign_devices(model: ModelSpec, workers: int) -> list[ModelSpec]:
    """The model of each worker: a GPU each as far as they go, else its share of the cores."""
    from .loading import choose, gpu_count  # may import PyTorch

    device, _ = choose(model.device, model.backend)
    if device == "cuda":
        count = gpu_count()
        return [replace(model, device=f"cuda:{number % count}") for number in range(workers)]
    if device != "cpu":
        return [model] * workers
    return [replace(model, threads=max(1, (os.cpu_count() or 1) // workers))] * workers


def _pack_prompts(prompts: Sequence[Prompt], planner: Planner) -> Iterator[tuple[Prompt, ...]]:
    """Jobs of some size, in which prompts of one patch pair stay together."""
    by_pair: dict[PatchPair, list[Prompt]] = {}
    for prompt in prompts:
        by_pair.setdefault(planner.pair(prompt), []).append(prompt)
    pack: list[Prompt] = []
    for members in by_pair.values():
        if pack and len(pack) + len(members) > _TASK_PROMPTS:
            yield tuple(pack)
            pack = []
        pack += members
    if pack:
        yield tuple(pack)
