"""Draw patches at one scale wherever they meet an annotation, as WSI-SAM was trained on."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
import shapely

from wsisam_qupath.geometry import FloatArray, PatchPair
from wsisam_qupath.prompts.encoding import MASK_PX
from wsisam_qupath.slide import Slide

from ..dataset import AnnotatedImage
from .samples import TURNS, Rng, Sample, SamplingSettings, coarsen, draw_stain, move_inwards

_MOST_TRIES = 500
"""Number of places that are tried before one in an object is taken."""


def draw_random_patches(
    images: Sequence[AnnotatedImage],
    slides: Sequence[Slide],
    count: int,
    *,
    size_px: int,
    hr_mpp: float,
    settings: SamplingSettings,
    seed: int,
) -> Iterator[Sample]:
    """Draw patches of each image in turn, uniformly over places that show enough of an object.

    The first of many views are those of fewer.

    Args:
        count: number of samples; the last chain may stay unfinished.
        images, slides: images of one part of the split with their slides, in the same order; images
            without objects are never read.
        size_px, hr_mpp: side of the base's input, px, and the scale of every HR patch, µm/px.
    """
    annotated = [index for index, image in enumerate(images) if image.truths]
    places: dict[int, _Places] = {}
    for number in range(math.ceil(count / settings.chain)):
        rng = np.random.default_rng((seed, number))
        index = annotated[number % len(annotated)]
        if index not in places:
            places[index] = _Places(images[index], slides[index], size_px * hr_mpp, settings)
        l0_x, l0_y = places[index].draw_center(rng)
        finest = Sample(
            index,
            PatchPair(l0_x, l0_y, hr_mpp, size_px, slides[index].mpp),
            0,
            int(rng.integers(TURNS)),
            draw_stain(settings, rng),
            "",
            int(rng.integers(2**31)),
        )
        for level in range(min(settings.chain, count - number * settings.chain)):
            yield coarsen(finest, level)


class _Places:
    """Finds places where patches of one size meet the annotations of one image."""

    def __init__(
        self, image: AnnotatedImage, slide: Slide, patch_um: float, settings: SamplingSettings
    ) -> None:
        mpp = np.array([slide.mpp.x, slide.mpp.y])
        self._outlines = [truth.l0_outline for truth in image.truths]
        self._tree = shapely.STRtree(self._outlines)
        self._l0_half = patch_um / mpp / 2
        self._l0_sides = np.array([slide.width_px, slide.height_px], dtype=np.float64)
        l0_per_mask_px = (2 * self._l0_half / MASK_PX).prod()
        self._least_l0_area = settings.least_mask_px * l0_per_mask_px
        x0, y0, x1, y1 = shapely.total_bounds(np.array(self._outlines, dtype=object))
        self._l0_low = np.array([x0, y0]) - self._l0_half
        self._l0_high = np.array([x1, y1]) + self._l0_half
        self._patch_um, self._mpp = patch_um, mpp

    def draw_center(self, rng: Rng) -> tuple[float, float]:
        """Draw a place, level-0 px; one in an object if chance finds none."""
        for _ in range(_MOST_TRIES):
            center = self._move_inwards(rng.uniform(self._l0_low, self._l0_high))
            if self._meets_object(center):
                return center
        inside = self._outlines[int(rng.integers(len(self._outlines)))].representative_point()
        return self._move_inwards(np.array([inside.x, inside.y]))

    def _move_inwards(self, l0_center: FloatArray) -> tuple[float, float]:
        sides_um = self._l0_sides * self._mpp
        x, y = move_inwards(l0_center * self._mpp, sides_um, self._patch_um) / self._mpp
        return float(x), float(y)

    def _meets_object(self, l0_center: tuple[float, float]) -> bool:
        low, high = np.array(l0_center) - self._l0_half, np.array(l0_center) + self._l0_half
        patch = shapely.box(*low, *high)
        near = (self._outlines[i] for i in self._tree.query(patch))
        return any(outline.intersection(patch).area >= self._least_l0_area for outline in near)
