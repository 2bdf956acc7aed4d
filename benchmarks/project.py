"""How long a QuPath project takes, against the engine alone with the same prompts, in one run.

    python benchmarks/project.py [--images 4] [--rectangles 60] [--rounds 2] [--objects 20000]

Needs a QuPath. Both are whole commands in processes of their own: ``batch`` on a project, which
starts QuPath, reads, answers, writes and reads back; and a program that loads the model and
answers the same prompts, slide after slide. Then the writing of many detections into one image.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np
from numpy.typing import NDArray

from speed import FIELD_MPP, FIELD_PX, hardware, large_field
from wsisam_qupath import Box, Prompt, open_slide
from wsisam_qupath.geojson import write_features
from wsisam_qupath.inference.tasks import load_segmenter, serialize_results
from wsisam_qupath.project.create.command import CreateRequest, run_create
from wsisam_qupath.qupath.jvm.objects import read_image, stage_change
from wsisam_qupath.qupath.jvm.process import QuPathProcess
from wsisam_qupath.qupath.values import Change, Feature, Placed
from wsisam_qupath.slide.pyramid import write_pyramid

VERTICES = 40


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=4)
    parser.add_argument("--rectangles", type=int, default=60, help="on each image")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--objects", type=int, default=20000)
    parser.add_argument("--engine-alone", metavar="FOLDER", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.engine_alone:
        engine_alone(Path(given.engine_alone), given.rectangles)
        return
    print(hardware())
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_slides(folder, given.images, given.rectangles)
        compare(folder, given.rectangles, given.rounds)
        write_many(folder, given.objects)


def write_slides(folder: Path, images: int, rectangles: int) -> None:
    """Fields of real tissue that differ, so that no image is like another, and their prompts."""
    field = large_field()
    for number in range(images):
        slide = folder / f"field{number}.tiff"
        write_pyramid(slide, np.roll(field, 173 * number, axis=(0, 1)), mpp=FIELD_MPP)
        write_features(slide.with_suffix(".geojson"), [feature(p) for p in prompts(rectangles)])


def prompts(rectangles: int) -> list[Prompt]:
    rng = np.random.default_rng(0)
    corners = rng.uniform(200, FIELD_PX - 600, (rectangles, 2))
    sides = rng.uniform(120, 320, (rectangles, 2))
    return [
        Prompt(str(number), l0_box=Box(x, y, x + w, y + h))
        for number, ((x, y), (w, h)) in enumerate(zip(corners, sides, strict=True))
    ]


def feature(prompt: Prompt) -> Feature:
    assert prompt.l0_box is not None
    box = prompt.l0_box
    xs, ys = (box.x0, box.x1, box.x1, box.x0, box.x0), (box.y0, box.y0, box.y1, box.y1, box.y0)
    return {
        "type": "Feature",
        "geometry": {"type": "Polygon", "coordinates": [list(zip(xs, ys, strict=True))]},
        "properties": {"objectType": "annotation"},
    }


def compare(folder: Path, rectangles: int, rounds: int) -> None:
    """Whole commands, in turns."""
    alone, whole = [], []
    for number in range(rounds):
        project = folder / f"project{number}"
        run_create(CreateRequest(project, (str(folder / "*.tiff"),), folder))
        given = ["--engine-alone", str(folder), "--rectangles", str(rectangles)]
        alone.append(seconds([sys.executable, __file__, *given]))
        whole.append(seconds([sys.executable, "-m", "wsisam_qupath", "batch", str(project)]))
    print(
        f"engine alone {median(alone):.1f} s, batch on a project {median(whole):.1f} s: "
        f"{median(whole) / median(alone):.2f} x (target 1.15)",
        flush=True,
    )


def seconds(command: list[str]) -> float:
    start = time.perf_counter()
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
    return time.perf_counter() - start


def engine_alone(folder: Path, rectangles: int) -> None:
    """The same prompts without QuPath."""
    segmenter = load_segmenter()
    for path in sorted(folder.glob("*.tiff")):
        with open_slide(path) as slide:
            found = serialize_results(segmenter.segment(slide, prompts(rectangles)), "detection")
            assert sum(one.feature is not None for one in found)


def write_many(folder: Path, objects: int) -> None:
    """Stage, and read back, a change of so many detections, again and again in one Java machine."""
    project = folder / "project0" / "project.qpproj"
    angles = np.linspace(0, 2 * np.pi, VERTICES, endpoint=False)
    circle = np.stack([np.cos(angles), np.sin(angles)], axis=1) * 9
    added = tuple(Placed(detection(circle, number), None) for number in range(objects))
    with QuPathProcess() as qupath:
        present = qupath.run(read_image, project, "1").n_objects
        took = []
        for _ in range(9):
            start = time.perf_counter()
            staged = qupath.run(
                stage_change, project, "1", Change(present, (), added), folder / "staged.qpdata"
            )
            took.append(time.perf_counter() - start)
    size_mb = staged.path.stat().st_size / 1e6
    print(
        f"{objects} detections ({size_mb:.1f} MB) written and read back: at first "
        f"{took[0]:.2f} s, then median {median(took[1:]):.2f} s, best {min(took):.2f} s "
        "(target 3 s)"
    )


def detection(circle: NDArray[np.float64], number: int) -> Feature:
    center = np.array([20 + 25 * (number % 150), 20 + 25 * (number // 150)])
    ring = (circle + center).round(2).tolist()
    metadata = {"wsisam_prompt_id": str(number), **{f"wsisam_{key}": "x" * 20 for key in range(8)}}
    return {
        "type": "Feature",
        "id": f"00000000-0000-5000-8000-{number:012x}",
        "geometry": {"type": "Polygon", "coordinates": [[*ring, ring[0]]]},
        "properties": {
            "objectType": "detection",
            "classification": "Gland",
            "measurements": {"Predicted IoU": 0.9, "Stability score": 0.9, "Area µm^2": 60.0},
            "metadata": metadata,
        },
    }


if __name__ == "__main__":
    main()
