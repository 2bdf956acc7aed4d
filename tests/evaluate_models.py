"""Models whose answers are known, and fields of rectangles, to test evaluation with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from shapely.geometry import Point, Polygon

from wsisam_qupath.backends import Prediction
from wsisam_qupath.geometry import Mpp, PatchPair
from wsisam_qupath.polygons import outline_to_mask
from wsisam_qupath.pyramid import write_pyramid
from wsisam_qupath.slide import Slide, SlideReference
from wsisam_qupath.tokens import NEGATIVE, PADDING, Tokens
from wsisam_qupath_training.fields import Field, Part, Truth

WIDTH_PX, HEIGHT_PX = 400, 300
MPP = Mpp(1.0, 1.0)

SQUARE = shapely.box(60, 50, 160, 150)
TALL = shapely.box(220, 40, 280, 240)
"""Edges at whole level-0 px, which are mask px too where a pair has 1 µm/px."""

PAIR = PatchPair(128, 128, 1.0, 256, MPP)
"""Mask, HR and level-0 px are the same."""

Changed = Callable[[Polygon], Polygon]


@dataclass
class OutlineModel:
    """Answers with the outline that the prompt is in, or with something made of it.

    Attributes:
        outlines: what there is on the slide, level-0 px.
        change: makes the answer of the outline.
        embedded: the pairs that were read, in order.
        asked: all prompts, in order, with their pairs.
    """

    name: str
    outlines: Sequence[Polygon]
    change: Changed = lambda outline: outline
    base_size_px: int = 256
    hr_mpp: float = 1.0
    embedded: list[PatchPair] = field(default_factory=list)
    asked: list[tuple[PatchPair, Tokens]] = field(default_factory=list)

    def embed(self, slide: Slide, pair: PatchPair) -> PatchPair:
        slide.read(pair.hr_l0_box, 16, 16)
        self.embedded.append(pair)
        return pair

    def answer(self, embedding: Any, tokens: Sequence[Tokens]) -> list[Prediction]:
        self.asked += [(embedding, one) for one in tokens]
        return [self._answer(embedding, one) for one in tokens]

    def _answer(self, pair: PatchPair, tokens: Tokens) -> Prediction:
        usable = (tokens.labels != PADDING) & (tokens.labels != NEGATIVE)
        middle = Point(pair.hr_to_l0(tokens.coords[usable].astype(np.float64)).mean(axis=0))
        meant = min(self.outlines, key=lambda outline: float(outline.distance(middle)))
        logits = outline_to_mask(self.change(meant), pair, zoom=1.0, magnitude=8.0)
        return Prediction(logits, 0.75)


def make_field(
    folder: Path,
    name: str = "one",
    *,
    dataset: str = "set",
    group: str = "p1",
    part: Part | None = None,
    outlines: Sequence[Polygon] = (SQUARE, TALL),
    class_names: Sequence[str] = ("gland", "gland"),
) -> Field:
    """A pale image at 1 µm/px in which the outlines are darker."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.tif"
    y, x = np.mgrid[:HEIGHT_PX, :WIDTH_PX] + 0.5
    rgb = np.full((HEIGHT_PX, WIDTH_PX, 3), (230, 200, 220), dtype=np.uint8)
    for outline in outlines:
        rgb[shapely.contains_xy(outline, x, y)] = (140, 80, 150)
    write_pyramid(path, rgb, mpp=1.0)
    truths = tuple(
        Truth(str(number), outline, class_name)
        for number, (outline, class_name) in enumerate(zip(outlines, class_names, strict=True), 1)
    )
    return Field(name, dataset, group, SlideReference(str(path)), truths, part=part)


def truth_model() -> OutlineModel:
    """Knows the two outlines; what ``module:factory`` names in tests."""
    return OutlineModel("truth", (SQUARE, TALL))


def no_model() -> object:
    """A factory that returns something else."""
    return object()
