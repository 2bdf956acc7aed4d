"""A slide in QuPath's level-0 frame, whatever the file: size, µm/px, and regions at any scale."""

from __future__ import annotations

import math
import os
import stat
import threading
import weakref
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TypeAlias

import numpy as np

from ..errors import PixelSizeError, SlideError
from ..geometry import Box, Mpp
from . import calibration
from .opening import open_reader
from .overview import FACTOR, SOURCE_PX_MIN, Overview, OverviewPlan
from .pool import ReaderPool
from .reader import Reader, RgbArray, Window
from .resample import Axis, is_fine_enough, resample, tiles
from .uri import path_from_location

_TILE_SOURCE_PX_MAX = 1 << 23
"""Most source pixels in memory at a time: 32 MB as RGBA, and up to 100 MB while they are
averaged."""

Check: TypeAlias = Callable[[], None]
"""Raises an error if nobody waits for the work any more, or it has taken too long."""


def _go_on() -> None:
    """Never stop the work."""


@dataclass(frozen=True)
class SlideReference:
    """The values that it takes to open a slide again, in any process.

    Attributes:
        location: absolute path.
        mpp: µm/px to use; None to take what the file states.
        as_qupath: whether a file is refused that QuPath shows as noise; see :func:`open_slide`.
    """

    location: str
    mpp: float | Mpp | None = None
    as_qupath: bool = True

    def open(self, pool: ReaderPool | None = None) -> Slide:
        """Open the slide; see :func:`open_slide`."""
        return open_slide(Path(self.location), mpp=self.mpp, as_qupath=self.as_qupath, pool=pool)


@dataclass(frozen=True)
class SlideIdentity:
    """Names the content of a slide in caches; it changes when the file is replaced."""

    location: str
    size_bytes: int
    mtime_ns: int


class Slide:
    """An open slide. Regions may be read from several threads at once.

    The file is closed by `close`, by the end of a ``with`` block, or with the last reference.
    Close it only when no other thread reads: a cache had better just forget it.

    Attributes:
        mpp: µm per level-0 pixel.
        reference: opens the slide again, in any process.
        identity: names the slide's content in caches.
    """

    def __init__(
        self, reader: Reader, *, mpp: Mpp, reference: SlideReference, identity: SlideIdentity
    ) -> None:
        """Use :func:`open_slide` instead. The slide closes the reader."""
        self._reader = reader
        self._factors = _level_factors(reader.level_sizes_px)
        self._close = weakref.finalize(self, reader.close)
        self._overview_lock = threading.Lock()
        self.mpp = mpp
        self.reference = reference
        self.identity = identity

    @property
    def width_px(self) -> int:
        """The width of level 0, inside of the bounds."""
        return self._reader.bounds.width

    @property
    def height_px(self) -> int:
        """The height of level 0, inside of the bounds."""
        return self._reader.bounds.height

    @property
    def l0_box(self) -> Box:
        """The whole slide."""
        return Box(0, 0, self.width_px, self.height_px)

    @property
    def location(self) -> str:
        """The absolute path of the slide."""
        return self.reference.location

    @property
    def uri(self) -> str:
        """The URI of the slide's file."""
        return Path(self.location).as_uri()

    @property
    def reader(self) -> str:
        """The name of the library that reads it."""
        return self._reader.name

    def read(self, l0_box: Box, width_px: int, height_px: int, check: Check = _go_on) -> RgbArray:
        """Read a region at any scale, even one that reaches beyond the slide.

        Each output pixel is the average over exactly its part of the region, or a linear
        interpolation where the region is enlarged. Outside of the slide all is white. A large
        region of a slide without a pyramid comes from a coarse copy; see :mod:`.overview`.

        Args:
            l0_box: the region, level-0 px; fractions count.
            width_px, height_px: size of the output; the scales of the axes may differ.
            check: called at least every 8 million source pixels; what it raises ends the reading.

        Returns:
            HWC uint8 RGB, C-contiguous, `height_px` x `width_px`.

        Raises:
            SlideError: the file is damaged there.
            ValueError: the region or the output has no area.
        """
        l0_sides = (l0_box.width, l0_box.height)
        if min(width_px, height_px) < 1 or not all(0 < side < math.inf for side in l0_sides):
            raise ValueError(f"no area: {l0_box} as {width_px} x {height_px} px")
        if self._wants_overview(l0_box, width_px, height_px):
            coarse = self._open_overview(check)
            if coarse is not None:
                return self._read_overview(coarse, l0_box, width_px, height_px)
        return self._read_levels(l0_box, width_px, height_px, check)

    def plan_overview(self, l0_boxes: Iterable[Box], size_px: int) -> OverviewPlan | None:
        """Plan the coarse copy that these square regions need; None if none is needed."""
        if any(self._wants_overview(l0_box, size_px, size_px) for l0_box in l0_boxes):
            return self._overview.plan
        return None

    def _read_levels(self, l0_box: Box, width_px: int, height_px: int, check: Check) -> RgbArray:
        level = self._level_for(l0_box.width / width_px, l0_box.height / height_px)
        x_axis, y_axis = self._axes(level, l0_box, width_px, height_px)
        output = np.empty((height_px, width_px, 3), dtype=np.uint8)
        for ys, xs in tiles(x_axis, y_axis, _TILE_SOURCE_PX_MAX):
            check()
            output[ys.start : ys.stop, xs.start : xs.stop] = self._read_tile(
                level, x_axis, y_axis, xs, ys
            )
        return output

    @cached_property
    def _overview(self) -> Overview:
        factor = round(max(max(factors) for factors in self._factors))
        return Overview(self.identity, self.width_px, self.height_px, FACTOR * factor)

    def _wants_overview(self, l0_box: Box, width_px: int, height_px: int) -> bool:
        """Whether a region is far coarser than every level, and so large that it takes long."""
        downsample = min(l0_box.width / width_px, l0_box.height / height_px)
        coarsest = max(max(factors) for factors in self._factors)
        inside = l0_box.intersection(self.l0_box)
        source_px = max(0.0, inside.width) * max(0.0, inside.height) / coarsest**2
        return downsample >= FACTOR * coarsest and source_px > SOURCE_PX_MIN

    def _open_overview(self, check: Check) -> RgbArray | None:
        with self._overview_lock:
            return self._overview.open(partial(self._read_levels, check=check))

    def _read_overview(
        self, coarse: RgbArray, l0_box: Box, width_px: int, height_px: int
    ) -> RgbArray:
        step = self._overview.l0_step
        x_axis = Axis(l0_box.x0 / step, l0_box.x1 / step, width_px, 0.0, self.width_px / step)
        y_axis = Axis(l0_box.y0 / step, l0_box.y1 / step, height_px, 0.0, self.height_px / step)
        output = np.full((height_px, width_px, 3), 255, dtype=np.uint8)
        for ys, xs in tiles(x_axis, y_axis, _TILE_SOURCE_PX_MAX):
            columns, rows = x_axis.span(xs), y_axis.span(ys)
            if columns and rows:
                rgb = coarse[rows.start : rows.stop, columns.start : columns.stop]
                window = Window(rgb, columns.start, rows.start)
                output[ys.start : ys.stop, xs.start : xs.stop] = resample(
                    window, x_axis, y_axis, xs, ys
                )
        return output

    def _level_for(self, x_downsample: float, y_downsample: float) -> int:
        """Choose the coarsest level that need not be enlarged; level 0 if all must be."""
        fit = [
            level
            for level, (x_factor, y_factor) in enumerate(self._factors)
            if is_fine_enough(x_factor, x_downsample) and is_fine_enough(y_factor, y_downsample)
        ]
        return max(fit, key=lambda level: self._factors[level], default=0)

    def _axes(self, level: int, l0_box: Box, width_px: int, height_px: int) -> tuple[Axis, Axis]:
        bounds = self._reader.bounds
        x_factor, y_factor = self._factors[level]
        level_width, level_height = self._reader.level_sizes_px[level]
        x_axis = Axis(
            start=(l0_box.x0 + bounds.x) / x_factor,
            stop=(l0_box.x1 + bounds.x) / x_factor,
            count=width_px,
            low=max(0.0, bounds.x / x_factor),
            high=min((bounds.x + bounds.width) / x_factor, level_width),
        )
        y_axis = Axis(
            start=(l0_box.y0 + bounds.y) / y_factor,
            stop=(l0_box.y1 + bounds.y) / y_factor,
            count=height_px,
            low=max(0.0, bounds.y / y_factor),
            high=min((bounds.y + bounds.height) / y_factor, level_height),
        )
        return x_axis, y_axis

    def _read_tile(
        self, level: int, x_axis: Axis, y_axis: Axis, xs: range, ys: range
    ) -> RgbArray | int:
        columns, rows = x_axis.span(xs), y_axis.span(ys)
        if not (columns and rows):
            return 255
        try:
            window = self._reader.read(level, columns.start, rows.start, len(columns), len(rows))
        except self._reader.foreign_errors as exc:
            raise SlideError(
                f"{self.location} cannot be read at x {columns.start}, y {rows.start} of level "
                f"{level} ({exc}). The file is damaged: copy it again from its source."
            ) from exc
        return resample(window, x_axis, y_axis, xs, ys)

    def close(self) -> None:
        """Close the file; does nothing the second time."""
        self._close()

    def __enter__(self) -> Slide:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_slide(
    location: str | os.PathLike[str],
    *,
    mpp: float | Mpp | None = None,
    mpp_if_unstated: float | None = None,
    as_qupath: bool = True,
    pool: ReaderPool | None = None,
) -> Slide:
    """Open a slide or a plain image.

    Args:
        location: path, or `file:` URI as QuPath writes it.
        mpp: µm per level-0 pixel, in place of what the file states.
        mpp_if_unstated: µm per level-0 pixel if neither `mpp` nor the file states it.
        as_qupath: whether a file is refused that QuPath shows as noise; False for images that were
            never in QuPath.
        pool: opens the file again and again as others of the pool are read; None keeps it open.

    Raises:
        SlideError: it cannot be opened, or states no µm/px and `mpp` is None.
        OptionError: a µm/px is not from 0.01 to 100.
    """
    own_mpp = None if mpp is None else calibration.override(mpp)
    spare_mpp = None if mpp_if_unstated is None else calibration.override(mpp_if_unstated)
    path = _absolute(location)
    identity = _identify(path)
    opened = open_reader if pool is None else pool.open
    reader = opened(path, as_qupath=as_qupath)
    final_mpp = own_mpp or reader.stated_mpp or spare_mpp
    if final_mpp is None:
        reader.close()
        raise PixelSizeError(
            f"{path} states no pixel size: give its µm per pixel as mpp, e.g. 0.25 for a 40x scan."
        )
    reference = SlideReference(str(path), own_mpp if reader.stated_mpp else final_mpp, as_qupath)
    return Slide(reader, mpp=final_mpp, reference=reference, identity=identity)


def _absolute(location: str | os.PathLike[str]) -> Path:
    if isinstance(location, str):
        location = path_from_location(location, windows=os.name == "nt")
    return Path(location).absolute()


def _identify(path: Path) -> SlideIdentity:
    """Check that the file is there and is a file, and identify it, before any library sees it."""
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError) as exc:
        raise SlideError(f"{path} does not exist. Check where the slide is now.") from exc
    except (OSError, ValueError) as exc:
        raise SlideError(f"{path} cannot be reached ({exc}). Check the path.") from exc
    if not stat.S_ISREG(status.st_mode):
        raise SlideError(
            f"{path} is a folder or a device. Pass a slide file; for MRXS the .mrxs file beside "
            "its folder."
        )
    if status.st_size == 0:
        raise SlideError(f"{path} is empty. Copy it again from its source.")
    return SlideIdentity(str(path), status.st_size, status.st_mtime_ns)


def _level_factors(sizes_px: tuple[tuple[int, int], ...]) -> list[tuple[float, float]]:
    """Compute level-0 px per px of each level, (x, y)."""
    (full_width, full_height), *_ = sizes_px
    return [
        (_level_factor(full_width, width), _level_factor(full_height, height))
        for width, height in sizes_px
    ]


def _level_factor(full_px: int, level_px: int) -> float:
    """Compute level-0 px per level px along one axis.

    Scanners average whole blocks and drop or pad what remains, so 4443 px and 2221 px are a
    factor of exactly 2: at the far edge of a large slide the ratio of the sizes would be off by
    up to a pixel of the level. Where no whole number explains the sizes, the ratio it is.
    """
    whole = round(full_px / level_px)
    return float(whole) if abs(full_px - whole * level_px) < whole else full_px / level_px
