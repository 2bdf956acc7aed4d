"""Regions that a client sent, as a pixel source, and the regions that are still missing."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass

import numpy as np

from ..geometry import Box, Mpp, PatchPair
from ..slide import RgbArray, Window
from ..slide.resample import Axis, is_fine_enough, resample
from .schemas import NeededRegion

_CUT_TOLERANCE = 1e-2

_HALVED = tuple(2.0**level for level in range(32))

_REGION_PX_MAX, _FINER_MIN = 2048, 2.0
"""About the largest side of an image that is asked for, px, and how much finer than a patch it is
at least."""

_SLACK_SHARE, _SLACK_PX = 0.95, 2
"""How much less than asked for an image may have: clients round scales and sizes."""


@dataclass(frozen=True)
class SentImage:
    """Pixels of a region of the slide.

    Attributes:
        l0_box: area that it covers, level-0 px.
        rgb: HWC uint8 RGB, of any size.
        sha256: SHA-256 of the file that was sent.
    """

    l0_box: Box
    rgb: RgbArray
    sha256: str

    @property
    def l0_per_px(self) -> tuple[float, float]:
        """Level-0 px per pixel, (x, y)."""
        height, width = self.rgb.shape[:2]
        return self.l0_box.width / width, self.l0_box.height / height


class SentPixels:
    """A slide with only the sent regions known; see :class:`.PixelSource`.

    Args:
        width_px, height_px: size of level 0.
        images: images that the client has sent.
        downsamples: level-0 px per pixel of each of the slide's levels; 1, 2, 4 and so on if none
            is known.
    """

    def __init__(
        self,
        width_px: int,
        height_px: int,
        mpp: Mpp,
        images: tuple[SentImage, ...] = (),
        downsamples: tuple[float, ...] = (),
    ) -> None:
        self.mpp = mpp
        self._downsamples = downsamples or _HALVED
        self.l0_box = Box(0, 0, width_px, height_px)
        self._images = images
        self.identity: Hashable = (
            width_px,
            height_px,
            tuple((image.l0_box, image.sha256) for image in images),
        )

    def read(
        self,
        l0_box: Box,
        width_px: int,
        height_px: int,
        check: Callable[[], None] | None = None,  # noqa: ARG002 - what was sent takes no time
    ) -> RgbArray:
        """Read a region at any scale, white outside of the slide; see :meth:`.Slide.read`.

        Raises:
            LookupError: no image holds it as finely as that; see :meth:`lacks`.
        """
        if _is_empty(l0_box.intersection(self.l0_box)):
            return np.full((height_px, width_px, 3), 255, dtype=np.uint8)
        image = self._image_for(l0_box, width_px, height_px)
        if image is None:
            raise LookupError(f"no pixels of {l0_box}")
        rgb_height, rgb_width = image.rgb.shape[:2]
        x_scale, y_scale = image.l0_per_px
        left, top = image.l0_box.x0, image.l0_box.y0
        x_axis = Axis(
            (l0_box.x0 - left) / x_scale, (l0_box.x1 - left) / x_scale, width_px, 0, rgb_width
        )
        y_axis = Axis(
            (l0_box.y0 - top) / y_scale, (l0_box.y1 - top) / y_scale, height_px, 0, rgb_height
        )
        return resample(Window(image.rgb, 0, 0), x_axis, y_axis, range(width_px), range(height_px))

    def lacks(self, patch_counts: Mapping[PatchPair, int]) -> list[NeededRegion]:
        """List the regions that the client still has to send.

        Args:
            patch_counts: how many patches of each pair are wanted, the HR patch first.
        """
        lacking: dict[NeededRegion, None] = {}
        for pair, count in patch_counts.items():
            for l0_box in pair.l0_boxes[:count]:
                if self._image_for(l0_box, pair.size_px, pair.size_px) is None:
                    needed = _find_needed(l0_box, self.l0_box, pair.size_px, self._downsamples)
                    if needed is not None:
                        lacking[needed] = None
        return list(lacking)

    def _image_for(self, l0_box: Box, width_px: int, height_px: int) -> SentImage | None:
        """Find the coarsest image that is fine enough and covers a patch's part of the slide."""
        inside = l0_box.intersection(self.l0_box)
        fit = [
            image
            for image in self._images
            if _holds(image.l0_box, inside) and _is_fine(image, l0_box, width_px, height_px)
        ]
        return max(fit, key=lambda image: image.l0_per_px, default=None)


def _find_needed(
    l0_box: Box, slide_box: Box, size_px: int, downsamples: tuple[float, ...]
) -> NeededRegion | None:
    """Clip a patch to the slide; None if it is outside.

    In whole pixels of a level: then these are the pixels that would be read here, and not some
    that were made of them.
    """
    finer_max = max(_FINER_MIN, _REGION_PX_MAX / size_px)
    x_step, y_step = (
        _step(side / size_px, downsamples, finer_max) for side in (l0_box.width, l0_box.height)
    )
    on_level = Box(
        (math.floor(l0_box.x0 / x_step) - 1) * x_step,
        (math.floor(l0_box.y0 / y_step) - 1) * y_step,
        (math.ceil(l0_box.x1 / x_step) + 1) * x_step,
        (math.ceil(l0_box.y1 / y_step) + 1) * y_step,
    )
    inside = on_level.intersection(slide_box)
    if _is_empty(inside):
        return None
    x, y = math.floor(inside.x0), math.floor(inside.y0)
    width, height = math.ceil(inside.x1) - x, math.ceil(inside.y1) - y
    return NeededRegion(
        x=x,
        y=y,
        width=width,
        height=height,
        width_px=math.ceil(width / x_step),
        height_px=math.ceil(height / y_step),
    )


def _step(downsample: float, downsamples: tuple[float, ...], finer_max: float) -> float:
    """Give level-0 px per pixel of the coarsest level that is fine enough.

    Where that is far too fine, as on a large slide without levels, coarser pixels are to be made of
    it, or one patch would take many megabytes.
    """
    fine = (level for level in downsamples if is_fine_enough(level, downsample))
    step = max(fine, default=1.0)
    # Levels are cut to whole pixels, so that files state 4.0003 for a 4.
    step = round(step) if math.isclose(step, round(step), rel_tol=_CUT_TOLERANCE) else step
    while step * finer_max < downsample:
        step *= 2
    return step


def _is_empty(l0_box: Box) -> bool:
    return min(l0_box.width, l0_box.height) <= 0


def _holds(outer: Box, inner: Box) -> bool:
    return outer.contains(inner.x0, inner.y0) and outer.contains(inner.x1, inner.y1)


def _is_fine(image: SentImage, l0_box: Box, width_px: int, height_px: int) -> bool:
    """Whether an image has about the patch's resolution, or the slide's full one."""
    rgb_height, rgb_width = image.rgb.shape[:2]
    wanted_x = min(1.0, width_px / l0_box.width) * image.l0_box.width
    wanted_y = min(1.0, height_px / l0_box.height) * image.l0_box.height
    return bool(
        rgb_width + _SLACK_PX >= _SLACK_SHARE * wanted_x
        and rgb_height + _SLACK_PX >= _SLACK_SHARE * wanted_y
    )
