"""Tiles of a slide for a browser, as DeepZoom counts them, through the slide's own reader."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cachetools import LRUCache

from ...geometry import Box
from ...slide import Slide
from ...slide.slide import Check, SlideIdentity

if TYPE_CHECKING:
    from ...slide.reader import RgbArray

TILE_PX = 256
"""Side of a tile, px; those at the right and lower edge are smaller."""

_CACHE_BYTES = 64 << 20
"""Bytes of encoded tiles that are kept, about 3,000 of tissue."""

_READ_AT_ONCE = 2
"""Most tiles that are read at once: a coarse one of a slide without a pyramid takes up to 100
MB."""

_JPEG_QUALITY = 85

_WINDOW_STEPS = (2, 3)
"""Levels beyond the single tile that fill a window: 512 to 1024 px, or twice as many, as the window
is large."""

_Key = tuple[SlideIdentity, "TileName"]


@dataclass(frozen=True)
class TileName:
    """The position of one tile of a slide.

    Attributes:
        level: DeepZoom level: level 0 is one pixel, each next one has twice as many per axis.
        column, row: position from the upper left, in tiles of the level.
    """

    level: int
    column: int
    row: int


@dataclass(frozen=True)
class TilePlace:
    """The part of a slide that a tile shows, and the tile's size.

    Attributes:
        l0_box: area in level-0 px; the last pixel of a row or column may reach beyond the slide.
        width_px, height_px: size of the tile.
    """

    l0_box: Box
    width_px: int
    height_px: int


@dataclass(frozen=True)
class TilePyramid:
    """The DeepZoom levels of a slide.

    Attributes:
        width_px, height_px: size of the slide, level-0 px.
    """

    width_px: int
    height_px: int

    @property
    def top_level(self) -> int:
        """The level that has the pixels of the slide's level 0."""
        return (max(self.width_px, self.height_px) - 1).bit_length()

    @property
    def first_level(self) -> int:
        """The finest level that is a single tile; a page needs no coarser one."""
        return min(self.top_level, TILE_PX.bit_length() - 1)

    def size_px(self, level: int) -> tuple[int, int]:
        """Compute (width, height) of a level."""
        l0_step = 1 << (self.top_level - level)
        return -(-self.width_px // l0_step), -(-self.height_px // l0_step)

    def place(self, tile: TileName) -> TilePlace | None:
        """Compute where a tile lies; None if the slide has no such tile."""
        if not 0 <= tile.level <= self.top_level:
            return None
        width, height = self.size_px(tile.level)
        x, y = tile.column * TILE_PX, tile.row * TILE_PX
        if not (0 <= x < width and 0 <= y < height):
            return None
        right, bottom = min(x + TILE_PX, width), min(y + TILE_PX, height)
        l0_step = 1 << (self.top_level - tile.level)
        l0_box = Box(x * l0_step, y * l0_step, right * l0_step, bottom * l0_step)
        return TilePlace(l0_box, right - x, bottom - y)

    def list_first(self) -> Iterator[TileName]:
        """List the tiles of the levels that fill a window with the whole slide."""
        levels = {min(self.first_level + step, self.top_level) for step in _WINDOW_STEPS}
        for level in sorted(levels):
            width, height = self.size_px(level)
            for row in range(-(-height // TILE_PX)):
                for column in range(-(-width // TILE_PX)):
                    yield TileName(level, column, row)


class Tiles:
    """Reads and encodes tiles, and keeps some of them. Safe to call from many threads."""

    def __init__(self) -> None:
        self._kept: LRUCache[_Key, bytes] = LRUCache(_CACHE_BYTES, getsizeof=len)
        self._lock = threading.Lock()
        self._reading = threading.BoundedSemaphore(_READ_AT_ONCE)
        self._asked_at = 0.0

    @property
    def idle_seconds(self) -> float:
        """Time since a tile was asked for."""
        return time.monotonic() - self._asked_at

    def encode(self, slide: Slide, tile: TileName, check: Check) -> bytes | None:
        """Encode a tile as JPEG; None if the slide has no such tile.

        Args:
            check: called while pixels are read; what it raises ends the reading.

        Raises:
            SlideError: the file is damaged there.
        """
        self._asked_at = time.monotonic()
        key = (slide.identity, tile)
        kept = self._find(key)
        if kept is not None:
            return kept
        place = TilePyramid(slide.width_px, slide.height_px).place(tile)
        if place is None:
            return None
        with self._reading:
            check()
            kept = self._find(key)  # another thread may have read it meanwhile
            if kept is not None:
                return kept
            rgb = slide.read(place.l0_box, place.width_px, place.height_px, check)
            content = encode_jpeg(rgb)
            with self._lock:
                self._kept[key] = content
        return content

    def _find(self, key: _Key) -> bytes | None:
        with self._lock:
            kept: bytes | None = self._kept.get(key)
        return kept


def encode_jpeg(rgb: RgbArray) -> bytes:
    """Encode pixels as JPEG.

    Args:
        rgb: HWC uint8 RGB.
    """
    from PIL import Image  # not needed for `--help`

    content = io.BytesIO()
    # With full colors: half of them would smear small nuclei, and show the edges of tiles.
    Image.fromarray(rgb).save(content, "JPEG", quality=_JPEG_QUALITY, subsampling=0)
    return content.getvalue()
