"""The process that QuPath's Java machine lives in.

A crash of Java, a Ctrl-C or what Java prints cannot touch the driver: it only sees answers.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import shutil
import signal
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from functools import partial
from multiprocessing.connection import Connection, wait
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import ParamSpec, TypeVar

from ...errors import QuPathError
from ...files import cache_folder
from ..install.installation import Installation, find_installation
from .java import start, translate_java_errors

_ALLOCATIONS_PER_COLLECTION = 1_000_000

P = ParamSpec("P")
T = TypeVar("T")


class QuPathProcess:
    """Runs functions beside a Java machine, one at a time, in the order of their coming.

    A context manager: the process is started by the first call and ends with the ``with``. Where
    it crashes, the call that it was at fails, and the next one gets a new process.

    Args:
        installation: where QuPath is; found on entering if None.
    """

    def __init__(self, installation: Installation | None = None) -> None:
        self._installation = installation
        # This thread hands out one call at a time, so that a crash costs no more than one.
        self._line = ThreadPoolExecutor(1, thread_name_prefix="qupath")
        self._worker: _Worker | None = None
        self._has_answered = False

    def __enter__(self) -> QuPathProcess:
        """Find QuPath.

        Raises:
            QuPathError: there is none that can be used.
        """
        if self._installation is None:
            self._installation = find_installation()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Waits for what was submitted; after an error, for nothing."""
        if kind is not None:
            self.stop()
        self._line.shutdown()
        self._kill()

    def stop(self) -> None:
        """End it at once, whatever it is doing; what was submitted fails or never starts."""
        self._line.shutdown(wait=False, cancel_futures=True)
        self._kill()
        self._line.shutdown()

    def submit(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Call a function in QuPath's process, where Java is running.

        Args:
            function: of a module that can be imported there; takes and returns plain values.

        Returns:
            Its answer, or a WsiSamError: what Java throws is translated.
        """
        return self._line.submit(self._answer, partial(function, *args, **kwargs))

    def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Like :meth:`submit`, and wait for the answer.

        Raises:
            QuPathError: QuPath or its process failed.
        """
        return self.submit(function, *args, **kwargs).result()

    def _answer(self, call: Callable[[], T]) -> T:
        try:
            coming = self._find_or_start_worker().pool.submit(_call, call)
        except BrokenProcessPool:
            # It ended while it had nothing to do, which is not the fault of this call.
            self._kill()
            coming = self._find_or_start_worker().pool.submit(_call, call)
        try:
            answer = coming.result()
        except BrokenProcessPool as exc:
            message = _END if self._has_answered else _END_AT_START
            self._kill()
            raise QuPathError(message) from exc
        self._has_answered = True
        return answer

    def _find_or_start_worker(self) -> _Worker:
        if self._worker is None:
            self._worker = _Worker(self._installation)
        return self._worker

    def _kill(self) -> None:
        worker, self._worker = self._worker, None
        if worker is not None:
            worker.kill()


_END = (
    "QuPath's Java machine ended unexpectedly. If it ran out of memory, allow it more, for example "
    "8 GB with PAQUO_JAVA_OPTS=-Xmx8g, and run this again."
)
_END_AT_START = (
    "QuPath's Java machine ended before it was ready: check PAQUO_JAVA_OPTS, and that QuPath "
    'itself starts. A script of yours must have its code under `if __name__ == "__main__":`.'
)


class _Worker:
    """One process, and the pipe whose closing ends it."""

    def __init__(self, installation: Installation | None) -> None:
        # Not by fork: a copy of the driver's threads and devices is no place for a Java machine.
        context = multiprocessing.get_context("spawn")
        self._leash, far_end = context.Pipe()
        self._far_end = far_end
        self._natives = _folder_for_natives()
        natives = self._natives.name if self._natives else None
        self.pool = ProcessPoolExecutor(
            1, context, initializer=_prepare, initargs=(installation, natives, far_end)
        )

    def kill(self) -> None:
        """At once, whatever it is doing: files that matter are never written by it in place."""
        # Closing alone would not be noticed where the driver forked: the copy has it open.
        with suppress(OSError):
            self._leash.send("end")
        self._leash.close()
        self._far_end.close()
        self.pool.shutdown(cancel_futures=True)
        if self._natives:
            self._natives.cleanup()


def _folder_for_natives() -> TemporaryDirectory[str] | None:
    """Where Java unpacks its native libraries: it removes none where it is ended from outside.

    In the cache, as programs may not be run from every machine's temporary folder. None, and Java
    takes a folder of its own, if the cache cannot be written.
    """
    try:
        cache_folder().mkdir(parents=True, exist_ok=True)
        return TemporaryDirectory(prefix="java-", dir=cache_folder(), ignore_cleanup_errors=True)
    except OSError:
        return None


_machine: tuple[Installation | None, str | None] = (None, None)
"""What :func:`.start` is called with; set in QuPath's process, and only there."""


def _prepare(installation: Installation | None, natives: str | None, leash: Connection) -> None:
    """First thing in QuPath's process."""
    global _machine  # noqa: PLW0603 - the only thing that an initializer can leave behind
    _machine = (installation, natives)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Java writes to the file descriptor, past sys.stdout.
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    # Features are many small lists without cycles, which Python would look through again and again.
    gc.set_threshold(_ALLOCATIONS_PER_COLLECTION)
    threading.Thread(target=_end_with, args=(leash, natives), daemon=True).start()


def _end_with(leash: Connection, natives: str | None) -> None:
    """End this process when the driver lets go of it or is gone, also by ``kill -9``."""
    driver = multiprocessing.parent_process()
    wait([leash, *([driver.sentinel] if driver else [])])
    if natives is not None:
        shutil.rmtree(natives, ignore_errors=True)  # a driver that was killed does not
    # Neither Python's nor Java's way out, which wait for their threads.
    os._exit(1)


def _call(call: Callable[[], T]) -> T:
    start(*_machine)
    with translate_java_errors("What was asked for"):
        return call()
