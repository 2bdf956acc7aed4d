"""What models are asked about an object: prompts, and the patch pair that each is answered on."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

import numpy as np
import shapely
from shapely.geometry import MultiPolygon, Polygon

from wsisam_qupath.errors import OptionError
from wsisam_qupath.geometry import Box, Mpp, PatchPair
from wsisam_qupath.geometry.validity import keep_polygons
from wsisam_qupath.prompts import Prompt
from wsisam_qupath.prompts.planner import Planner

from ..dataset import AnnotatedImage, Truth
from .models import Model
from .prompting import add_box_noise, coarsen_outline, sample_points_inside

Kind: TypeAlias = Literal["box", "points", "box+points", "outline", "noc"]
KINDS: tuple[Kind, ...] = ("box", "points", "box+points", "outline", "noc")

POINT_COUNTS = (1, 3, 5, 10)
POINTS_WITH_BOX = 3
CLICKS = "clicks"
"""Label of the question that is asked click by click."""

GIVEN_BOX = "given box"
"""Label of the box that another model found."""

Outline: TypeAlias = Polygon | MultiPolygon


@dataclass(frozen=True)
class ProtocolSettings:
    """How objects are asked about.

    Attributes:
        kinds: of prompts.
        box_noise: standard deviation of each edge of a box, of the side that it bounds.
        outline_noise: of a coarse outline's boundary, of the square root of the object's area.
        scale: what is said of the size of objects that bare points mark: ``truth`` is the longest
            side of each, ``median`` that of its class in its dataset, a number is in µm, and
            None is nothing, so that the pair has the scale that the weights are best at.
        window_mpp: None asks as in use, on the pair that is planned for each prompt. Else all
            prompts of an object are asked on one window of this many µm per encoder px around its
            middle, and the object ends where the window does: the paper's protocol, at 1.0.
        seed: of all noise; an object's prompts depend on it and on the object alone.

    Raises:
        OptionError: a number is out of its range, or there is nothing to ask.
    """

    kinds: tuple[Kind, ...] = KINDS
    box_noise: float = 0.05
    outline_noise: float = 0.05
    scale: float | Literal["truth", "median"] | None = "truth"
    window_mpp: float | None = None
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
        if not self.kinds:
            raise OptionError("kinds", f"none is given: choose among {','.join(KINDS)}.")
        if unknown := [kind for kind in self.kinds if kind not in KINDS]:
            raise OptionError("kinds", f"{', '.join(unknown)} is none of {', '.join(KINDS)}.")


@dataclass(frozen=True)
class ObjectKey:
    """The object that a number is about."""

    dataset: str
    field: str
    group: str
    object_id: str
    class_name: str


@dataclass(frozen=True)
class Query:
    """One prompt on one patch pair; its answer is compared with one outline.

    Attributes:
        label: names the kind in tables: "box", "3 points", :data:`CLICKS`.
        prompt: None where clicks are to be found.
        l0_outline: the truth.
    """

    object_key: ObjectKey
    label: str
    prompt: Prompt | None
    pair: PatchPair
    l0_outline: Outline


def make_object_key(image: AnnotatedImage, truth: Truth) -> ObjectKey:
    """Where a number belongs."""
    return ObjectKey(image.dataset, image.name, image.group, truth.id, truth.class_name)


def measure_longest_um(truth: Truth, mpp: Mpp) -> float:
    """The longer side of an object's box."""
    return max(truth.l0_box.width * mpp.x, truth.l0_box.height * mpp.y)


@dataclass(frozen=True)
class PromptBuilder:
    """Asks one model about the objects of one image.

    Attributes:
        mpp: of its slide.
        sizes_um: for ``scale`` of ``median``: what is said of each class.
        given: boxes of another model, by the object's id.
    """

    settings: ProtocolSettings
    model: Model
    image: AnnotatedImage
    mpp: Mpp
    sizes_um: Mapping[str, float]
    given: Mapping[str, Box]

    def build_queries(self, truth: Truth) -> Iterator[Query]:
        """All questions about an object; none where the fixed window holds nothing of it."""
        window = self._window(truth)
        if window is not None:
            clipped = _clip(truth.l0_outline, window)
            if clipped.is_empty:
                return
            truth = replace(truth, l0_outline=clipped)
        object_key = make_object_key(self.image, truth)
        for label, prompt in self._prompts(truth):
            pair = window or self._pair(truth, prompt)
            yield Query(object_key, label, prompt, pair, truth.l0_outline)

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

    def _pair(self, truth: Truth, prompt: Prompt | None) -> PatchPair:
        size_um = self._size_um(truth)
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

    def _window(self, truth: Truth) -> PatchPair | None:
        if self.settings.window_mpp is None:
            return None
        l0_x, l0_y = truth.l0_box.center
        size_px = self.model.base_size_px
        return PatchPair(l0_x, l0_y, self.settings.window_mpp, size_px, self.mpp)

    def _rng(self, truth: Truth, what: str) -> np.random.Generator:
        named = (str(self.settings.seed), self.image.dataset, self.image.name, truth.id, what)
        digest = hashlib.sha256("\n".join(named).encode("utf-8", "surrogatepass")).digest()
        return np.random.default_rng(int.from_bytes(digest[:16], "big"))


def points_label(count: int) -> str:
    """How a number of points is called: "1 point", "3 points"."""
    return f"{count} point{'' if count == 1 else 's'}"


BOX_AND_POINTS = f"box + {points_label(POINTS_WITH_BOX)}"

LABELS = (
    GIVEN_BOX,
    "box",
    *map(points_label, POINT_COUNTS),
    BOX_AND_POINTS,
    "outline",
)
"""Of all questions that have one answer, in the order of tables."""


def _clip(l0_outline: Outline, pair: PatchPair) -> Outline:
    frame = shapely.box(*pair.hr_l0_box.corners().ravel())
    return keep_polygons(shapely.intersection(l0_outline, frame))
