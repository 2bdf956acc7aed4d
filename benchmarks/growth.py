"""How time, silence and memory grow with the work: twice as much of it, in processes of their own.

    python benchmarks/growth.py [--small] [--only prompts,report,...]

Each row is one kind of work at two sizes; the exponent is 1 where twice the work takes twice the
CPU time. Memory is the peak of all processes together. "Silent" is the longest time without a
line on stderr, which is no terminal. The network runs in ``segment`` only: elsewhere it is not
reached, or stubbed. To compare with another version, run this file with its tree in PYTHONPATH.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO

import psutil

from growth_work import CALLED, STARTED

SIZES = {
    "segment": (18, 120),
    "prompts": (250_000, 500_000),
    "create": (50_000, 100_000),
    "images": (250, 500),
    "dry-run": (250, 500),
    "report": (2_500, 5_000),
    "request": (2_500, 5_000),
    "pyramidless": (900, 3_600),
    "again": (900, 3_600),
    "views": (5_000, 10_000),
}
SMALL = 10
"""By which --small divides."""

EXIT_CODES = {"prompts": 2}
"""Of commands that do not end with 0: there is no prompt among the cells."""

WHAT = {
    "segment": "`segment`, rectangles far apart",
    "prompts": "`segment`, cells in its GeoJSON, which are no prompts",
    "create": "`create`, detections of one image",
    "images": "`create`, images with an annotation each",
    "dry-run": "`batch --dry-run`, those images",
    "report": "report, results with pictures",
    "request": "request, rectangles, not asked for as a stream",
    "pyramidless": "slide without a pyramid, all of it as 256 x 256 px, megapixels",
    "again": "the same once more, megapixels",
    "views": "100 training views, objects of the image",
}


@dataclass(frozen=True)
class Cost:
    """What work took.

    Attributes:
        seconds, cpu: by the clock, and on all cores.
        silent: the longest time without a line on stderr; None where it is no command.
        peak_mib: of all processes together.
        note: what else there is to say.
    """

    seconds: float
    cpu: float
    silent: float | None = None
    peak_mib: float = 0.0
    note: str = ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true", help=f"a part in {SMALL} of each size")
    parser.add_argument("--only", default=",".join(SIZES), help="kinds, separated by commas")
    parser.add_argument("--folder", type=Path, help="where the files go that the work needs")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        kind, size, folder = given.child
        measure_call(CALLED[kind](Path(folder), int(size)))
        return
    print("| work | size | s | CPU s | silent s | peak MiB | exponent | |\n" + "|---" * 8 + "|")
    for kind in given.only.split(","):
        before: tuple[int, Cost] | None = None
        for whole_size in SIZES[kind]:
            size = whole_size // SMALL if given.small else whole_size
            with tempfile.TemporaryDirectory(dir=given.folder) as name:
                cost = measure(kind, size, Path(name))
            print(make_row(kind, size, cost, before), flush=True)
            before = size, cost


def make_row(kind: str, size: int, cost: Cost, before: tuple[int, Cost] | None) -> str:
    exponent = ""
    if before is not None:
        smaller_size, smaller = before
        exponent = f"{math.log(cost.cpu / smaller.cpu) / math.log(size / smaller_size):.2f}"
    silent = "" if cost.silent is None else f"{cost.silent:.1f}"
    return (
        f"| {WHAT[kind]} | {size:,} | {cost.seconds:.1f} | {cost.cpu:.1f} | {silent} | "
        f"{cost.peak_mib:.0f} | {exponent} | {cost.note} |"
    )


def measure(kind: str, size: int, folder: Path) -> Cost:
    """Measure in a process of its own; commands are prepared in this one before."""
    if kind in STARTED:
        arguments = STARTED[kind](folder, size)
        command = [sys.executable, "-m", "wsisam_qupath", *arguments]
        return watch(command, folder, EXIT_CODES.get(kind, 0))
    cost = watch([sys.executable, __file__, "--child", kind, str(size), str(folder)], folder, 0)
    found = json.loads((folder / "stdout").read_bytes().splitlines()[-1])
    return Cost(**found, peak_mib=cost.peak_mib)


def watch(command: list[str], folder: Path, exit_code: int) -> Cost:
    """Run a command to this exit code, and follow what it says and the memory of all it starts."""
    cpu, start = cpu_of_children(), time.perf_counter()
    with (
        (folder / "stdout").open("wb") as stdout,
        (folder / "stderr").open("wb") as kept,
        subprocess.Popen(command, cwd=folder, stdout=stdout, stderr=subprocess.PIPE) as child,
    ):
        assert child.stderr is not None
        times = [start]
        listener = threading.Thread(target=listen, args=(child.stderr, kept, times))
        listener.start()
        peak = 0
        while child.poll() is None:
            peak = max(peak, rss_of_all(child.pid))
            time.sleep(0.2)
        listener.join()
    if child.returncode != exit_code:
        raise RuntimeError(f"{command} ended with {child.returncode}: {kept_in(folder)}")
    times.append(time.perf_counter())
    silent = max(later - earlier for earlier, later in pairwise(times))
    seconds = times[-1] - start
    return Cost(seconds, cpu_of_children() - cpu, silent, peak / 2**20)


def kept_in(folder: Path) -> str:
    return (folder / "stderr").read_text(encoding="utf-8", errors="replace")[-2000:]


def listen(stderr: BinaryIO, kept: BinaryIO, times: list[float]) -> None:
    for line in stderr:
        times.append(time.perf_counter())
        kept.write(line)


def rss_of_all(pid: int) -> int:
    total = 0
    try:
        process = psutil.Process(pid)
        for one in (process, *process.children(recursive=True)):
            total += one.memory_info().rss
    except psutil.Error:
        return total
    return total


def cpu_of_children() -> float:
    used = os.times()
    return used.children_user + used.children_system


def measure_call(work: Callable[[], str]) -> None:
    """Do the work, which was prepared, and print what it took."""
    used, start = cpu_seconds(), time.perf_counter()
    note = work()
    cost = asdict(Cost(time.perf_counter() - start, cpu_seconds() - used, note=note))
    print(json.dumps({key: cost[key] for key in ("seconds", "cpu", "silent", "note")}))


def cpu_seconds() -> float:
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(one.ru_utime + one.ru_stime for one in used)


if __name__ == "__main__":
    main()
