"""How quickly a CUDA GPU encodes, answers clicks and works off a batch, within three minutes.

    python benchmarks/gpu.py [--seconds 15] [--compile]

Needs the extras `torch` and `demo`. Each row is measured for so many seconds after a warm-up. The
outlines are compared with those of float32 on this machine's CPU, which takes most of the rest.
"""

from __future__ import annotations

import argparse
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from wsisam_qupath import Box, Prompt, Result, Segmenter, Slide, load_segmenter, open_slide
from wsisam_qupath.cli.demo_run import demo_tissue
from wsisam_qupath.inference.backends import ImageArray
from wsisam_qupath.inference.backends.torch_backend import TorchBackend
from wsisam_qupath.slide.pyramid import write_pyramid

FIELD_MPP = 0.5
TILES = 8
"""The field is this many pictures of tissue wide and high, of 512 px."""

PAIRS_AT_ONCE = (1, 4, 8, 16)
COMPARED = 6
"""Outlines that the CPU draws as well."""

Row = tuple[str, str]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=15.0, help="per row")
    parser.add_argument("--compile", action="store_true", help="also measure torch.compile")
    given = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("PyTorch sees no CUDA GPU on this machine: there is nothing to measure.")
    table = Table("what", "measured", title=describe_machine())
    with tempfile.TemporaryDirectory() as folder:
        field = Path(folder) / "field.tif"
        write_pyramid(field, np.tile(demo_tissue(), (TILES, TILES, 1)), mpp=FIELD_MPP)
        with open_slide(field) as slide:
            for row in list_rows(slide, given.seconds, compiles=given.compile):
                table.add_row(*row)
    Console(width=110).print(table)


def describe_machine() -> str:
    """The GPU, and the versions that compute."""
    return (
        f"{torch.cuda.get_device_name()}; {platform.system()}, Python {platform.python_version()}, "
        f"PyTorch {torch.__version__}, CUDA {torch.version.cuda}"
    )


def list_rows(slide: Slide, seconds: float, *, compiles: bool) -> Iterator[Row]:
    """Measure and yield row by row."""
    segmenter = load_segmenter(device="cuda")
    backend = segmenter.predictor.backend
    assert isinstance(backend, TorchBackend)
    patch = slide.read(Box(0, 0, 512, 512), 256, 256)
    yield "computed by", backend.name
    for count in PAIRS_AT_ONCE:
        yield f"pairs encoded, {count} at once", measure_pairs(backend, patch, count, seconds / 2)
    yield "click on a cached pair", measure_clicks(segmenter, slide, seconds, is_fresh=False)
    yield "click on a new place", measure_clicks(segmenter, slide, seconds, is_fresh=True)
    yield from measure_batch(slide, seconds)
    yield "GPU memory at most", f"{torch.cuda.max_memory_allocated() / 2**20:.0f} MiB"
    yield "outlines compared with the CPU's", compare_with_cpu(segmenter, slide)
    if compiles:
        yield "encoder alone, 16 patches", measure_compiled(backend, patch, seconds)


def measure_pairs(backend: TorchBackend, patch: ImageArray, count: int, seconds: float) -> str:
    """Embed as many pairs at once as stated, HR and LR."""
    took = repeat(lambda: backend.embed([[patch, patch]] * count), seconds)
    return f"{count / median(took):.0f} pairs/s, {1000 * median(took) / count:.2f} ms each"


def measure_clicks(segmenter: Segmenter, slide: Slide, seconds: float, *, is_fresh: bool) -> str:
    """From a click to its polygon, on one place or on a new one each time."""
    places = iter(range(10**9))

    def click() -> object:
        number = next(places) if is_fresh else 0
        x, y = 300.0 + 64 * (number % 50), 300.0 + 64 * (number // 50 % 50)
        return list(segmenter.segment(slide, [Prompt("click", l0_positives=((x, y),))]))

    took = repeat(click, seconds)
    return f"{1000 * median(took):.1f} ms (of {len(took)}; slowest {1000 * max(took):.1f})"


def measure_batch(slide: Slide, seconds: float) -> Iterator[Row]:
    """Rectangles all over the field, as `batch` answers them."""
    segmenter = load_segmenter(device="cuda")
    start = time.perf_counter()
    count = 0
    for _ in segmenter.segment(slide, spread_boxes(slide, 20_000)):
        count += 1
        if time.perf_counter() - start > seconds:
            break
    took = time.perf_counter() - start
    tally = segmenter.tally
    yield (
        "rectangles of a batch",
        (f"{count / took:.0f} prompts/s, {tally.pairs_embedded / took:.0f} pairs/s"),
    )
    stages = ", ".join(f"{name} {100 * s / took:.0f} %" for name, s in tally.seconds.items())
    yield "share of that time, stages overlap", stages


def spread_boxes(slide: Slide, count: int) -> list[Prompt]:
    """Rectangles of 60 to 160 µm at random places, the same in every run."""
    rng = np.random.default_rng(0)
    corners = rng.uniform(100, slide.width_px - 500, (count, 2))
    sides = rng.uniform(120, 320, (count, 2))
    return [
        Prompt(str(number), l0_box=Box(x, y, x + width, y + height))
        for number, ((x, y), (width, height)) in enumerate(zip(corners, sides, strict=True))
    ]


def compare_with_cpu(segmenter: Segmenter, slide: Slide) -> str:
    """Intersection over union of the same outlines by the GPU and by float32 on the CPU."""
    prompts = spread_boxes(slide, COMPARED)
    exact = load_segmenter(device="cpu", backend="torch")
    ours, theirs = (
        {one.prompt.id: one for one in each.segment(slide, prompts)} for each in (segmenter, exact)
    )
    shares = []
    for prompt in prompts:
        one, other = ours[prompt.id], theirs[prompt.id]
        if isinstance(one, Result) and isinstance(other, Result):
            both = one.polygon.intersection(other.polygon).area
            shares.append(both / one.polygon.union(other.polygon).area)
    return f"IoU {np.mean(shares):.4f} in the mean, {min(shares):.4f} at least, of {len(shares)}"


def measure_compiled(backend: TorchBackend, patch: ImageArray, seconds: float) -> str:
    """The encoder in eager mode and compiled, in turns."""
    patches = [patch] * 16
    eager = median(repeat(lambda: backend.encode(patches), seconds / 2))
    backend._encoder = torch.compile(backend._encoder)  # type: ignore[assignment]
    quick = median(repeat(lambda: backend.encode(patches), seconds / 2))
    return f"eager {1000 * eager:.1f} ms, compiled {1000 * quick:.1f} ms"


def repeat(work: Callable[[], object], seconds: float) -> list[float]:
    """Seconds of each call, for as long as given, after three calls that do not count."""
    for _ in range(3):
        work()
    took: list[float] = []
    end = time.perf_counter() + seconds
    while not took or time.perf_counter() < end:
        torch.cuda.synchronize()
        start = time.perf_counter()
        work()
        torch.cuda.synchronize()
        took.append(time.perf_counter() - start)
    return took


if __name__ == "__main__":
    main()
