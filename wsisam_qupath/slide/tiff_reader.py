"""Tiled TIFF that OpenSlide does not read in full, through tifffile.

That is OME-TIFF (OpenSlide opens it, but sees neither its pyramid nor its µm/px), planar samples,
and compressions such as JPEG 2000, JPEG XL or WebP.
"""

from __future__ import annotations

import logging
import struct
import threading
import zlib
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import SlideError
from ..geometry import Mpp
from . import calibration
from .plain_reader import PlainReader
from .reader import Bounds, Reader, Window, to_rgb8

MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
"""How TIFF and BigTIFF files begin."""

_QUIET = logging.NullHandler()
"""Keeps tifffile from printing on stderr about damaged tags where nobody set up logging."""

_PLANES = ("YX", "YXS", "SYX")
_LENGTH_UNITS = {2: "inch", 3: "centimeter", 4: "mm", 5: "µm"}


def open_tiff(path: Path) -> Reader:
    """Reads tiles through tifffile; an image without tiles is decoded whole, through Pillow.

    Raises:
        SlideError: it is damaged, a stack of planes or channels, or of an unsuitable kind.
    """
    import tifffile  # 0.15 s

    logging.getLogger("tifffile").addHandler(_QUIET)
    damage = _damage()
    try:
        with ExitStack() as stack:
            tiff = stack.enter_context(tifffile.TiffFile(path))
            series = tiff.series[0]
            _check_series(path, series, tiff.filehandle.size)
            mpp = _read_stated_mpp(tiff)
            if series.keyframe.is_tiled:
                reader = TiffReader(path, tiff, mpp)
                stack.pop_all()
                return reader
    except damage as exc:
        raise SlideError(_describe_damage(path)) from exc
    return PlainReader(path, mpp)


def _damage() -> tuple[type[Exception], ...]:
    """What tifffile and its codecs raise on damaged files; found by damaging files at random."""
    import tifffile  # imported by the caller

    named = (tifffile.TiffFileError, struct.error, zlib.error)
    builtin = (OSError, ValueError, TypeError, LookupError, ArithmeticError, RuntimeError)
    return (*named, *builtin, ImportError)  # a codec that this imagecodecs lacks


def _describe_damage(path: Path) -> str:
    return f"{path} is a damaged or truncated TIFF file. Copy it again from its source."


def _check_series(path: Path, series: Any, file_bytes: int) -> None:
    if series.axes not in _PLANES:
        raise SlideError(
            f"{path} is a stack of planes or channels (axes {series.axes}). Export the plane to "
            "segment as an RGB image."
        )
    for level in series.levels:  # a file that was cut opens all the same
        page = level.keyframe
        segments = zip(page.dataoffsets, page.databytecounts, strict=True)
        end = max((offset + count for offset, count in segments), default=0)
        if not page.imagewidth > 0 < page.imagelength or not 0 < end <= file_bytes:
            raise SlideError(_describe_damage(path))


def _read_stated_mpp(tiff: Any) -> Mpp | None:
    """µm/px of the first page: from OME-XML, else from the resolution tags.

    OME comes first, as its only purpose is to state it; editors write resolutions unasked.
    """
    if tiff.is_ome:
        ome = calibration.from_ome(tiff.ome_metadata)
        if ome is not None:
            return ome
    page = tiff.pages[0]
    x_per_unit, y_per_unit = page.resolution
    unit = _LENGTH_UNITS.get(page.tags.valueof("ResolutionUnit", default=2), "none")
    if tiff.is_imagej:  # QuPath's ImageJ export; the tag then says "none"
        unit = str((tiff.imagej_metadata or {}).get("unit", unit))
    return calibration.from_resolution(x_per_unit, y_per_unit, unit)


class TiffReader:
    """Reads tiles through tifffile; the file handle is shared, so reading it is locked."""

    def __init__(self, path: Path, tiff: Any, mpp: Mpp | None) -> None:
        """Takes over an open `tifffile.TiffFile`.

        Raises:
            SlideError: the pixels are neither RGB nor grey, or not of 8 or 16 bit.
        """
        self.name = "tifffile"
        self.foreign_errors = _damage()
        self._tiff = tiff
        self._lock = threading.Lock()
        pages = [level.keyframe for level in tiff.series[0].levels]
        self._pages = [page for page in pages if page.is_tiled]
        _check_pixels(path, self._pages[0])
        self.level_sizes_px = tuple((p.imagewidth, p.imagelength) for p in self._pages)
        self.bounds = Bounds(0, 0, *self.level_sizes_px[0])
        self.stated_mpp = mpp

    def read(self, level: int, x: int, y: int, width: int, height: int) -> Window:
        """See :class:`Reader`."""
        page = self._pages[level]
        samples = page.samplesperpixel
        pixels = np.zeros((height, width, samples), dtype=page.dtype)
        pixels[:] = np.iinfo(page.dtype).max  # tiles may be missing
        across = -(-page.imagewidth // page.tilewidth)
        down = -(-page.imagelength // page.tilelength)
        planes = samples if page.planarconfig == 2 else 1
        for plane in range(planes):
            for row in range(y // page.tilelength, -(-(y + height) // page.tilelength)):
                for column in range(x // page.tilewidth, -(-(x + width) // page.tilewidth)):
                    self._paste(page, (plane * down + row) * across + column, pixels, x, y)
        return Window(to_rgb8(pixels), x, y)

    def _paste(self, page: Any, index: int, pixels: NDArray[Any], x: int, y: int) -> None:
        """Decodes one tile and copies what of it lies in the window at (x, y)."""
        offset, count = page.dataoffsets[index], page.databytecounts[index]
        with self._lock:
            self._tiff.filehandle.seek(offset)
            encoded = self._tiff.filehandle.read(count) if count else None
        decoded, (plane, _, top, left, _), _ = page.decode(
            encoded, index, jpegtables=page.jpegtables
        )
        if decoded is None:
            return
        tile = decoded[0]
        height, width = pixels.shape[:2]
        y0, y1 = max(top, y), min(top + tile.shape[0], y + height)
        x0, x1 = max(left, x), min(left + tile.shape[1], x + width)
        channels = slice(plane, plane + tile.shape[2])
        pixels[y0 - y : y1 - y, x0 - x : x1 - x, channels] = tile[
            y0 - top : y1 - top, x0 - left : x1 - left
        ]

    def close(self) -> None:
        """See :class:`Reader`."""
        self._tiff.close()


def _check_pixels(path: Path, page: Any) -> None:
    from tifffile import PHOTOMETRIC  # imported by the caller

    kinds = {PHOTOMETRIC.RGB: (3, 4), PHOTOMETRIC.YCBCR: (3,), PHOTOMETRIC.MINISBLACK: (1,)}
    samples = kinds.get(page.photometric, ())
    if page.samplesperpixel not in samples or page.dtype not in ("uint8", "uint16"):
        raise SlideError(
            f"{path} has {page.samplesperpixel} channel(s) of type {page.dtype}, colour "
            f"{getattr(page.photometric, 'name', page.photometric)}. Export it as 8-bit RGB."
        )
