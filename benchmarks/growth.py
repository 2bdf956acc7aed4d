"""How time and memory grow with the work: twice as much of it, measured in processes of their own.

    python benchmarks/growth.py [--small] [--only prompts,report,...]

No network is loaded: only what is around it is measured. Each row is one kind of work at two sizes;
the exponent is 1 where twice the work takes twice the time. Memory is the peak of the process, and
for ``create`` of all of its processes together. To compare with another version, run this file
with its tree in PYTHONPATH.
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import shapely

SIZES = {
    "prompts": (250_000, 500_000),
    "create": (10_000, 20_000),
    "report": (500, 1000),
    "pyramidless": (16_384, 32_768),
    "views": (5_000, 10_000),
}
SMALL = 10
"""By which --small divides."""

WHAT = {
    "prompts": "read a GeoJSON file of cells as prompts, all of which are skipped",
    "create": "a QuPath project of one image with detections",
    "report": "a report with pictures",
    "pyramidless": "read a whole slide without a pyramid as 256 x 256 px, the first time",
    "views": "find the objects of 100 training views",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true", help=f"a part in {SMALL} of each size")
    parser.add_argument("--only", default=",".join(SIZES), help="kinds, separated by commas")
    parser.add_argument("--child", nargs=2, metavar=("KIND", "SIZE"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        measure(given.child[0], int(given.child[1]))
        return
    print(
        "| what | size | seconds | CPU seconds | peak MiB | exponent |\n|---|---|---|---|---|---|"
    )
    for kind in given.only.split(","):
        before: dict[str, Any] | None = None
        for whole_size in SIZES[kind]:
            size = whole_size // SMALL if given.small else whole_size
            found = run_child(kind, size)
            exponent = "" if before is None else f"{math.log2(found['cpu'] / before['cpu']):.2f}"
            print(
                f"| {WHAT[kind]} | {size:,} | {found['seconds']:.1f} | {found['cpu']:.1f} | "
                f"{found['peak_mib']:.0f} | {exponent} |",
                flush=True,
            )
            before = found


def run_child(kind: str, size: int) -> dict[str, Any]:
    """Measure in a process of its own, and follow the memory of all that it starts."""
    command = [sys.executable, __file__, "--child", kind, str(size)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as child:
        peak = 0
        while child.poll() is None:
            peak = max(peak, rss_of_all(child.pid))
            time.sleep(0.05)
        assert child.stdout is not None
        found: dict[str, Any] = json.loads(child.stdout.read().splitlines()[-1])
    if kind == "create":
        found["peak_mib"] = peak / 2**20
    return found


def rss_of_all(pid: int) -> int:
    try:
        process = psutil.Process(pid)
        return sum(p.memory_info().rss for p in (process, *process.children(recursive=True)))
    except psutil.Error:
        return 0


def measure(kind: str, size: int) -> None:
    """Prepare, then do the work, and print what it took."""
    with tempfile.TemporaryDirectory() as name:
        work = PREPARED[kind](Path(name), size)
        cpu, start = cpu_seconds(), time.perf_counter()
        work()
        took = time.perf_counter() - start
        peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps({"seconds": took, "cpu": cpu_seconds() - cpu, "peak_mib": peak_mib}))


def cpu_seconds() -> float:
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(one.ru_utime + one.ru_stime for one in used)


def write_cells(path: Path, count: int) -> Path:
    """Detections of 24 vertices as QuPath exports them, 850 bytes each."""
    angles = np.linspace(0, 2 * np.pi, 25)
    circle = 20 * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    with path.open("w", encoding="ascii") as file:
        file.write('{"type":"FeatureCollection","features":[')
        for number in range(count):
            corner = np.array([number % 700, number // 700]) * 45 + 30
            feature = {
                "type": "Feature",
                "id": f"{number:08d}-2fa1-51d2-883f-0016d3cca427",
                "geometry": {
                    "type": "Polygon",
                    "coordinates": [np.round(circle + corner, 2).tolist()],
                },
                "properties": {
                    "objectType": "detection",
                    "classification": {"name": "Tumor", "color": [200, 0, 0]},
                    "isLocked": False,
                    "measurements": {"Area": 123.4567, "Solidity": 0.987, "Max diameter": 33.21},
                },
            }
            file.write(("," if number else "") + json.dumps(feature))
        file.write("]}")
    return path


def prepare_prompts(folder: Path, count: int) -> Callable[[], object]:
    from wsisam_qupath.geojson import read_prompts

    path = write_cells(folder / "cells.geojson", count)
    return lambda: read_prompts(path, drawn_only=True)


def prepare_create(folder: Path, count: int) -> Callable[[], object]:
    from wsisam_qupath.project.create.command import CreateRequest, run_create
    from wsisam_qupath.slide.pyramid import write_pyramid

    slide = folder / "slide.tif"
    write_pyramid(slide, np.full((512, 512, 3), 220, np.uint8), mpp=0.5)
    path = write_cells(folder / "slide.tif.geojson", count)
    return lambda: run_create(CreateRequest(folder / "project", (str(slide),), path))


def prepare_report(folder: Path, count: int) -> Callable[[], object]:
    from wsisam_qupath import Box, Prompt
    from wsisam_qupath.geometry import Mpp
    from wsisam_qupath.report.outcome import ImageOutcome, PromptRow
    from wsisam_qupath.report.writing import ReportHeader, write_report
    from wsisam_qupath.slide.pyramid import write_pyramid

    slide = folder / "slide.tif"
    noise = np.random.default_rng(0).integers(100, 240, (2048, 2048, 3), np.uint8)
    write_pyramid(slide, noise, mpp=0.5)
    rows = []
    for number in range(count):
        x, y = 40 * (number % 45), 40 * (number // 45 % 45)
        feature = {
            "type": "Feature",
            "id": str(number),
            "geometry": dict(shapely.geometry.mapping(shapely.box(x, y, x + 60, y + 60))),
            "properties": {"objectType": "detection", "measurements": {"Predicted IoU": 0.8}},
        }
        prompt = Prompt(str(number), l0_box=Box(x, y, x + 60, y + 60))
        rows.append(PromptRow(str(number), "outlined", "", prompt, feature))
    image = ImageOutcome("1", "slide", "done", rows=tuple(rows), slide=slide, mpp=Mpp(0.5, 0.5))
    now = datetime.now(timezone.utc)
    about = ReportHeader("p", "0", "base", None, "cpu", "none", {}, now, 1.0)
    return lambda: write_report(folder / "report.html", [image], about)


def prepare_pyramidless(folder: Path, side_px: int) -> Callable[[], object]:
    import os

    import tifffile

    from wsisam_qupath import Box, open_slide

    os.environ["WSISAM_QUPATH_CACHE"] = str(folder / "cache")
    tile = np.random.default_rng(0).integers(0, 255, (512, 512, 3), np.uint8)
    count = (side_px // 512) ** 2
    tifffile.imwrite(
        folder / "slide.tif",
        (tile for _ in range(count)),
        shape=(side_px, side_px, 3), dtype=np.uint8, tile=(512, 512), photometric="rgb",
        compression="jpeg", bigtiff=True, resolution=(20000, 20000), resolutionunit="CENTIMETER",
    )  # fmt: skip
    slide = open_slide(folder / "slide.tif")
    return lambda: slide.read(Box(0, 0, side_px, side_px), 256, 256)


def prepare_views(_folder: Path, count: int) -> Callable[[], object]:
    from wsisam_qupath.geometry import Mpp, PatchPair
    from wsisam_qupath.slide import SlideReference
    from wsisam_qupath_training.dataset import AnnotatedImage, Truth
    from wsisam_qupath_training.sampling.samples import (
        Sample,
        SamplingSettings,
        rasterize_targets,
    )

    side = math.ceil(count**0.5)
    truths = tuple(
        Truth(str(n), shapely.Point(50 * (n % side), 50 * (n // side)).buffer(20), "cell")
        for n in range(count)
    )
    image = AnnotatedImage("i", "d", "g", SlideReference("none"), truths)
    # Beside all objects: so only the search is measured, and no masks.
    pair = PatchPair(-5000.0, -5000.0, 0.5, 256, Mpp(0.5, 0.5))
    unstained = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))
    view = Sample(0, pair, 0, 0, unstained, "none", 0)
    settings = SamplingSettings()
    rasterize_targets(image, view, settings)
    return lambda: [rasterize_targets(image, view, settings) for _ in range(100)]


PREPARED: dict[str, Callable[[Path, int], Callable[[], object]]] = {
    "prompts": prepare_prompts,
    "create": prepare_create,
    "report": prepare_report,
    "pyramidless": prepare_pyramidless,
    "views": prepare_views,
}


if __name__ == "__main__":
    main()
