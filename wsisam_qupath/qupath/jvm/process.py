"""The separate process in which QuPath's Java virtual machine runs.

So a crash of Java, a Ctrl-C or Java's output cannot affect the main process.
"""

from __future__ import annotations

import gc
import locale
import multiprocessing
import os
import shutil
import signal
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures import wait as wait_for_futures
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from functools import partial
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import ParamSpec, TypeVar

from ...errors import QuPathError, QuPathTimeoutError
from ...files import process_folder
from ..install.installation import Installation, find_installation
from .class_path import choose_places
from .java import start, translate_java_errors
from .work_time import WorkTime

_ALLOCATIONS_PER_COLLECTION = 1_000_000

SECONDS_MAX = 1800.0
"""Longest time that one call may take unless it says otherwise; a million objects take minutes."""

P = ParamSpec("P")
T = TypeVar("T")


class QuPathProcess:
    """Runs functions in QuPath's process, one at a time, first come, first served.

    A context manager: the first call starts the process, and leaving the ``with`` ends it. If it
    crashes, the current call fails, and the next one gets a new process.

    Args:
        installation: the QuPath to use; searched for on entering if None.
    """

    def __init__(self, installation: Installation | None = None) -> None:
        self._installation = installation
        # This thread submits one call at a time, so that a crash fails only one.
        self._line = ThreadPoolExecutor(1, thread_name_prefix="qupath")
        self._worker: _Worker | None = None
        self._has_answered = False

    def __enter__(self) -> QuPathProcess:
        """Find QuPath.

        Raises:
            QuPathError: no usable QuPath is installed.
        """
        if self._installation is None:
            self._installation = find_installation()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Wait for submitted calls, and end the process; after an error, end it at once."""
        if kind is not None:
            self.stop()
        self._line.shutdown()
        self._kill()

    def stop(self) -> None:
        """End the process at once; submitted calls fail or never start."""
        self._line.shutdown(wait=False, cancel_futures=True)
        self._kill()
        self._line.shutdown()

    def submit(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Call a function in QuPath's process, where Java is running.

        Args:
            function: importable there; takes and returns picklable values.

        Returns:
            The future of its result, or of a WsiSamError translated from Java's exception.
        """
        return self._line.submit(self._answer, partial(function, *args, **kwargs), SECONDS_MAX)

    def run_within(
        self, seconds: float, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Call a function like :meth:`run`, and end QuPath's process if it takes longer.

        The time counts from when the call begins, and includes the start of a process. Where other
        programs keep QuPath waiting for a core, it has more: see :class:`.WorkTime`.

        Raises:
            QuPathTimeoutError: it took longer. The next call gets a new process.
            QuPathError: QuPath or its process failed.
        """
        return self._line.submit(self._answer, partial(function, *args, **kwargs), seconds).result()

    def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a function like :meth:`submit`, and wait for its result.

        Raises:
            QuPathError: QuPath or its process failed.
        """
        return self.submit(function, *args, **kwargs).result()

    def _answer(self, call: Callable[[], T], seconds: float) -> T:
        worker = self._find_or_start_worker()
        try:
            coming = worker.pool.submit(_call, call)
        except BrokenProcessPool:
            # It ended while it was idle, which is not the fault of this call.
            self._kill()
            worker = self._find_or_start_worker()
            coming = worker.pool.submit(_call, call)
        try:
            answer = _await_within(seconds, coming, worker)
        except QuPathTimeoutError:
            self._kill()
            raise
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
    "QuPath's Java virtual machine ended unexpectedly. If it ran out of memory, give it more, for "
    "example 8 GB with PAQUO_JAVA_OPTS=-Xmx8g, and run this again."
)
_END_AT_START = (
    "QuPath's Java virtual machine ended before it was ready: check PAQUO_JAVA_OPTS, and that "
    'QuPath itself starts. A script of yours must have its code under `if __name__ == "__main__":`.'
)


class _Worker:
    """One process, and the pipe that ends it when it closes."""

    def __init__(self, installation: Installation | None) -> None:
        # Not by fork: copies of the main process's threads and devices would break Java.
        context = multiprocessing.get_context("spawn")
        self._leash, far_end = context.Pipe()
        self._far_end = far_end
        self._pid: int | None = None
        self._natives = _folder_for_natives(self, installation)
        natives = str(self._natives) if self._natives else None
        self.pool = ProcessPoolExecutor(
            1, context, initializer=_prepare, initargs=(installation, natives, far_end)
        )

    def find_pid(self) -> int | None:
        """Find the number of the process; None before it has begun."""
        with suppress(OSError, EOFError):  # closed by another thread that ends it
            if self._pid is None and self._leash.poll():
                self._pid = self._leash.recv()
        return self._pid

    def kill(self) -> None:
        """Kill the process; safe at any moment, as it never writes a user's file in place."""
        # Closing alone would go unnoticed if the main process was forked: the copy has it open.
        with suppress(OSError):
            self._leash.send("end")
        self._leash.close()
        self._far_end.close()
        self.pool.shutdown(cancel_futures=True)
        if self._natives:
            shutil.rmtree(self._natives, ignore_errors=True)


def _await_within(seconds: float, coming: Future[T], worker: _Worker) -> T:
    """Wait for a result while the process has not used up its time.

    Raises:
        QuPathTimeoutError: it has.
    """
    used = WorkTime(worker.find_pid, seconds)
    while not wait_for_futures([coming], used.step_seconds).done:
        if used.look() >= seconds:
            raise QuPathTimeoutError(
                f"QuPath did not answer within {seconds:.0f} s, so its process was ended."
            )
    return coming.result()


def _folder_for_natives(worker: _Worker, installation: Installation | None) -> Path | None:
    """Make the folder for Java's native libraries: killed from outside, Java leaves them behind.

    None, so that Java chooses a folder, if none can be written.
    """
    installation = installation or find_installation()
    for place in choose_places(installation.app_dir):
        with suppress(OSError):
            return process_folder("java", worker, place)
    return None


_start_arguments: tuple[Installation | None, str | None] = (None, None)
"""Arguments of :func:`.start`; set only in QuPath's process."""


_UTF8_LOCALES = ("", "C.UTF-8", "en_US.UTF-8", "UTF-8")
"""Locales to try: the user's own, then those that systems usually have."""


def _prepare(installation: Installation | None, natives: str | None, leash: Connection) -> None:
    """Prepare QuPath's process, in that process."""
    global _start_arguments  # noqa: PLW0603 - the only thing that an initializer can leave behind
    _start_arguments = (installation, natives)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _name_files_in_utf8()
    # Java writes to the file descriptor, past sys.stdout.
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    # Features are many small lists without cycles, which Python would look through again and again.
    gc.set_threshold(_ALLOCATIONS_PER_COLLECTION)
    leash.send(os.getpid())
    threading.Thread(target=_end_with, args=(leash, natives), daemon=True).start()


def _name_files_in_utf8() -> None:
    """Make Java, before it starts, decode file names as Python does.

    With LC_ALL=C, as in many jobs and services, Python reads names as UTF-8 and Java as ASCII: a
    file below a folder with an umlaut is then not there for it, or is read as an empty one.
    """
    if os.name != "posix" or sys.getfilesystemencoding() != "utf-8":
        return
    before = locale.setlocale(locale.LC_CTYPE)
    for name in _UTF8_LOCALES:
        with suppress(locale.Error):
            locale.setlocale(locale.LC_CTYPE, name)
            if locale.nl_langinfo(locale.CODESET) == "UTF-8":
                if name:
                    os.environ["LC_ALL"] = name
                break
    locale.setlocale(locale.LC_CTYPE, before)


def _end_with(leash: Connection, natives: str | None) -> None:
    """End this process when the main process closes the pipe or is gone, even by ``kill -9``."""
    driver = multiprocessing.parent_process()
    wait([leash, *([driver.sentinel] if driver else [])])
    if natives is not None:
        shutil.rmtree(natives, ignore_errors=True)  # a killed main process does not
    # Not Python's or Java's regular exit, which wait for their threads.
    os._exit(1)


def _call(call: Callable[[], T]) -> T:
    start(*_start_arguments)
    with translate_java_errors("What was asked for"):
        return call()
