"""Sources of pixels: an open slide, or anything else that answers like one."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Protocol

from ..geometry import Box, Mpp
from .reader import RgbArray


class PixelSource(Protocol):
    """What outlining needs of a slide. Regions may be read from several threads at once."""

    @property
    def mpp(self) -> Mpp:
        """Pixel size, µm per level-0 pixel."""

    @property
    def l0_box(self) -> Box:
        """The whole slide."""

    @property
    def identity(self) -> Hashable:
        """The name of its content in caches."""

    def read(
        self, l0_box: Box, width_px: int, height_px: int, check: Callable[[], None] = ...
    ) -> RgbArray:
        """Read a region at any scale, white outside of the slide; see :meth:`.Slide.read`."""
