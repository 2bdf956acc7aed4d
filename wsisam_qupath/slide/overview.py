"""A coarse copy of a slide that has no pyramid: made once, kept in the cache, for large regions.

Without one, a region of 60,000 x 60,000 px takes minutes however small it is shown, since every
tile has to be decoded. The copy is written stripe by stripe: whoever was stopped goes on there.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import NamedTuple

import numpy as np

from ..errors import OutputError
from ..files import cache_folder, hold_alone
from ..geometry import Box
from .reader import RgbArray
from .tiled_copy import make_room

FACTOR = 16
"""Pixels of the coarsest level along each axis that become one pixel of the copy."""

SOURCE_PX_MIN = 1 << 27
"""Source pixels from which a region is read from the copy; fewer are read directly, in a few
seconds."""

_STRIPE_ROWS = 16

_SECONDS_PER_PX = 24e-9
"""Estimated time to decode and average a pixel on one core; machines differ by several times."""

ReadRegion = Callable[[Box, int, int], RgbArray]


class OverviewPlan(NamedTuple):
    """What making the copy takes."""

    size_bytes: int
    seconds: float


class _Run(NamedTuple):
    """Some pixels of the copy along one axis, and the level-0 px that they cover."""

    l0_start: float
    l0_stop: float
    pixels: int


class Overview:
    """The copy of one slide.

    Args:
        identity: names the content of the slide.
        width_px, height_px: size of the slide, level-0 px.
        l0_step: level-0 px per pixel of the copy, a whole number.
    """

    def __init__(self, identity: object, width_px: int, height_px: int, l0_step: int) -> None:
        self.l0_step = l0_step
        self._columns = list(_divide(width_px, l0_step, width_px))
        self._stripes = list(_divide(height_px, l0_step, _STRIPE_ROWS))
        self._width_px = sum(run.pixels for run in self._columns)
        height = sum(run.pixels for run in self._stripes)
        self._shape = (height, self._width_px, 3)
        self._source_px = width_px * height_px * (FACTOR / l0_step) ** 2
        key = hashlib.sha256(f"{identity} {l0_step}".encode("utf-8", "replace")).hexdigest()[:32]
        self._path = cache_folder() / "overviews" / f"{key}.rgb"

    @property
    def plan(self) -> OverviewPlan | None:
        """Plan what is still to be done; None if the copy is complete."""
        if self._path.exists():
            return None
        return OverviewPlan(int(np.prod(self._shape)), self._source_px * _SECONDS_PER_PX)

    def open(self, read: ReadRegion) -> RgbArray | None:
        """Open the copy, and make what is missing of it.

        Args:
            read: reads a region of the slide at any scale; what it raises ends the making.

        Returns:
            HWC uint8 RGB; None where the cache cannot be written, or another process makes it.
        """
        if not self._path.exists():
            try:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                make_room(self._path.parent, "*.rgb")
                with hold_alone(self._path.with_suffix(".lock"), "another process makes it"):
                    self._make(read)
            except (OSError, OutputError):
                return None
        with suppress(OSError):
            os.utime(self._path)
        found: RgbArray = np.memmap(self._path, np.uint8, "r", shape=self._shape)
        return found

    def _make(self, read: ReadRegion) -> None:
        unfinished = self._path.with_suffix(".part")
        with unfinished.open("ab") as file:
            there, written = file.tell(), 0
            for rows in self._stripes:
                if written + 3 * self._width_px * rows.pixels <= there:
                    written += 3 * self._width_px * rows.pixels
                    continue
                file.truncate(written)  # a kill may have cut a stripe off
                parts = [
                    read(
                        Box(columns.l0_start, rows.l0_start, columns.l0_stop, rows.l0_stop),
                        columns.pixels,
                        rows.pixels,
                    )
                    for columns in self._columns
                ]
                written += file.write(np.concatenate(parts, axis=1).tobytes())
                file.flush()
        unfinished.replace(self._path)


def _divide(l0_length: int, l0_step: int, most: int) -> Iterator[_Run]:
    """Divide an axis into runs of whole pixels, and one pixel of what remains at the end."""
    whole = l0_length // l0_step
    for start in range(0, whole, most):
        stop = min(start + most, whole)
        yield _Run(start * l0_step, stop * l0_step, stop - start)
    if l0_length % l0_step:
        yield _Run(whole * l0_step, l0_length, 1)
