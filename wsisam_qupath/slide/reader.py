"""The hook behind which each kind of file is read: its levels, and windows of their pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..geometry import Mpp

RgbArray: TypeAlias = NDArray[np.uint8]
"""HWC uint8 RGB."""


@dataclass(frozen=True)
class Window:
    """Pixels of one level.

    Attributes:
        rgb: HWC uint8 RGB; white where the file holds nothing.
        x, y: outer corner of the first pixel, px of the level. A fraction if the library can only
            read at whole level-0 pixels and interpolates.
    """

    rgb: RgbArray
    x: float
    y: float


@dataclass(frozen=True)
class Bounds:
    """The part of level 0 that holds the slide, px of the *file's* level 0.

    QuPath crops to it, so (x, y) is (0, 0) of the ``l0_`` frame.
    """

    x: int
    y: int
    width: int
    height: int


class Reader(Protocol):
    """One open file.

    Attributes:
        name: name of the library that reads it, for provenance.
        level_sizes_px: (width, height) of each level, the finest first. All levels show the
            whole file, also outside of the bounds.
        bounds: part of the file that holds the slide.
        stated_mpp: µm/px of level 0 as the file states it; None if it does not, or not believably.
        foreign_errors: errors that `read` raises if the file is damaged.
    """

    name: str
    level_sizes_px: tuple[tuple[int, int], ...]
    bounds: Bounds
    stated_mpp: Mpp | None
    foreign_errors: tuple[type[Exception], ...]

    def read(self, level: int, x: int, y: int, width: int, height: int) -> Window:
        """At least [x, x + width) x [y, y + height), px of that level, which lie inside of it.

        May be called from several threads at once.
        """
        ...

    def close(self) -> None:
        """Let go of the file."""
        ...


def to_rgb8(pixels: NDArray[Any]) -> RgbArray:
    """HWC uint8 or uint16, gray, RGB or RGBA, to HWC uint8 RGB; alpha is laid on white."""
    if pixels.dtype == np.uint16:
        pixels = ((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8)
    if pixels.shape[2] == 1:
        return np.repeat(pixels, 3, axis=2)
    if pixels.shape[2] == 3:
        return pixels
    alpha = pixels[..., 3:].astype(np.uint16)
    darkness = ((255 - pixels[..., :3]) * alpha + 127) // 255
    on_white: RgbArray = (255 - darkness).astype(np.uint8)
    return on_white
