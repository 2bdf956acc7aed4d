"""Run the fuzz targets of ``tests/fuzz`` for a long time, each in a process of its own.

    python scripts/fuzz.py --minutes 60 [--target NAME] [--from-seed N]

A process that ends in an error, takes more than 2 GB, or works or waits for 10 s at one input is
a fault: its seed is printed, and the next input goes on in a new process. Time in which a busy
machine keeps it waiting for a core does not count. The exit code is 1 if there were any.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from pathlib import Path

import psutil

from wsisam_qupath.qupath.jvm.work_time import WorkTime

TESTS = Path(__file__).resolve().parent.parent / "tests"
HELPERS = {"mutation"}

HANG_SECONDS = 10.0
MEMORY_BYTES_MAX = 2 << 30
FAULTS_MAX = 20
_LOOK_SECONDS = 0.05
_STARTING_SECONDS = 120.0
"""Imports take their time on a busy machine."""


@dataclass
class Tally:
    """What became of one target.

    Attributes:
        faults: what happened, by the seed of the input.
        peak_bytes: of memory, of any of its processes.
        slowest_seconds: of one input, as far as somebody looked.
    """

    inputs: int = 0
    faults: dict[int, str] = field(default_factory=dict)
    peak_bytes: int = 0
    slowest_seconds: float = 0.0

    def __str__(self) -> str:
        kinds = [fault.partition(":")[0] for fault in self.faults.values()]
        return (
            f"{self.inputs} inputs, {kinds.count('crash')} crashes, {kinds.count('hang')} hangs, "
            f"{kinds.count('memory')} over {MEMORY_BYTES_MAX >> 30} GiB, peak "
            f"{self.peak_bytes >> 20} MiB, slowest {self.slowest_seconds:.1f} s"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--target", choices=targets())
    parser.add_argument("--from-seed", type=int, default=0)
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        run_all(given.target, given.from_seed)
        return
    chosen = [given.target] if given.target else targets()
    seconds = 60 * given.minutes / len(chosen)
    found = {target: fuzz(target, given.from_seed, seconds) for target in chosen}
    print(f"{sum(tally.inputs for tally in found.values())} inputs in all")
    sys.exit(any(tally.faults for tally in found.values()))


def targets() -> list[str]:
    names = {path.stem for path in (TESTS / "fuzz").glob("*.py")}
    return sorted(names - HELPERS)


def run_all(target: str, seed: int) -> None:
    """In a child: inputs without end; a line is written before each."""
    sys.path[0] = str(TESTS)  # in place of this folder, whose module has the package's name
    run = import_module(f"fuzz.{target}").run
    while True:
        print(seed, flush=True)
        run(seed)
        seed += 1


def fuzz(target: str, seed: int, seconds: float) -> Tally:
    """One target, for so long."""
    tally = Tally()
    end = time.monotonic() + seconds
    while time.monotonic() < end and len(tally.faults) < FAULTS_MAX:
        seed = _until_fault(target, seed, end, tally) + 1
    print(f"{target}: {tally}", flush=True)
    for number, fault in tally.faults.items():
        print(f"  seed {number}: {fault}", flush=True)
    return tally


def _until_fault(target: str, seed: int, end: float, tally: Tally) -> int:
    """Run a child until the time is over or it fails; the last seed that it was given."""
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        log, errors = Path(folder, "log"), Path(folder, "errors")
        command = [sys.executable, __file__, "--child", "--target", target, "--from-seed", seed]
        with log.open("wb") as out, errors.open("wb") as err:
            child = subprocess.Popen(
                [*map(str, command)],
                stdout=out,
                stderr=err,
                env={**os.environ, "TMPDIR": folder, "OMP_NUM_THREADS": "1"},
            )
        try:
            fault, last = _watched(child, log, seed, end, tally)
        finally:
            child.kill()
            child.wait()
        tally.inputs += last - seed + (fault is None)
        if fault == "crash":
            text = errors.read_text(encoding="utf-8", errors="replace")
            fault = f"crash: exit code {child.returncode}: {' / '.join(text.splitlines()[-3:])}"
        if fault is not None:
            tally.faults[last] = fault
        return last


def _watched(
    child: subprocess.Popen[bytes], log: Path, seed: int, end: float, tally: Tally
) -> tuple[str | None, int]:
    """What went wrong, if anything, and at which seed."""
    process = psutil.Process(child.pid)
    last, used = -1, WorkTime(lambda: child.pid, _STARTING_SECONDS)
    helpers: dict[int, WorkTime] = {}
    while time.monotonic() < end:
        if child.poll() is not None:
            return "crash", max(last, seed)
        lines = _last_line(log)
        if lines != last:
            last, used = lines, WorkTime(lambda: child.pid, HANG_SECONDS)
            helpers.clear()
        silent = used.look()
        tally.slowest_seconds = max(tally.slowest_seconds, silent if last >= 0 else 0.0)
        if silent > (HANG_SECONDS if last >= 0 else _STARTING_SECONDS) and all(
            time_of.look() > HANG_SECONDS for time_of in _times_of_helpers(process, helpers)
        ):
            return f"hang: more than {HANG_SECONDS:g} s", max(last, seed)
        size = _size(process)
        tally.peak_bytes = max(tally.peak_bytes, size)
        if size > MEMORY_BYTES_MAX:
            return f"memory: {size >> 20} MiB", max(last, seed)
        time.sleep(_LOOK_SECONDS)
    return None, max(last, seed)


def _times_of_helpers(process: psutil.Process, known: dict[int, WorkTime]) -> list[WorkTime]:
    """The time of each process that a child waits for, such as the one that opens a slide."""
    try:
        pids = [one.pid for one in process.children(recursive=True)]
    except psutil.Error:
        pids = []
    return [known.setdefault(pid, WorkTime(partial(int, pid), HANG_SECONDS)) for pid in pids]


def _last_line(log: Path) -> int:
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 64))
        lines = file.read().split(b"\n")
    return int(lines[-2]) if len(lines) > 1 else -1


def _size(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss)
    except psutil.Error:
        return 0


if __name__ == "__main__":
    main()
