"""Make the encoders in int8 that ship with the package, from patches of tissue.

    python scripts/quantize_encoder.py SLIDE_OR_FOLDER... [--patches 120]

Needs the extra `quantize` and the encoder that scripts/pack_graphs.py packed. Makes that of the
base and that of the shipped adapter, if it brings one; what is there for the same encoder stays
until it is deleted. The patches only say in which range each value lies; nothing is learned from
them. Each has 0.5, 1 or 2 µm per pixel, or for images without a pixel size as many pixels. To be
run again after pack_graphs.py.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import nncf
import numpy as np
from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from wsisam_qupath.geometry import Box  # noqa: E402
from wsisam_qupath.inference.backends import ImageArray  # noqa: E402
from wsisam_qupath.inference.backends.openvino_encoder import write_ready_encoder  # noqa: E402
from wsisam_qupath.inference.backends.openvino_runtime import ov  # noqa: E402
from wsisam_qupath.inference.ready_graphs import (  # noqa: E402
    ENCODER,
    find_int8_encoder,
    pack_int8_encoder,
)
from wsisam_qupath.model.adapter import Adapter  # noqa: E402
from wsisam_qupath.model.bases import Base, find_base  # noqa: E402
from wsisam_qupath.model.shipped import load_chosen_adapter  # noqa: E402
from wsisam_qupath.options import DEFAULT_BASE  # noqa: E402
from wsisam_qupath.slide import open_slide  # noqa: E402

SCALES_MPP = (0.5, 1.0, 2.0)
HELD_OUT = 12
"""Patches to compare on, which the ranges are not made from."""

MOST_GLASS = 0.5
ENDINGS = {".svs", ".tif", ".tiff", ".ndpi", ".png", ".jpg", ".bmp"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("places", type=Path, nargs="+")
    parser.add_argument("--patches", type=int, default=120)
    given = parser.parse_args()
    base = find_base(DEFAULT_BASE)
    patches = read_patches(list_files(given.places), given.patches + HELD_OUT, base.size_px)
    for adapter in (None, load_chosen_adapter("default", base)):
        if (found := find_int8_encoder(base, adapter)) is None:
            make(base, adapter, patches)
        else:
            print(f"{found.archive.relative_to(ROOT)} is there; delete it to make it again")


def make(base: Base, adapter: Adapter | None, patches: Sequence[ImageArray]) -> None:
    """Make the encoder of a base and an adapter in int8, and say how near it is to floats."""
    core = ov.Core()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_ready_encoder(base, adapter, folder)
        floats = core.read_model(folder / f"{ENCODER}.xml")
        int8 = quantize(core.read_model(folder / f"{ENCODER}.xml"), patches[HELD_OUT:])
        made = folder / "int8"
        made.mkdir()
        ov.save_model(int8, made / f"{ENCODER}.xml", compress_to_fp16=True)
        path = pack_int8_encoder(made, base, adapter)
        print(f"{path.relative_to(ROOT)}: {path.stat().st_size / 1e6:.1f} MB")
        for what, cosines in compare(core, floats, int8, patches[:HELD_OUT]).items():
            print(f"cosine of {what}: {np.mean(cosines):.4f}, at least {np.min(cosines):.4f}")


def quantize(graph: ov.Model, patches: Sequence[ImageArray]) -> ov.Model:
    """The graph with matrices and convolutions in int8, for patches like these."""
    return nncf.quantize(
        graph,
        nncf.Dataset([patch[None] for patch in patches]),
        subset_size=len(patches),
        model_type=nncf.ModelType.TRANSFORMER,
        preset=nncf.QuantizationPreset.MIXED,
        # Correcting the bias reads the patches once more for many layers: with 120 of them it was
        # not done after 25 minutes on two busy cores.
        advanced_parameters=nncf.AdvancedQuantizationParameters(disable_bias_correction=True),
    )


def list_files(places: Sequence[Path]) -> list[Path]:
    """Slides and images, those in folders too."""
    files = [
        path
        for place in places
        for path in (sorted(place.rglob("*")) if place.is_dir() else [place])
    ]
    return [path for path in files if path.suffix.lower() in ENDINGS]


def read_patches(files: Sequence[Path], count: int, size_px: int) -> list[ImageArray]:
    """Patches of all files in turn, at random places with tissue; the same in every run."""
    rng = np.random.default_rng(0)
    found: list[ImageArray] = []
    while len(found) < count:
        for path in files:
            found += read_one(path, size_px, rng)
    rng.shuffle(found)  # type: ignore[arg-type]
    return found[:count]


def read_one(path: Path, size_px: int, rng: np.random.Generator) -> Iterator[ImageArray]:
    """A patch at a random place and scale, unless it shows glass."""
    with open_slide(path, mpp_if_unstated=0.5, as_qupath=False) as slide:
        longest = min(slide.width_px, slide.height_px)
        side = min(size_px * rng.choice(SCALES_MPP) / slide.mpp.x, longest)
        x, y = rng.uniform(0, slide.width_px - side), rng.uniform(0, slide.height_px - side)
        patch = slide.read(Box(x, y, x + side, y + side), size_px, size_px)
    if (np.ptp(patch.astype(int), axis=-1) < 18).mean() < MOST_GLASS:
        yield patch


def compare(
    core: ov.Core, floats: ov.Model, int8: ov.Model, patches: Sequence[ImageArray]
) -> dict[str, list[float]]:
    """Cosine similarities of both outputs, by patch."""
    exact, quick = (
        core.compile_model(one, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        for one in (floats, int8)
    )
    found: dict[str, list[float]] = {"tokens": [], "early features": []}
    for patch in patches:
        for cosines, one, other in zip(
            found.values(), exact(patch[None]).values(), quick(patch[None]).values(), strict=True
        ):
            cosines.append(cosine(one, other))
    return found


def cosine(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    """Cosine of the angle between two arrays."""
    a, b = one.ravel().astype(np.float64), other.ravel().astype(np.float64)
    return float(a @ b / np.sqrt((a @ a) * (b @ b)))


if __name__ == "__main__":
    main()
