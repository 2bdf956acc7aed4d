"""Draw glands by formula, with their lumens annotated: what docs/training.md trains on.

    python scripts/training_example.py FOLDER [--images 3] [--lumens 12]

Each image is a TIFF of 1200 x 900 px at 0.5 µm/px with glands, dark rings of cells around a pale
lumen, in pink tissue with pale gaps. NAME.geojson beside it has the lumens, as QuPath exports them.
Nothing in it is tissue, and nobody's data.
"""

from __future__ import annotations

import argparse
import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry import Polygon, mapping

from wsisam_qupath.slide.pyramid import write_pyramid

WIDTH_PX, HEIGHT_PX, MPP = 1200, 900, 0.5
TISSUE, CELLS, PALE = (222, 170, 205), (120, 75, 150), (240, 236, 241)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=3)
    parser.add_argument("--lumens", type=int, default=12, help="of each image")
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    for number in range(given.images):
        rng = np.random.default_rng(number)
        glands = list(_place(rng, given.lumens))
        name = f"patient-{number + 1}"
        write_pyramid(given.folder / f"{name}.tif", _paint(rng, glands), mpp=MPP)
        features = [_annotate(lumen, f"{name}/{n}") for n, (_, lumen) in enumerate(glands)]
        document = {"type": "FeatureCollection", "features": features}
        (given.folder / f"{name}.geojson").write_text(json.dumps(document), encoding="utf-8")


def _place(rng: np.random.Generator, count: int) -> Iterator[tuple[Polygon, Polygon]]:
    """Glands that do not touch, each with its lumen."""
    placed: list[Polygon] = []
    while len(placed) < count:
        radius = rng.uniform(55, 95)
        x = rng.uniform(radius + 20, WIDTH_PX - radius - 20)
        y = rng.uniform(radius + 20, HEIGHT_PX - radius - 20)
        gland = _draw_blob(rng, x, y, radius)
        if all(gland.distance(other) > 12 for other in placed):
            placed.append(gland)
            yield gland, _draw_blob(rng, x, y, radius * rng.uniform(0.35, 0.6))


def _draw_blob(rng: np.random.Generator, x: float, y: float, radius: float) -> Polygon:
    """A circle with three waves on it, of random height and phase."""
    angle = np.linspace(0, 2 * np.pi, 72, endpoint=False)
    heights, phases = rng.uniform(0.02, 0.12, 3), rng.uniform(0, 2 * np.pi, 3)
    waves = sum(
        h * np.sin(k * angle + p) for k, h, p in zip((2, 3, 5), heights, phases, strict=True)
    )
    r = radius * (1 + waves)
    return Polygon(np.stack([x + r * np.cos(angle), y + r * np.sin(angle)], axis=1))


def _paint(rng: np.random.Generator, glands: list[tuple[Polygon, Polygon]]) -> NDArray[np.uint8]:
    """HWC uint8 RGB."""
    y, x = np.mgrid[:HEIGHT_PX, :WIDTH_PX] + 0.5
    grain = np.sin(0.21 * x + 0.13 * y) * np.cos(0.17 * x - 0.29 * y)
    rgb = np.broadcast_to(np.array(TISSUE, dtype=np.float64), (HEIGHT_PX, WIDTH_PX, 3)).copy()
    rgb[np.sin(0.019 * x + 2 * np.sin(0.013 * y)) * np.sin(0.023 * y) > 0.86] = PALE
    for gland, lumen in glands:
        rgb[shapely.contains_xy(gland, x, y)] = CELLS
        rgb[shapely.contains_xy(lumen, x, y)] = PALE
    rgb += 14 * grain[..., None] + rng.normal(0, 9, rgb.shape)
    painted: NDArray[np.uint8] = np.clip(np.rint(rgb), 0, 255).astype(np.uint8)
    return painted


def _annotate(lumen: Polygon, name: str) -> dict[str, Any]:
    return {
        "type": "Feature",
        "id": str(uuid.uuid5(uuid.NAMESPACE_OID, name)),
        "geometry": mapping(lumen),
        "properties": {
            "objectType": "annotation",
            "classification": {"name": "Lumen", "color": [0, 120, 200]},
        },
    }


if __name__ == "__main__":
    main()
