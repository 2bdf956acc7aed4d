"""Resampling by exact area averaging at sub-pixel positions, an axis at a time.

Pillow's BOX filter counts a source pixel wholly or not at all, which shifts content by up to half
a pixel when the scale is near 1; hence the few lines of our own.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .reader import RgbArray, Window

_DECIMALS = 6
"""Decimals of edges, px: 2.9999999999 then touches no third pixel."""

_COARSER = 1e-3
"""How much coarser than wanted a level may be: a thousandth, as 0.2501 for 0.25 µm/px."""


def is_fine_enough(level_downsample: float, downsample: float) -> bool:
    """Whether a level need not be enlarged, both in level-0 px per pixel."""
    return level_downsample <= downsample * (1 + _COARSER)


@dataclass(frozen=True)
class Axis:
    """`count` output pixels laid over [start, stop) of a level, which has content in [low, high).

    All in px of the level. What lies outside of [low, high) is white.
    """

    start: float
    stop: float
    count: int
    low: float
    high: float

    @property
    def footprint(self) -> float:
        """The length that each output pixel averages over, px of the level.

        Its own extent; when enlarging one source pixel's width, around the output pixel's center,
        which is linear interpolation. The two are the same at scale 1.
        """
        return max(self._step, 1.0)

    @property
    def _step(self) -> float:
        return (self.stop - self.start) / self.count

    def edges(self, outputs: range) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """First and last position that each of the output pixels averages over.

        Clipped to the content: both are the same for an output pixel that is all white.
        """
        centers = self.start + (np.asarray(outputs) + 0.5) * self._step
        half = self.footprint / 2
        first, last = (
            np.clip(np.round(edges, _DECIMALS), self.low, self.high)
            for edges in (centers - half, centers + half)
        )
        return first, last

    def span(self, outputs: range) -> range:
        """The whole source pixels under these output pixels; empty where all is white."""
        first, last = self.edges(outputs)
        if not (last > first).any():
            return range(0)
        return range(math.floor(first.min()), math.ceil(last.max()))


@dataclass(frozen=True)
class Taps:
    """The source pixels that make each of N output pixels, and their weights.

    Attributes:
        indices: indices into the window, N x T.
        weights: N x T float32; the sum is below 1 where a part is white.
    """

    indices: NDArray[np.intp]
    weights: NDArray[np.float32]


def taps(axis: Axis, outputs: range, window_start: float, window_px: int) -> Taps:
    """Compute the taps of output pixels on a window that begins at `window_start`, px of the level.

    The weights do not depend on the window, so tiles give what one shot gives.
    """
    first, last = axis.edges(outputs)
    whole = math.floor(window_start)
    fraction = window_start - whole
    begin = np.floor(first - fraction)
    reach = max(1, int((np.ceil(last - fraction) - begin).max()))
    pixels = begin[:, None] + np.arange(reach)
    lefts = pixels + fraction
    covered = np.minimum(last[:, None], lefts + 1) - np.maximum(first[:, None], lefts)
    weights = np.maximum(covered, 0) / axis.footprint
    indices = np.clip(pixels - whole, 0, window_px - 1)
    return Taps(indices.astype(np.intp), weights.astype(np.float32))


def resample(window: Window, x_axis: Axis, y_axis: Axis, xs: range, ys: range) -> RgbArray:
    """Resample output pixels `ys` x `xs`, HWC uint8 RGB, from a window that covers their spans."""
    height, width = window.rgb.shape[:2]
    # Darkness instead of brightness: white is then zero, and needs no pixels around the slide.
    darkness = _average(~window.rgb, taps(y_axis, ys, window.y, height))
    darkness = np.ascontiguousarray(darkness.transpose(1, 0, 2))
    darkness = _average(darkness, taps(x_axis, xs, window.x, width)).transpose(1, 0, 2)
    rgb: RgbArray = (255.0 - np.rint(darkness)).astype(np.uint8)
    return rgb


def _average(source: NDArray[np.uint8] | NDArray[np.float32], along: Taps) -> NDArray[np.float32]:
    """Compute weighted sums along the first axis: N x ... float32."""
    total = np.zeros((len(along.indices), *source.shape[1:]), dtype=np.float32)
    for indices, weights in zip(along.indices.T, along.weights.T, strict=True):
        total += weights[:, None, None] * source[indices]
    return total


def tiles(x_axis: Axis, y_axis: Axis, max_px: int) -> Iterator[tuple[range, range]]:
    """Split the output into (ys, xs) tiles which each need about `max_px` source pixels or fewer.

    The tiles are square where the output allows it: each source tile on their rim is decoded
    twice. The smallest tile is one output pixel.
    """
    columns = _clamp_to_one(math.sqrt(max_px) / x_axis.footprint, x_axis.count)
    rows = _clamp_to_one(max_px / (columns * x_axis.footprint) / y_axis.footprint, y_axis.count)
    for y in range(0, y_axis.count, rows):
        for x in range(0, x_axis.count, columns):
            yield (
                range(y, min(y + rows, y_axis.count)),
                range(x, min(x + columns, x_axis.count)),
            )


def _clamp_to_one(wanted: float, most: int) -> int:
    return max(1, min(int(wanted), most))
