"""The questions that models are asked about an object: prompts, and the patch pair of each."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

import numpy as np
import shapely
from shapely.geometry import MultiPolygon, Polygon

from wsisam_qupath.errors import OptionError, escape
from wsisam_qupath.geometry import Box, Mpp, PatchPair
from wsisam_qupath.geometry.validity import keep_polygons
from wsisam_qupath.prompts import Prompt
from wsisam_qupath.prompts.planner import Planner

from ..dataset import AnnotatedImage, Truth
from .models import Model, describe_source
from .prompting import add_box_noise, coarsen_outline, sample_points_inside

Kind: TypeAlias = Literal["box", "points", "box+points", "outline", "noc"]
KINDS: tuple[Kind, ...] = ("box", "points", "box+points", "outline", "noc")

POINT_COUNTS = (1, 3, 5, 10)
POINTS_WITH_BOX = 3
CLICKS = "clicks"
"""Label of the question that is asked click by click."""

GIVEN_BOX = "given box"
"""Label of the box that another model found."""

FULLEST_WINDOW, EMPTIEST_WINDOW = 0.9, 0.01
"""Largest and smallest share of a fixed window that an object may cover; beyond them "everything"
or "nothing" would be right."""

MOST_WINDOWS = 16
"""Largest number of windows that tile a large object; of more, so many are drawn at random."""

Outline: TypeAlias = Polygon | MultiPolygon


@dataclass(frozen=True)
class ProtocolSettings:
    """How models are asked about objects.

    Attributes:
        kinds: kinds of prompts to ask.
        box_noise: standard deviation of each edge of a box, as a share of the side that it bounds.
        outline_noise: standard deviation of a coarse outline's boundary, as a share of the square
            root of the object's area.
        scale: object size that comes with points: ``truth`` is the longest side of each object,
            ``median`` that of its class in its dataset, a number is in µm. None gives no size, so
            that the pair has the scale that the weights are best at.
        window_mpp: None asks as in use, by the engine of all commands. Else all prompts of an
            object are asked on fixed windows of this many µm per encoder px, and the object ends
            where the window does: the paper's protocol, at 1.0. An object that is larger than a
            window is tiled with several; see :data:`FULLEST_WINDOW` and :data:`MOST_WINDOWS`.
        second_pass: whether adapters refine their first answer.
        seed: random seed of all noise; the prompts of an object depend on it and on the object
            alone.

    Raises:
        OptionError: a number is out of its range, or there is nothing to ask.
    """

    kinds: tuple[Kind, ...] = KINDS
    box_noise: float = 0.05
    outline_noise: float = 0.05
    scale: float | Literal["truth", "median"] | None = None
    window_mpp: float | None = None
    second_pass: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("box_noise", "outline_noise"):
            share = getattr(self, name)
            if not 0 <= share <= 0.5:
                raise OptionError(name, f"{share:g} is not a share from 0 to 0.5, e.g. 0.05.")
        if isinstance(self.scale, (int, float)) and not (
            math.isfinite(self.scale) and self.scale > 0
        ):
            raise OptionError("scale", f"{self.scale:g} is not a positive size, e.g. 10 µm.")
        if self.window_mpp is not None and not (
            math.isfinite(self.window_mpp) and self.window_mpp > 0
        ):
            raise OptionError("window_mpp", f"{self.window_mpp:g} is not a pixel size, e.g. 1 µm.")
        if not self.kinds:
            raise OptionError("kinds", f"none is given: choose among {','.join(KINDS)}.")
        if unknown := [kind for kind in self.kinds if kind not in KINDS]:
            raise OptionError("kinds", f"{', '.join(unknown)} is none of {', '.join(KINDS)}.")


def describe_protocol(settings: ProtocolSettings, models: Sequence[Model]) -> list[str]:
    """Describe for the tables which questions were asked."""
    size = {"truth": "the object's true size", "median": "the median size of its class"}
    told = settings.scale
    known = "no size" if told is None else size.get(str(told), f"a size of {told} µm")
    where = (
        "as in use"
        if settings.window_mpp is None
        else (
            f"on windows of {settings.window_mpp:g} µm per pixel that are covered by "
            f"{100 * FULLEST_WINDOW:.0f} % at most"
        )
    )
    return [
        f"Asked {where}. Points come with {known}; noise of box edges "
        f"{100 * settings.box_noise:g} %, of outlines {100 * settings.outline_noise:g} %; second "
        f"passes {'on' if settings.second_pass else 'off'}.",
        *(f"{escape(m.name)}: {describe_source(m)}" for m in models),
    ]


@dataclass(frozen=True)
class ObjectKey:
    """Names the object that a score belongs to."""

    dataset: str
    field: str
    group: str
    object_id: str
    class_name: str


@dataclass(frozen=True)
class Query:
    """One prompt on one patch pair; its answer is compared with one outline.

    Attributes:
        label: name of the kind of question in tables: "box", "3 points", :data:`CLICKS`.
        prompt: the prompt; None where clicks are to be found.
        object_size_um: object size that comes with the prompt, µm.
        l0_outline: the true outline, level-0 px.
    """

    object_key: ObjectKey
    label: str
    prompt: Prompt | None
    pair: PatchPair
    object_size_um: float | None
    l0_outline: Outline


def make_object_key(image: AnnotatedImage, truth: Truth) -> ObjectKey:
    """Make the key of an object's scores."""
    return ObjectKey(image.dataset, image.name, image.group, truth.id, truth.class_name)


def measure_longest_um(truth: Truth, mpp: Mpp) -> float:
    """Measure the longer side of an object's box, µm."""
    return max(truth.l0_box.width * mpp.x, truth.l0_box.height * mpp.y)


@dataclass(frozen=True)
class PromptBuilder:
    """Builds the questions that one model is asked about the objects of one image.

    Attributes:
        mpp: pixel size of the image's slide.
        sizes_um: object size by class, for the scale ``median``.
        given: boxes of another model, by object id.
    """

    settings: ProtocolSettings
    model: Model
    image: AnnotatedImage
    mpp: Mpp
    sizes_um: Mapping[str, float]
    given: Mapping[str, Box]

    def build_queries(self, truth: Truth) -> Iterator[Query]:
        """Build all questions about an object; none where no fixed window fits it."""
        if self.settings.window_mpp is None:
            yield from self._build_queries_of(truth, None)
            return
        windows = list(self._cut_into_windows(truth, self.settings.window_mpp))
        order = self._rng(truth, "windows").permutation(len(windows))[:MOST_WINDOWS]
        for number in sorted(order.tolist()):
            window, l0_part = windows[number]
            name = truth.id if len(windows) == 1 else f"{truth.id}, window {number + 1}"
            yield from self._build_queries_of(replace(truth, id=name, l0_outline=l0_part), window)

    def _build_queries_of(self, truth: Truth, window: PatchPair | None) -> Iterator[Query]:
        object_key = make_object_key(self.image, truth)
        size_um = self._size_um(truth)
        for label, prompt in self._prompts(truth):
            pair = window or self._pair(truth, prompt, size_um)
            yield Query(object_key, label, prompt, pair, size_um, truth.l0_outline)

    def _cut_into_windows(self, truth: Truth, hr_mpp: float) -> Iterator[tuple[PatchPair, Outline]]:
        """Windows over an object with what lies in each, if neither too much nor too little.

        A single window around the middle of an object that fits one; else a grid of them.
        """
        centered = PatchPair(*truth.l0_box.center, hr_mpp, self.model.base_size_px, self.mpp)
        for window in _tile(truth.l0_box, centered):
            l0_part = _clip(truth.l0_outline, window)
            covered = l0_part.area / (window.hr_l0_box.width * window.hr_l0_box.height)
            is_small = truth.l0_outline.area * EMPTIEST_WINDOW <= l0_part.area
            if covered <= FULLEST_WINDOW and (covered >= EMPTIEST_WINDOW or is_small):
                yield window, l0_part

    def _prompts(self, truth: Truth) -> Iterator[tuple[str, Prompt | None]]:
        settings, outline = self.settings, truth.l0_outline
        box = add_box_noise(truth.l0_box, self._rng(truth, "box"), settings.box_noise)
        points = sample_points_inside(outline, self._rng(truth, "points"), max(POINT_COUNTS))
        if truth.id in self.given:
            yield GIVEN_BOX, Prompt(truth.id, l0_box=self.given[truth.id])
        if "box" in settings.kinds:
            yield "box", Prompt(truth.id, l0_box=box)
        if "points" in settings.kinds:
            for count in POINT_COUNTS:
                yield points_label(count), Prompt(truth.id, l0_positives=points[:count])
        if "box+points" in settings.kinds:
            yield (
                BOX_AND_POINTS,
                Prompt(truth.id, l0_box=box, l0_positives=points[:POINTS_WITH_BOX]),
            )
        if "outline" in settings.kinds:
            rough = coarsen_outline(outline, self._rng(truth, "outline"), settings.outline_noise)
            yield "outline", Prompt(truth.id, l0_outline=rough)
        if "noc" in settings.kinds:
            yield CLICKS, None

    def _pair(self, truth: Truth, prompt: Prompt | None, size_um: float | None) -> PatchPair:
        planner = Planner(
            self.mpp, self.model.base_size_px, self.model.hr_mpp, object_size_um=size_um
        )
        return planner.pair(prompt or Prompt(truth.id, l0_box=truth.l0_box))

    def _size_um(self, truth: Truth) -> float | None:
        if self.settings.scale == "truth":
            return measure_longest_um(truth, self.mpp)
        if self.settings.scale == "median":
            return self.sizes_um[truth.class_name]
        return self.settings.scale

    def _rng(self, truth: Truth, what: str) -> np.random.Generator:
        named = (str(self.settings.seed), self.image.dataset, self.image.name, truth.id, what)
        digest = hashlib.sha256("\n".join(named).encode("utf-8", "surrogatepass")).digest()
        return np.random.default_rng(int.from_bytes(digest[:16], "big"))


def points_label(count: int) -> str:
    """Label for a number of points: "1 point", "3 points"."""
    return f"{count} point{'' if count == 1 else 's'}"


BOX_AND_POINTS = f"box + {points_label(POINTS_WITH_BOX)}"

LABELS = (
    GIVEN_BOX,
    "box",
    *map(points_label, POINT_COUNTS),
    BOX_AND_POINTS,
    "outline",
)
"""Labels of all questions with one answer, in the order of tables."""


def _tile(l0_box: Box, window: PatchPair) -> Iterator[PatchPair]:
    """Lay windows side by side over a box, centered on it."""
    width, height = float(window.hr_l0_box.width), float(window.hr_l0_box.height)
    columns, rows = (
        max(1, math.ceil(side / of))
        for side, of in ((l0_box.width, width), (l0_box.height, height))
    )
    for row in range(rows):
        for column in range(columns):
            l0_x = window.l0_x + (column - (columns - 1) / 2) * width
            l0_y = window.l0_y + (row - (rows - 1) / 2) * height
            yield replace(window, l0_x=l0_x, l0_y=l0_y)


def _clip(l0_outline: Outline, pair: PatchPair) -> Outline:
    frame = shapely.box(*pair.hr_l0_box.corners().ravel())
    return keep_polygons(shapely.intersection(l0_outline, frame))
