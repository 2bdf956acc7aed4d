"""Worker processes on this machine: they end with their driver, and are replaced if they end."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from multiprocessing.connection import wait
from typing import TypeVar

from ..errors import DeviceError
from ..options import ModelSpec
from .cores import count_usable_cores
from .loading import choose, gpu_count

_TRIES = 3
"""Number of processes that a piece of work may end before it is given up."""

T = TypeVar("T")


class WorkerProcesses:
    """Some processes, numbered from 0, each of which does one piece of work at a time.

    Args:
        count: number of processes; each is started when its first work comes.
    """

    def __init__(self, count: int) -> None:
        # One thread and one pool per worker: a process that is lost takes one piece of work with
        # it, while a shared pool would break for all.
        self._threads = ThreadPoolExecutor(count, thread_name_prefix="worker")
        self._lock = threading.Lock()
        self._pools: dict[int, ProcessPoolExecutor] = {}
        self._closed = False

    def submit(self, make_work: Callable[[int], Callable[[], T]], what: str) -> Future[T]:
        """Do a piece of work in the next process that is free.

        Args:
            make_work: makes the work, which can be pickled, for the process of a number.
            what: names the work in the error for work that ended several processes.

        Returns:
            Its result; :class:`.DeviceError` where it ended several processes.
        """
        return self._threads.submit(self._run, make_work, what)

    def _run(self, make_work: Callable[[int], Callable[[], T]], what: str) -> T:
        number = int(threading.current_thread().name.rpartition("_")[2])
        for _ in range(_TRIES):
            try:
                return self._begin(number, make_work(number)).result()
            except BrokenProcessPool:
                with self._lock:
                    self._pools.pop(number, None)
        raise DeviceError(
            f"A worker process ended {_TRIES} times at {what}. If memory ran out, use fewer "
            "workers."
        )

    def _begin(self, number: int, work: Callable[[], T]) -> Future[T]:
        """Hand work to the process of this number; start the process if there is none."""
        with self._lock:  # held until the process exists: otherwise `close` could not see it
            if self._closed:
                raise DeviceError("The workers were stopped before this work.")
            if number not in self._pools:
                self._pools[number] = ProcessPoolExecutor(
                    1, multiprocessing.get_context("spawn"), initializer=_prepare
                )
            return self._pools[number].submit(work)

    def close(self) -> None:
        """Stop all processes at once, whatever they are doing."""
        with self._lock:
            self._closed = True
            pools = list(self._pools.values())
        for pool in pools:
            for process in list((pool._processes or {}).values()):
                process.kill()
        self._threads.shutdown(cancel_futures=True)
        for pool in pools:
            pool.shutdown(cancel_futures=True)


def assign_devices(model: ModelSpec, workers: int) -> list[ModelSpec]:
    """Choose the model of each worker process, with a GPU or its share of the CPU cores."""
    device, _ = choose(model.device, model.backend)
    if device == "cuda":
        count = gpu_count()
        return [replace(model, device=f"cuda:{number % count}") for number in range(workers)]
    if device != "cpu":
        return [model] * workers
    return [replace(model, threads=max(1, count_usable_cores() // workers))] * workers


def _prepare() -> None:
    """Set up a worker process, before anything else runs in it."""
    # Ctrl-C reaches every process of a terminal; only the driver ends the others.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_driver, daemon=True).start()


def _end_with_driver() -> None:
    """End this process when the driver has ended, even by ``kill -9``."""
    driver = multiprocessing.parent_process()
    assert driver is not None
    wait([driver.sentinel])
    os._exit(1)
