"""Label masks of whole slides: TIFF at any scale, read coarser where they are large."""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from wsisam_qupath.errors import PromptError

IsInside: TypeAlias = Callable[[NDArray[Any]], NDArray[np.bool_]]
"""Which numbers of a mask are meant, element by element."""

_FOREIGN = (OSError, ValueError, KeyError, IndexError, TypeError, struct.error, zlib.error)
"""Errors of tifffile and its codecs on damaged files."""


@dataclass(frozen=True)
class MaskSlide:
    """A mask at a scale at which it fits into memory.

    Attributes:
        inside: H x W, whether a pixel lies in an object.
        full_size_px: (width, height) of the mask's finest level.
        level_size_px: (width, height) of the level that it was read from.
        step: number of pixels of that level per pixel of ``inside``, along each axis.
    """

    inside: NDArray[np.bool_]
    full_size_px: tuple[int, int]
    level_size_px: tuple[int, int]
    step: int

    def to_l0(self, scales: tuple[float, float]) -> list[float]:
        """The affine map from px of ``inside`` to level-0 px, as shapely takes it.

        Args:
            scales: level-0 px per px of the level that it was read from, along x and y.
        """
        return map_to_l0(self.step, scales)


def map_to_l0(step: int, scales: tuple[float, float] = (1.0, 1.0)) -> list[float]:
    """Make the affine map to level-0 px from a mask of which each ``step``-th pixel was taken.

    Args:
        scales: level-0 px per px of the whole mask, along x and y.
    """
    # The middle one of an even number of pixels lies half a pixel behind their center.
    behind = (step + 1) % 2 / 2
    x, y = scales
    return [step * x, 0.0, 0.0, step * y, behind * x, behind * y]


def read_mask_slide(path: Path, is_inside: IsInside, *, largest_px: int) -> MaskSlide:
    """Read every so many pixels of a level, tile by tile.

    Args:
        largest_px: the finest level that has no more pixels than this is read, or the coarsest
            one thinned out to as many.

    Raises:
        PromptError: it cannot be read.
    """
    import tifffile  # for these formats alone

    try:
        with tifffile.TiffFile(path) as tiff:
            pages = [level.keyframe for level in tiff.series[0].levels]
            page = _finest(pages, largest_px)
            step = math.ceil(math.sqrt(math.prod(_size_px(page)) / largest_px))
            inside = _subsample(page, step, is_inside)
            return MaskSlide(inside, _size_px(pages[0]), _size_px(page), step)
    except (tifffile.TiffFileError, *_FOREIGN) as exc:
        raise PromptError(f"It cannot be read ({exc}): copy it again from its source.") from exc


def _size_px(page: Any) -> tuple[int, int]:
    return int(page.imagewidth), int(page.imagelength)


def _finest(pages: list[Any], largest_px: int) -> Any:
    """Choose the finest level that need not be thinned out, else the coarsest."""
    fitting = [page for page in pages if math.prod(_size_px(page)) <= largest_px]
    return fitting[0] if fitting else pages[-1]


def _subsample(page: Any, step: int, is_inside: IsInside) -> NDArray[np.bool_]:
    """Take the middle pixel of each ``step`` x ``step`` block."""
    first = step // 2
    size = [-(-(side - first) // step) for side in (page.imagelength, page.imagewidth)]
    inside = np.zeros(size, dtype=np.bool_)
    for tile, (_, _, top, left, *_), _ in page.segments():
        if tile is None:  # not written: all zero
            continue
        y, x = -(-(top - first) // step), -(-(left - first) // step)
        y, x = max(y, 0), max(x, 0)
        marks = tile[0, first + y * step - top :: step, first + x * step - left :: step]
        part = inside[y : y + marks.shape[0], x : x + marks.shape[1]]
        part |= is_inside(marks[: part.shape[0], : part.shape[1]]).any(axis=-1)
    return inside
