"""How long encodes, clicks, fresh spots and batches take, against the bare graphs, in one run.

    python benchmarks/speed.py [--rounds 15]

References: the exported encoder run by OpenVINO alone; SAM's own prompt encoder and mask decoder
(segment-anything's code, no adapter), converted and run by OpenVINO alone; MobileSAM as its
package runs it, eager PyTorch. Each figure is the median of interleaved rounds.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from reference import bare_sam_decoder, mobile_sam_predictor
from wsisam_qupath import (
    Box,
    OutlineOptions,
    Prompt,
    Segmenter,
    Slide,
    load_segmenter,
    open_slide,
)
from wsisam_qupath.cli.demo_run import demo_tissue
from wsisam_qupath.files import cache_folder
from wsisam_qupath.inference.backends.openvino_backend import graph_folder
from wsisam_qupath.inference.backends.openvino_runtime import ov
from wsisam_qupath.model.bases import find_base
from wsisam_qupath.prompts.encoding import encode_box
from wsisam_qupath.slide.pyramid import write_pyramid

FIELD_PX = 4000
FIELD_MPP = 0.5
RECTANGLES = 200

Work = Callable[[], object]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--rectangles-only", metavar="SLIDE", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.rectangles_only:
        rectangles(Path(given.rectangles_only))
        return
    table = Table("what", "ms", "reference", "ms", "ratio", "target", title=hardware())
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        field = folder / "field.tiff"
        write_pyramid(field, large_field(), mpp=FIELD_MPP)
        adapter = random_adapter(folder / "random.safetensors")
        with open_slide(field) as slide:
            for row in rows(slide, adapter, given.rounds):
                table.add_row(*row)
        table.add_row(*fresh_process(field))
        Console(width=120).print(table)
        print(batch(field), flush=True)


def hardware() -> str:
    """CPU, cores and versions, for the title."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    name = ov.Core().get_property("CPU", "FULL_DEVICE_NAME")
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ", no GPU"
    return (
        f"{name}, {cores} cores{gpu}; {platform.system()}, Python {platform.python_version()}, "
        f"OpenVINO {ov.__version__.partition('-')[0]}, PyTorch {torch.__version__}"
    )


def large_field() -> NDArray[np.uint8]:
    """A 4000 x 4000 field of real tissue, mirrored at its seams."""
    tissue = demo_tissue()
    pair = np.concatenate([tissue, tissue[:, ::-1]], axis=1)
    square = np.concatenate([pair, pair[::-1]], axis=0)
    count = -(-FIELD_PX // len(square))
    return np.ascontiguousarray(np.tile(square, (count, count, 1))[:FIELD_PX, :FIELD_PX])


def random_adapter(path: Path) -> Path:
    """A WSI-SAM adapter that was never trained: it computes as much as a trained one.

    Its tokens end at zero, so that the outlines are SAM's own and cost what outlines cost.
    """
    from wsisam_qupath.model.adapter import write_adapter
    from wsisam_qupath.model.build import build_decoder, build_prompted_sam, extract_learned_state
    from wsisam_qupath.model.card import AdapterCard, DecoderCard, Route
    from wsisam_qupath.prompts import PromptKind

    base = find_base("lite-medsam")
    torch.manual_seed(0)
    card = DecoderCard(architecture="wsi-sam")
    learned = extract_learned_state(build_decoder(base, build_prompted_sam(base), card))
    for resolution in ("hr", "lr"):
        for part in ("weight", "bias"):
            learned[f"wsi.{resolution}.token_mlp.layers.2.{part}"].zero_()
    whole = AdapterCard(
        base=base.name,
        base_sha256=base.sha256,
        decoders={"wsi": card},
        routes={kind: Route(decoder="wsi") for kind in PromptKind},
    )
    write_adapter(path, whole, {f"wsi.{name}": t.numpy() for name, t in learned.items()})
    return path


def rows(slide: Slide, adapter: Path, rounds: int) -> Iterator[tuple[str, ...]]:
    """The table, row by row; every row's two figures are measured in turns."""
    plain, shipped, both = map(_load, (None, "default", adapter))
    patch = slide.read(Box(0, 0, 512, 512), 256, 256)
    encode, decode = bare_encode(patch), bare_sam_decoder()
    box = [Prompt("box", l0_box=Box(496, 596, 784, 1016))]
    point = [Prompt("point", l0_positives=((640.0, 800.0),))]

    yield measured(
        "encode",
        lambda: plain.predictor.backend.embed([[patch]]),
        "bare graph",
        encode,
        rounds,
        "1.15",
    )
    eager = mobile_sam_predictor()
    large = slide.read(Box(0, 0, 2048, 2048), 1024, 1024)
    yield measured(
        "encode",
        encode,
        "eager MobileSAM",
        lambda: eager.set_image(large),
        max(3, rounds // 3),
        "0.2",
    )
    for segmenter, name, clicks, spots in (
        (plain, "no adapter", "1.3", "1.5"),
        (shipped, "the default adapter", "2.3", "2.8"),
        (both, "an adapter that reads both patches", "2.3", "2.8"),
    ):
        for kind, prompts in (("box", box), ("point", point)):
            once = answering(segmenter, slide, partial(list, prompts))
            yield measured(
                f"{kind} on a cached pair, {name}", once, "bare SAM decode", decode, rounds, clicks
            )
        fresh = answering(segmenter, slide, fresh_prompts())
        yield measured(f"box on a fresh spot, {name}", fresh, "bare encode", encode, rounds, spots)


def _load(adapter: Path | str | None) -> Segmenter:
    return load_segmenter(adapter=adapter)


def answering(segmenter: Segmenter, slide: Slide, prompts: Callable[[], list[Prompt]]) -> Work:
    """Prompt to polygon, through the engine."""
    return lambda: list(segmenter.segment(slide, prompts()))


def fresh_prompts() -> Callable[[], list[Prompt]]:
    """A box in another place at each call, so that no pair is cached."""
    places = iter(np.ndindex(100, 100))

    def prompts() -> list[Prompt]:
        row, column = next(places)
        x, y = 300.0 + 130 * (column % 25), 300.0 + 130 * (row * 4 + column // 25)
        return [Prompt("fresh", l0_box=Box(x, y, x + 200, y + 200))]

    return prompts


def measured(
    what: str, work: Work, reference: str, bare: Work, rounds: int, target: str
) -> tuple[str, ...]:
    """A row: both medians in ms, in turns after one warm-up each, and their ratio."""
    times: list[tuple[float, float]] = []
    for _ in range(rounds + 1):
        times.append((seconds(work), seconds(bare)))
    ours, theirs = (1000 * median(column) for column in zip(*times[1:], strict=True))
    return (what, f"{ours:.1f}", reference, f"{theirs:.1f}", f"{ours / theirs:.2f}", f"≤ {target}")


def seconds(work: Work) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def bare_encode(patch: NDArray[np.uint8]) -> Work:
    """OpenVINO on the exported encoder and nothing else."""
    load_segmenter(adapter=None, precision="bf16")  # exports it, where int8 is chosen too
    folder = graph_folder(cache_folder() / "openvino", find_base("lite-medsam"), None)
    compiled = ov.Core().compile_model(
        folder / "encoder.xml", "CPU", {"PERFORMANCE_HINT": "LATENCY"}
    )
    request, tensor = compiled.create_infer_request(), ov.Tensor(patch[None].copy())
    return lambda: request.infer([tensor])


def fresh_process(slide: Path) -> tuple[str, ...]:
    """From the shell to the first polygon, from the second start on."""
    command = [
        sys.executable,
        "-m",
        "wsisam_qupath",
        "segment",
        str(slide),
        "--box",
        "496,596,784,1016",
    ]
    times, peak_mib = [], 0.0
    for _ in range(4):
        start = time.perf_counter()
        peak_mib = run_measured(command)[1]
        times.append(time.perf_counter() - start)
    best = 1000 * median(times[1:])
    return (
        "first polygon of a fresh process",
        f"{best:.0f}",
        f"{peak_mib:.0f} MiB",
        "",
        "",
        "≤ 2000 ms, 700 MiB",
    )


def batch(slide: Path) -> str:
    """The 200 rectangles in a process of their own, for its peak memory."""
    words, peak_mib = run_measured([sys.executable, __file__, "--rectangles-only", str(slide)])
    return f"{words.strip()}; peak memory {peak_mib:.0f} MiB (target 1536)"


def rectangles(path: Path) -> None:
    """200 rectangles on one field: encodes made, and time against the bare graphs."""
    rng = np.random.default_rng(0)
    corners = rng.uniform(200, FIELD_PX - 600, (RECTANGLES, 2))
    sides = rng.uniform(120, 320, (RECTANGLES, 2))
    prompts = [
        Prompt(str(i), l0_box=Box(x, y, x + w, y + h))
        for i, ((x, y), (w, h)) in enumerate(zip(corners, sides, strict=True))
    ]
    segmenter = load_segmenter(adapter=None)
    with open_slide(path) as slide:
        planner = segmenter.planner(slide, OutlineOptions())
        pairs = {planner.pair(prompt) for prompt in prompts}
        warm = [Prompt("warm", l0_box=Box(3700, 3700, 3900, 3900))]
        list(segmenter.segment(slide, warm))
        before, start = segmenter.tally.pairs_embedded, time.perf_counter()
        answered = len(list(segmenter.segment(slide, prompts)))
        total = time.perf_counter() - start
    made = segmenter.tally.pairs_embedded - before
    patch = demo_tissue()[:256, :256]
    embedding = segmenter.predictor.backend.embed([[patch]])[0]
    tokens = encode_box(Box(40, 50, 200, 180))
    encode = median(seconds(lambda: segmenter.predictor.backend.embed([[patch]])) for _ in range(9))
    decode = median(
        seconds(lambda: segmenter.predictor.predict(embedding, [tokens])) for _ in range(30)
    )
    alone = made * encode + answered * decode
    print(
        f"{RECTANGLES} rectangles on {FIELD_PX} x {FIELD_PX} px: {answered} answered, "
        f"{made} encodes for {len(pairs)} distinct pairs, {total:.1f} s = {total / alone:.2f} x "
        "encodes and decodes "
        f"alone ({alone:.1f} s, target 1.2)"
    )


def run_measured(command: list[str]) -> tuple[str, float]:
    """Stdout of a process, and its peak resident memory in MiB (0 on Windows)."""
    probe = (
        "import subprocess, sys\n"
        "out = subprocess.run(sys.argv[1:], check=True, stdout=subprocess.PIPE).stdout\n"
        "try:\n"
        "    import resource\n"
        "    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss\n"
        "except ImportError:\n"
        "    peak = 0\n"
        "sys.stdout.buffer.write(out + b'\\n' + str(peak).encode())\n"
    )
    out = subprocess.run(
        [sys.executable, "-c", probe, *command], check=True, capture_output=True, text=True
    ).stdout
    words, _, peak = out.rpartition("\n")
    return words, int(peak) / (1024 if sys.platform != "darwin" else 1 << 20)


if __name__ == "__main__":
    main()
