"""F1 of `find` from three random examples an image, beside clicks on a regular grid.

    python benchmarks/find.py DATA [--part test] [--images 6] [--grid] [--json FILE]

DATA is a collection (.toml) or anything else that `train` reads, with images that are annotated
completely. Three random objects that lie wholly in an image are its examples, as they were drawn;
the others are to be found. A found object is right if its IoU with one of them is above 0.5. With
``--grid`` the same model also answers clicks on a regular grid, half an object's size apart, as
automatic masks of other programs come about, with the objects' true size told.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import shapely
from shapely.geometry import MultiPolygon, Polygon

from wsisam_qupath import OutlineOptions, Prompt, Segmenter, Slide, load_segmenter
from wsisam_qupath.inference.find import Search, find_objects
from wsisam_qupath_training.dataset import AnnotatedImage
from wsisam_qupath_training.sources.reading import read_dataset

Outline: TypeAlias = Polygon | MultiPolygon

EXAMPLES = 3
LEAST_OBJECTS = 5
RIGHT_IOU = 0.5
EDGE_PX = 2


@dataclass(frozen=True)
class Row:
    """One image, searched in one way."""

    dataset: str
    image: str
    way: str
    objects: int
    found: int
    right: int
    prompts: int
    encodes: int
    seconds: float

    @property
    def f1(self) -> float:
        return 2 * self.right / max(1, self.found + self.objects)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--part", choices=["train", "val", "test", "all"], default="test")
    parser.add_argument("--images", type=int, default=6, help="of each dataset")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--grid", action="store_true")
    parser.add_argument("--min-score", type=float, default=Search.min_score)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    segmenter = load_segmenter(threads=given.threads)
    print(f"{platform.processor() or platform.machine()}, {segmenter.predictor.backend.name}")
    rows: list[Row] = []
    for number, image in enumerate(_choose(given.data, given.part, given.images, given.seed)):
        rng = np.random.default_rng((given.seed, number))
        with image.slide.open() as slide:
            for row in _measure(segmenter, slide, image, rng, given.min_score, given.grid):
                rows.append(row)
                print(f"{row.dataset} {row.image} {row.way}: F1 {row.f1:.2f}, {row}", flush=True)
        if given.json:
            given.json.write_text(json.dumps([asdict(row) for row in rows], indent=1))
    _print_means(rows)


def _choose(data: Path, part: str, count: int, seed: int) -> Iterator[AnnotatedImage]:
    by_dataset: defaultdict[str, list[AnnotatedImage]] = defaultdict(list)
    for image in read_dataset(data).dataset.images:
        if part in ("all", image.part) and len(image.truths) >= LEAST_OBJECTS:
            by_dataset[image.dataset].append(image)
    rng = np.random.default_rng(seed)
    for images in by_dataset.values():
        yield from (images[index] for index in rng.permutation(len(images))[:count])


def _measure(
    segmenter: Segmenter,
    slide: Slide,
    image: AnnotatedImage,
    rng: np.random.Generator,
    min_score: float,
    with_grid: bool,
) -> Iterator[Row]:
    truths = [shapely.make_valid(truth.l0_outline) for truth in image.truths]
    whole = [index for index, truth in enumerate(truths) if _is_whole(truth, slide)]
    chosen = rng.permutation(whole if len(whole) >= EXAMPLES else len(truths))[:EXAMPLES]
    examples = [image.truths[index].l0_outline for index in chosen]
    others = [truth for index, truth in enumerate(truths) if index not in chosen]
    prompts = tuple(Prompt(f"example {n}", l0_outline=one) for n, one in enumerate(examples))
    ways = {"find": (Search(prompts, min_score=min_score), OutlineOptions())}
    if with_grid:
        size_um = float(np.median([max(_sides_um(one, slide)) for one in truths]))
        ways["grid"] = Search(min_score=min_score), OutlineOptions(object_size_um=size_um)
    for way, (search, options) in ways.items():
        tally, start = segmenter.tally, time.perf_counter()
        before = tally.prompts_answered, tally.pairs_embedded
        found = [one.polygon for one in find_objects(segmenter, slide, search, options)]
        found = [one for one in found if not any(_iou(one, e) > RIGHT_IOU for e in examples)]
        yield Row(
            image.dataset,
            image.name,
            way,
            len(others),
            len(found),
            _count_right(found, others),
            tally.prompts_answered - before[0],
            tally.pairs_embedded - before[1],
            time.perf_counter() - start,
        )


def _is_whole(outline: Outline, slide: Slide) -> bool:
    x0, y0, x1, y1 = outline.bounds
    width, height = slide.width_px - EDGE_PX, slide.height_px - EDGE_PX
    return bool(x0 > EDGE_PX and y0 > EDGE_PX and x1 < width and y1 < height)


def _sides_um(outline: Outline, slide: Slide) -> tuple[float, float]:
    x0, y0, x1, y1 = outline.bounds
    return (x1 - x0) * slide.mpp.x, (y1 - y0) * slide.mpp.y


def _count_right(found: Iterable[Outline], truths: Sequence[Outline]) -> int:
    """How many found objects are one of the truth, the surest first; each truth counts once."""
    left = list(truths)
    right = 0
    for outline in found:
        best = max(left, key=lambda truth: _iou(outline, truth), default=None)
        if best is not None and _iou(outline, best) > RIGHT_IOU:
            left.remove(best)
            right += 1
    return right


def _iou(one: Outline, other: Outline) -> float:
    if not one.intersects(other):
        return 0.0
    shared = shapely.intersection(one, other).area
    return float(shared / (one.area + other.area - shared))


def _print_means(rows: Sequence[Row]) -> None:
    print("\n| dataset | way | images | F1 | prompts an image | encodes an image |")
    print("|---|---|---|---|---|---|")
    for way in dict.fromkeys(row.way for row in rows):
        means = []
        for dataset in dict.fromkeys(row.dataset for row in rows):
            some = [row for row in rows if (row.dataset, row.way) == (dataset, way)]
            means.append(float(np.mean([row.f1 for row in some])))
            prompts, encodes = (np.mean([getattr(row, n) for row in some]) for n in _COUNTS)
            print(
                f"| {dataset} | {way} | {len(some)} | {means[-1]:.2f} "
                f"| {prompts:.0f} | {encodes:.1f} |"
            )
        print(f"| mean | {way} | | {np.mean(means):.2f} | | |")


_COUNTS = ("prompts", "encodes")


if __name__ == "__main__":
    main()
