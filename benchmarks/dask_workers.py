"""How much faster a batch is with two dask workers than with one, each on a core of its own.

    python benchmarks/dask_workers.py [--images 40] [--rectangles 2] [--workers 1 2]

Needs a QuPath and the extra ``dask``. For each number of workers a project of as many small slides
is made, a local cluster is started, and ``batch --dask`` runs as a whole command with the usual
model. Further images, done before, warm the workers up, so that none loads the model while the time
is taken.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from distributed import LocalCluster

from project import write_slides
from speed import hardware
from wsisam_qupath.project.create.command import CreateRequest, run_create

_FIRST_IMAGES = 6
"""Which are done before, so that each worker gets some."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=40)
    parser.add_argument("--rectangles", type=int, default=2, help="on each image")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    given = parser.parse_args()
    print(hardware())
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_slides(folder, given.images + _FIRST_IMAGES, given.rectangles)
        took = [measure(folder, workers) for workers in given.workers]
    prompts = given.images * given.rectangles
    for workers, seconds in zip(given.workers, took, strict=True):
        print(
            f"{workers} workers: {given.images} images, {prompts} rectangles in {seconds:.1f} s, "
            f"{prompts / seconds:.2f} a second, {took[0] / seconds:.2f} x"
        )


def measure(folder: Path, workers: int) -> float:
    """The seconds of ``batch`` on all images but the first ones."""
    project = folder / f"project{workers}"
    run_create(CreateRequest(project, (str(folder / "*.tiff"),), folder))
    first = [f"field{number}.tiff" for number in range(_FIRST_IMAGES)]
    one_core = {"n_workers": workers, "threads_per_worker": 1, "processes": True}
    with LocalCluster(**one_core, dashboard_address=None) as cluster:  # type: ignore[no-untyped-call]
        run_batch(project, cluster.scheduler_address, *(f"--images={name}" for name in first))
        start = time.perf_counter()
        run_batch(project, cluster.scheduler_address)
        return time.perf_counter() - start


def run_batch(project: Path, address: str, *options: str) -> None:
    command = [sys.executable, "-m", "wsisam_qupath", "batch", str(project), "--dask", address]
    subprocess.run([*command, *options], check=True, stderr=subprocess.DEVNULL)


if __name__ == "__main__":
    main()
