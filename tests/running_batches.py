"""``wsisam-qupath batch`` as a process of its own, which gets stopped."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import psutil

from command_line import Answer, environment

# SIGINT is ignored by what runs in the background of a shell, and by its children.
_INTERRUPTIBLE = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
"""

_PLAIN = f"""{_INTERRUPTIBLE}
from wsisam_qupath.cli import main
main()
"""

_HOOKED = f"""{_INTERRUPTIBLE}
import os, sys
number, event, ending = sys.argv[1:4]
del sys.argv[1:4]
def hook(name, given):
    if name == event and any(str(one).endswith(ending) for one in given[:2]):
        os.kill(os.getpid(), int(number))
sys.addaudithook(hook)
from wsisam_qupath.cli import main
main()
"""


@dataclass(frozen=True)
class Moment:
    """Just before a batch does something to a file.

    Attributes:
        event: Python's name of it, as for audit hooks.
        ending: of the file's path.
    """

    event: str
    ending: str


class RunningBatch:
    """``wsisam-qupath batch`` in a process group of its own, as from a shell.

    Args:
        at: a moment at which it gets a signal.
        signal_number: which.
        variables: of its environment.
    """

    def __init__(
        self,
        project: Path,
        *options: object,
        at: Moment | None = None,
        signal_number: int = signal.SIGTERM,
        **variables: str,
    ) -> None:
        program: Sequence[object] = ("-c", _PLAIN)
        if at is not None:
            program = ("-c", _HOOKED, int(signal_number), at.event, at.ending)
        self.project = project
        self._process = subprocess.Popen(
            [sys.executable, *map(str, (*program, "batch", project, *options))],
            env=environment(**variables),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )

    def __enter__(self) -> RunningBatch:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.communicate()

    def wait_until(self, condition: Callable[[], bool]) -> None:
        """Look every millisecond; the batch must not end before."""
        deadline = time.monotonic() + 120
        while not condition():
            assert self._process.poll() is None, self._process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.001)

    @property
    def pid(self) -> int:
        return self._process.pid

    def kill(self) -> None:
        self._process.kill()

    def pause(self) -> None:
        """Until it is interrupted."""
        self._process.send_signal(signal.SIGSTOP)

    def interrupt(self) -> None:
        """As Ctrl-C does it: every process of the group gets the signal."""
        os.killpg(self._process.pid, signal.SIGINT)
        os.killpg(self._process.pid, signal.SIGCONT)

    def java_pids(self) -> list[int]:
        """The process that QuPath lives in; to look for it takes longer than a short write."""
        found = []
        for child in psutil.Process(self._process.pid).children():
            with suppress(psutil.NoSuchProcess):
                if any("spawn_main" in word for word in child.cmdline()):
                    found.append(child.pid)
        return found

    def ended(self) -> Answer:
        """Wait for its end."""
        out, err = (stream.decode() for stream in self._process.communicate(timeout=300))
        return Answer(self._process.returncode, out, err)
