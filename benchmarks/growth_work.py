"""The work that ``growth.py`` measures: each function prepares it, in an empty folder.

For STARTED it gives the arguments of a command; for CALLED a function, which tells what else there
is to say.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import shapely
import tifffile

from wsisam_qupath.options import Precision

TILE_PX = 512
MIB = 1 << 20
Feature = dict[str, Any]


def make_tissue(side_px: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Colors that change slowly, with a little noise: HWC uint8 RGB."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(120, 240, (side_px // 16, side_px // 16, 3)).astype(np.float32)
    smooth = np.repeat(np.repeat(coarse, 16, axis=0), 16, axis=1)
    return (smooth + rng.normal(0, 4, smooth.shape)).clip(0, 255).astype(np.uint8)


def write_slide(path: Path, columns: int, rows: int, *, levels: int) -> Path:
    """A tiled slide of the same few tiles, which are compressed once; 0.5 µm/px."""
    tile = make_tissue(TILE_PX)
    encoded = bytes(imagecodecs.jpeg_encode(tile, 85, colorspace="rgb", outcolorspace="rgb"))
    about = {
        "dtype": np.uint8, "tile": (TILE_PX, TILE_PX), "photometric": "rgb",
        "compression": "jpeg", "resolutionunit": "CENTIMETER", "metadata": None,
    }  # fmt: skip

    def tiles(count: int) -> Iterator[bytes]:
        return (encoded for _ in range(count))

    with tifffile.TiffWriter(path, bigtiff=True) as tiff:
        for level in range(levels):
            wide, high = (max(1, number >> level) for number in (columns, rows))
            tiff.write(
                tiles(wide * high),
                shape=(high * TILE_PX, wide * TILE_PX, 3),
                resolution=(20000 / 2**level, 20000 / 2**level),
                subfiletype=int(level > 0),
                **about,
            )
    return path


def make_feature(number: int, ring: Sequence[Sequence[float]], kind: str) -> Feature:
    return {
        "type": "Feature",
        "id": f"{number:08d}-2fa1-51d2-883f-0016d3cca427",
        "geometry": {"type": "Polygon", "coordinates": [ring]},
        "properties": {
            "objectType": kind,
            "classification": {"name": "Tumor", "color": [200, 0, 0]},
            "isLocked": False,
            "measurements": {"Area": 123.4567, "Solidity": 0.987, "Max diameter": 33.21},
        },
    }


def make_rectangle(number: int, x: float, y: float, side: float) -> Feature:
    ring = [[x, y], [x + side, y], [x + side, y + side], [x, y + side], [x, y]]
    return make_feature(number, ring, "annotation")


def write_features(path: Path, features: Iterator[Feature]) -> Path:
    with path.open("w", encoding="ascii") as file:
        file.write('{"type":"FeatureCollection","features":[')
        for number, feature in enumerate(features):
            file.write(("," if number else "") + json.dumps(feature))
        file.write("]}")
    return path


def make_cells(count: int) -> Iterator[Feature]:
    """Detections of 24 vertices as QuPath exports them, 850 bytes each."""
    angles = np.linspace(0, 2 * np.pi, 25)
    circle = 20 * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    for number in range(count):
        corner = np.array([number % 700, number // 700]) * 45 + 30
        yield make_feature(number, np.round(circle + corner, 2).tolist(), "detection")


def start_segment(folder: Path, count: int) -> list[str]:
    slide = write_slide(folder / "slide.tif", 26, 26, levels=5)
    corners = [(600 + 1100 * (n % 11), 600 + 1100 * (n // 11)) for n in range(count)]
    drawn = (make_rectangle(n, x, y, 200) for n, (x, y) in enumerate(corners))
    prompts = write_features(folder / "prompts.geojson", drawn)
    return ["segment", str(slide), str(prompts), "-o", str(folder / "out.geojson")]


def start_prompts(folder: Path, count: int) -> list[str]:
    slide = write_slide(folder / "slide.tif", 2, 2, levels=1)
    cells = write_features(folder / "cells.geojson", make_cells(count))
    return ["segment", str(slide), str(cells), "-o", str(folder / "out.geojson")]


def start_create(folder: Path, count: int) -> list[str]:
    slide = write_slide(folder / "slide.tif", 1, 1, levels=1)
    cells = write_features(folder / "slide.tif.geojson", make_cells(count))
    return ["create", str(folder / "p"), "--images", str(slide), "--annotations", str(cells)]


def start_images(folder: Path, count: int) -> list[str]:
    for name in ("slides", "drawn"):
        (folder / name).mkdir()
    slide = write_slide(folder / "slide.tif", 1, 1, levels=1)
    for number in range(count):
        shutil.copy(slide, folder / "slides" / f"{number}.tif")
        drawn = (make_rectangle(1000 * number + n, 40 * n, 40 * n, 30) for n in range(3))
        write_features(folder / "drawn" / f"{number}.tif.geojson", drawn)
    slides, drawn_in = str(folder / "slides"), str(folder / "drawn")
    return ["create", str(folder / "p"), "--images", slides, "--annotations", drawn_in]


def start_dry_run(folder: Path, count: int) -> list[str]:
    create = [sys.executable, "-m", "wsisam_qupath", *start_images(folder, count)]
    subprocess.run(create, check=True, capture_output=True)
    return ["batch", str(folder / "p"), "--dry-run"]


def call_report(folder: Path, count: int) -> Callable[[], str]:
    from wsisam_qupath import Box, Prompt
    from wsisam_qupath.geometry import Mpp
    from wsisam_qupath.report.outcome import ImageOutcome, PromptRow
    from wsisam_qupath.report.writing import ReportHeader, write_report
    from wsisam_qupath.slide.pyramid import write_pyramid

    slide = folder / "slide.tif"
    write_pyramid(slide, make_tissue(2048), mpp=0.5)
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
    (folder / "out").mkdir()

    def work() -> str:
        write_report(folder / "out" / "report.html", [image], about)
        pages = [one.stat().st_size for one in (folder / "out").rglob("*.html")]
        return f"{len(pages)} page(s), the largest of {max(pages) / 1e6:.1f} MB"

    return work


class Stub:
    """A backend that finds a disk in every patch, without a network."""

    name = "none"
    precision: Precision = "f32"
    pairs_at_once = 1

    def __init__(self) -> None:
        from wsisam_qupath.inference.backends import Prediction

        y, x = np.mgrid[:256, :256] - 128.0
        logits = (400 - x**2 - y**2).astype(np.float32)
        self._answer = (Prediction(logits, 0.9),)

    def encode(self, patches: Sequence[Any]) -> Any:
        raise NotImplementedError

    def embed(self, pairs: Sequence[Any], *_lr_patches: Any) -> list[Any]:
        from wsisam_qupath.inference.backends import Embedding

        return [Embedding((), {}, 0) for _ in pairs]

    def read_tokens(self, patch: Any) -> Any:
        raise NotImplementedError

    def take(self, encoded: Any) -> Any:
        raise NotImplementedError

    def decode(self, _decoder: str, _embedding: Any, prompts: Sequence[Any]) -> list[Any]:
        return [self._answer for _ in prompts]


def call_request(folder: Path, count: int) -> Callable[[], str]:
    from wsisam_qupath import ModelSpec, Segmenter
    from wsisam_qupath.inference.loading import resolve
    from wsisam_qupath.inference.predictor import Predictor
    from wsisam_qupath.server.app import create_app
    from wsisam_qupath.server.budget import MemoryBudget
    from wsisam_qupath.server.config import Limits, ServerConfig
    from wsisam_qupath.server.loading import ModelLoader
    from wsisam_qupath.server.metrics import Metrics
    from wsisam_qupath.server.queue import DeviceQueue
    from wsisam_qupath.server.service import Service
    from wsisam_qupath.server.slides import Slides

    slide = write_slide(folder / "slide.tif", 26, 26, levels=5)
    base = resolve(ModelSpec(adapter=None)).base
    models = ModelLoader(lambda: Segmenter(Predictor(Stub(), base, None)))
    token = "0123456789abcdef-for-growth"
    config = ServerConfig(token, slides=(folder,), limits=Limits())
    metrics = Metrics()
    queue = DeviceQueue(8, metrics.observe_wait, MemoryBudget(config.limits.memory_bytes))
    load(models)
    service = Service(models, Slides(config), queue, config.limits)
    app = create_app(service, config, metrics=metrics)
    side = math.isqrt(count) + 1
    drawn = [make_rectangle(n, 170 * (n % side), 170 * (n // side), 120) for n in range(count)]
    side_px = 26 * TILE_PX
    about = {
        "uri": slide.as_uri(), "width": side_px, "height": side_px, "mpp_x": 0.5, "mpp_y": 0.5,
    }  # fmt: skip
    body = json.dumps({"slide": about, "prompts": drawn}).encode()
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}

    def work() -> str:
        start = time.perf_counter()
        answer = app.test_client().post("/v1/segment", data=body, headers=headers)
        pieces = answer.iter_encoded()
        first = next(pieces)
        waited, length = time.perf_counter() - start, len(first) + sum(map(len, pieces))
        assert answer.status_code == 200, first
        return f"first byte after {waited:.1f} s, {length / 1e6:.0f} MB, network stubbed"

    return work


def load(models: Any) -> None:
    """Load a model, in this version of the program or an earlier one."""
    from wsisam_qupath.server import loading

    if hasattr(loading, "start_in_turn"):
        loading.start_in_turn([models])
    else:
        models.start()
    models.wait()


def call_pyramidless(folder: Path, megapixels: int) -> Callable[[], str]:
    from wsisam_qupath import Box, open_slide

    os.environ["WSISAM_QUPATH_CACHE"] = str(folder / "cache")
    tiles = math.ceil(1000 * math.sqrt(megapixels) / TILE_PX)
    slide = open_slide(write_slide(folder / "slide.tif", tiles, tiles, levels=1))

    def work() -> str:
        slide.read(Box(0, 0, tiles * TILE_PX, tiles * TILE_PX), 256, 256)
        kept = sum(one.stat().st_size for one in (folder / "cache").rglob("*") if one.is_file())
        return f"{tiles * TILE_PX:,} px wide, {kept / 1e6:.0f} MB in the cache"

    return work


def call_again(folder: Path, megapixels: int) -> Callable[[], str]:
    work = call_pyramidless(folder, megapixels)
    work()
    return work


def call_views(_folder: Path, count: int) -> Callable[[], str]:
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

    def work() -> str:
        for _ in range(100):
            rasterize_targets(image, view, settings)
        return ""

    return work


STARTED: dict[str, Callable[[Path, int], list[str]]] = {
    "segment": start_segment,
    "prompts": start_prompts,
    "create": start_create,
    "images": start_images,
    "dry-run": start_dry_run,
}
CALLED: dict[str, Callable[[Path, int], Callable[[], str]]] = {
    "report": call_report,
    "request": call_request,
    "pyramidless": call_pyramidless,
    "again": call_again,
    "views": call_views,
}
