"""Slides of the scanners' own formats, and pyramidal TIFF, through OpenSlide."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np

from ..errors import SlideError
from ..geometry import Mpp
from . import calibration
from .reader import Bounds, Window

_DECIMALS = 6

_LACKING = re.compile(
    r"unsupported|not supported|unimplemented|unrecognized| value .* != ", re.IGNORECASE
)
"""Messages of OpenSlide about sound files that it cannot read."""


def detect_format(path: Path) -> str | None:
    """Ask OpenSlide for the name of a file's format; None if it does not know the file."""
    import openslide  # loads a shared library

    vendor: str | None = openslide.OpenSlide.detect_format(path)
    return vendor


class OpenSlideReader:
    """Reads through OpenSlide, which is safe to use from several threads."""

    def __init__(self, path: Path, sizes_px: Collection[tuple[int, int]] | None = None) -> None:
        """Open the file.

        Args:
            sizes_px: sizes of the levels to use, as others show something else; None for all
                levels.

        Raises:
            SlideError: OpenSlide cannot open it.
        """
        import openslide  # loads a shared library

        self.name = "openslide"
        self.foreign_errors: tuple[type[Exception], ...] = (openslide.OpenSlideError, OSError)
        try:
            self._slide = openslide.OpenSlide(path)
        except openslide.OpenSlideError as exc:
            raise SlideError(f"OpenSlide cannot open {path}: {exc}. {_fix_for(str(exc))}") from exc
        self._levels = [
            level
            for level, size in enumerate(self._slide.level_dimensions)
            if sizes_px is None or level == 0 or size in sizes_px
        ]
        self.level_sizes_px: tuple[tuple[int, int], ...] = tuple(
            self._slide.level_dimensions[level] for level in self._levels
        )
        self._downsamples = [self._slide.level_downsamples[level] for level in self._levels]
        properties = self._slide.properties
        # As in QuPath: what was never scanned is black where the file states no color for it.
        self._background = f"#{properties.get('openslide.background-color', '000000')}"
        self.bounds = _bounds(properties, self.level_sizes_px[0])
        self.stated_mpp = _read_stated_mpp(properties)

    def read(self, level: int, x: int, y: int, width: int, height: int) -> Window:
        """See :class:`Reader`.

        OpenSlide takes a whole level-0 pixel, divides it by the level's downsample, the same for
        both axes, and interpolates where that gives a fraction of the level's pixels.
        """
        from PIL import Image  # not needed for `--help`

        l0_x, start_x = self._find_nearest(level, x, self.bounds.x)
        l0_y, start_y = self._find_nearest(level, y, self.bounds.y)
        size = (math.ceil(x + width - start_x), math.ceil(y + height - start_y))
        pixels = self._slide.read_region((l0_x, l0_y), self._levels[level], size)
        shown = Image.new("RGB", pixels.size, self._background)
        shown.paste(pixels, mask=pixels)
        return Window(np.array(shown, dtype=np.uint8), start_x, start_y)

    def _find_nearest(self, level: int, position: int, l0_bound: int) -> tuple[int, float]:
        """Find where to read so that a window begins at or just before a position.

        Counted in whole pixels of the level from the bounds, as that is where the scanner's own
        pixels begin: elsewhere OpenSlide interpolates between them or, for Leica, truncates.

        Returns:
            The level-0 location along this axis, and where that is on the level.
        """
        downsample = self._downsamples[level]
        steps = max(0, math.floor(round(position - l0_bound / downsample, _DECIMALS)))
        l0_location = l0_bound + math.floor(round(steps * downsample, _DECIMALS))
        return l0_location, round(l0_location / downsample, _DECIMALS)

    def close(self) -> None:
        """See :class:`Reader`."""
        self._slide.close()


def _fix_for(message: str) -> str:
    """Choose the advice: a sound file of a kind that OpenSlide lacks needs to be converted."""
    if _LACKING.search(message):
        return "The file may be sound: export it as OME-TIFF with a program that shows it."
    return "Copy it again from its source, with all files that belong to it."


def _bounds(properties: Mapping[str, str], size_px: tuple[int, int]) -> Bounds:
    names = ("x", "y", "width", "height")
    try:
        x, y, width, height = (int(properties[f"openslide.bounds-{name}"]) for name in names)
    except (KeyError, ValueError):
        return Bounds(0, 0, *size_px)
    return Bounds(x, y, width, height)


def _read_stated_mpp(properties: Mapping[str, str]) -> Mpp | None:
    header = calibration.parse_mpp(
        properties.get("openslide.mpp-x"), properties.get("openslide.mpp-y")
    )
    return header or calibration.from_resolution(
        properties.get("tiff.XResolution"),
        properties.get("tiff.YResolution"),
        properties.get("tiff.ResolutionUnit", "inch"),
    )
