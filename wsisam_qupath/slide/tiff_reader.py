"""Reads TIFF tiles and strips through tifffile and imagecodecs, with bounded memory.

That is what OpenSlide does not read in full: OME-TIFF (it sees neither its pyramid nor its µm/px),
strips, and compressions such as JPEG 2000, JPEG XL or WebP.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from typing import Any

import cachetools
import numpy as np
from numpy.typing import NDArray

from . import budget
from .codestream import read_stated_size
from .reader import Bounds, Window, to_rgb8
from .tiff_layout import TiffLayout, TiffPage, damage, damaged, open_file
from .tiff_rules import Reading

_NONE = 1

_UNASSOCIATED = 2
"""TIFF's number for transparency that the colors are not multiplied by."""

_CODEC_FACTOR = 3
"""Memory of a decoder, in sizes of what it returns: the image, its planes, and the result."""

_CACHED: cachetools.LRUCache[tuple[int, ...], NDArray[Any]] = cachetools.LRUCache(
    budget.CACHE_BYTES, getsizeof=lambda segment: max(1, segment.nbytes)
)
_CACHE_LOCK = threading.Lock()
_READER_NUMBERS = count()


@dataclass(frozen=True)
class _Part:
    """A rectangle of samples that is decoded at once, px of its page.

    Attributes:
        index: index of the tile or strip.
        plane: plane of the samples, if they are stored apart.
        skipped_rows: rows of the strip above it, if only some of its rows are read.
    """

    index: int
    plane: int
    left: int
    top: int
    width: int
    height: int
    skipped_rows: int = 0


class TiffReader:
    """Reads the levels of one image; the file handle is shared, so reading it is locked."""

    def __init__(self, layout: TiffLayout, reading: Reading) -> None:
        """Open the file again.

        Raises:
            SlideError: it changed since its layout was read.
        """
        self.name = "tifffile"
        self.foreign_errors = damage()
        self._layout, self._reading = layout, reading
        self._tiff = open_file(layout.path)
        self._number = next(_READER_NUMBERS)
        self._lock = threading.Lock()
        try:
            self._sources = [_source(self._tiff, page.place) for page in reading.levels]
        except damage() as exc:
            self._tiff.close()
            raise damaged(layout.path) from exc
        self.level_sizes_px = tuple(page.size_px for page in reading.levels)
        self.bounds = Bounds(0, 0, *self.level_sizes_px[0])
        self.stated_mpp = layout.mpp

    def read(self, level: int, x: int, y: int, width: int, height: int) -> Window:
        """See :class:`Reader`."""
        page = self._reading.levels[level]
        dtype = np.dtype(np.uint16 if page.bits == 16 else np.uint8)
        # Tiles may be missing, which QuPath shows black.
        blank = np.iinfo(dtype).max if self._reading.is_white_zero else 0
        pixels = np.full((height, width, page.samples), blank, dtype=dtype)
        for part in _parts(page, x, y, width, height):
            self._paste(level, page, part, pixels, x, y)
        return Window(self._rgb(page, pixels), x, y)

    def _paste(
        self, level: int, page: TiffPage, part: _Part, pixels: NDArray[Any], x: int, y: int
    ) -> None:
        """Decode a part, and copy what of it lies in the window at (x, y)."""
        samples = self._samples(level, page, part)
        if samples is None:
            return
        height, width = pixels.shape[:2]
        y0, y1 = max(part.top, y), min(part.top + samples.shape[0], y + height)
        x0, x1 = max(part.left, x), min(part.left + samples.shape[1], x + width)
        channels = slice(part.plane, part.plane + samples.shape[2])
        pixels[y0 - y : y1 - y, x0 - x : x1 - x, channels] = samples[
            y0 - part.top : y1 - part.top, x0 - part.left : x1 - part.left
        ]

    def _samples(self, level: int, page: TiffPage, part: _Part) -> NDArray[Any] | None:
        """Decode a part, HWS; None if the file has no such tile."""
        if _is_read_by_rows(page):
            return self._rows(level, page, part)
        key = (self._number, level, part.index)
        with _CACHE_LOCK:
            cached = _CACHED.get(key)
        if cached is not None:
            return cached
        encoded = self._bytes(level, part.index, 0, None)
        if encoded is None:
            return None
        decoded = self._decoded(level, page, part.index, encoded)
        with _CACHE_LOCK:
            if decoded.nbytes <= budget.CACHE_BYTES:
                _CACHED[key] = decoded
        return decoded

    def _decoded(self, level: int, page: TiffPage, index: int, encoded: bytes) -> NDArray[Any]:
        size = read_stated_size(encoded, page.compression)
        if size is not None:
            _check_tile(page, size)
        source = self._sources[level]
        with budget.decoding.reserve(
            min(_CODEC_FACTOR * page.segment_bytes, budget.DECODING_BYTES)
        ):
            decoded, _, _ = source.decode(encoded, index, jpegtables=source.jpegtables)
        rectangle: NDArray[Any] = decoded[0]
        expected = np.uint16 if page.bits == 16 else np.uint8
        if rectangle.dtype != expected:
            raise ValueError(f"a tile holds samples of type {rectangle.dtype}")
        return rectangle

    def _rows(self, level: int, page: TiffPage, part: _Part) -> NDArray[Any] | None:
        """Read rows of a strip that is not compressed."""
        samples = 1 if page.is_planar else page.samples
        row_bytes = page.width_px * samples * (page.bits // 8)
        stored = self._bytes(
            level, part.index, part.skipped_rows * row_bytes, part.height * row_bytes
        )
        if stored is None:
            return None
        order = "<" if self._layout.is_little_endian else ">"
        dtype = np.dtype("u1") if page.bits == 8 else np.dtype(f"{order}u2")
        rows = np.frombuffer(stored, dtype).reshape(part.height, page.width_px, samples)
        return rows.astype(dtype.newbyteorder("="), copy=False)

    def _bytes(self, level: int, index: int, start: int, wanted: int | None) -> bytes | None:
        """Read what the file holds of a tile or strip; None if that is nothing."""
        source = self._sources[level]
        offset, stored = source.dataoffsets[index], source.databytecounts[index]
        if not stored:
            return None
        length = stored if wanted is None else wanted
        if start + length > stored or length > self._layout.file_bytes:
            raise ValueError("a strip is shorter than its rows")
        with self._lock:
            self._tiff.filehandle.seek(offset + start)
            content = bytes(self._tiff.filehandle.read(length))
        if len(content) < length:
            raise ValueError("the file ends within a tile")
        return content

    def _rgb(self, page: TiffPage, pixels: NDArray[Any]) -> NDArray[np.uint8]:
        if self._reading.is_white_zero:
            pixels = np.invert(pixels)
        rgb = to_rgb8(pixels[..., :3])
        if page.samples == 4 and page.is_tiled and page.extra_samples[:1] == (_UNASSOCIATED,):
            alpha = to_rgb8(pixels[..., 3:]).astype(np.uint16)
            return ((rgb * alpha + 127) // 255).astype(np.uint8)  # as on black
        return rgb  # QuPath shows the colors alone, in strips always

    def close(self) -> None:
        """See :class:`Reader`."""
        self._tiff.close()


def _source(tiff: Any, place: tuple[int, ...]) -> Any:
    """Get tifffile's page that reads the pixels."""
    page = tiff.pages[place[0]]
    page = page.aspage() if hasattr(page, "aspage") else page
    if len(place) > 1:
        page = page.pages[place[1]]
        page = page.aspage() if hasattr(page, "aspage") else page
    return page


def _is_read_by_rows(page: TiffPage) -> bool:
    return not page.is_tiled and page.compression == _NONE


def _parts(page: TiffPage, x: int, y: int, width: int, height: int) -> Iterator[_Part]:
    """List the tiles or strips under a window; of strips without compression only its rows."""
    part_width, part_height = page.segment_width_px, page.segment_height_px
    across, down = -(-page.width_px // part_width), -(-page.height_px // part_height)
    for plane in range(page.samples if page.is_planar else 1):
        for row in range(y // part_height, -(-(y + height) // part_height)):
            for column in range(x // part_width, -(-(x + width) // part_width)):
                index = (plane * down + row) * across + column
                top = row * part_height
                if not _is_read_by_rows(page):
                    yield _Part(index, plane, column * part_width, top, part_width, part_height)
                    continue
                first = max(top, y)
                last = min(top + part_height, y + height, page.height_px)
                yield _Part(index, plane, 0, first, part_width, last - first, first - top)


def _check_tile(page: TiffPage, size: tuple[int, int]) -> None:
    """Check that an image in a tile is no larger than the tile; else ValueError."""
    if size[0] > page.segment_width_px or size[1] > page.segment_height_px:
        raise ValueError(
            f"a tile of {page.segment_width_px} x {page.segment_height_px} px holds an image of "
            f"{size[0]} x {size[1]} px"
        )
