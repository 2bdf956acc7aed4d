"""kill -9 of real processes, at each of their calls into the operating system in turn.

Run as a program it is the process whose children get killed: small, so that they start fast.
"""

from __future__ import annotations

import base64
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any

Job = tuple[int, Callable[..., object], tuple[Any, ...]]


class Killer:
    """Runs functions in processes that do not live to make their nth call. Not on Windows."""

    def __enter__(self) -> Killer:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        self._process = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.communicate()

    def lives_through(self, nth: int, function: Callable[..., object], *given: Any) -> bool:
        """Whether the function was done before the nth call into the operating system."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        job: Job = (nth, function, given)
        self._process.stdin.write(base64.b64encode(pickle.dumps(job)).decode() + "\n")
        self._process.stdin.flush()
        status = int(self._process.stdout.readline())
        assert status in (0, -signal.SIGKILL), status
        return status == 0


def _is_system_call(function: object) -> bool:
    owner = getattr(function, "__self__", None)
    module = getattr(function, "__module__", None) or type(owner).__module__
    return module in ("posix", "_io", "io")


def _die_at(nth: int) -> None:
    calls = 0

    def profile(frame: FrameType, event: str, argument: object) -> None:
        nonlocal calls
        if event == "c_call" and _is_system_call(argument):
            calls += 1
            if calls == nth:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.setprofile(profile)


def _serve() -> None:
    for line in sys.stdin:
        nth, function, given = pickle.loads(base64.b64decode(line))
        child = os.fork()
        if not child:
            _die_at(nth)
            function(*given)
            sys.setprofile(None)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        sys.stdout.write(f"{os.waitstatus_to_exitcode(status)}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    _serve()
