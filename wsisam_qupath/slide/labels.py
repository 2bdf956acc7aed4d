"""Writes masks of labels as OME-TIFF: each pixel has the number of the object that it lies in."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from math import ceil
from pathlib import Path
from typing import TypeAlias

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry import MultiPolygon, Polygon

from ..files import open_atomically
from ..geometry import Mpp
from ..geometry.raster import find_inside

Labels: TypeAlias = NDArray[np.uint16 | np.uint32]

_TILE_PX = 512
_COMPRESSION_LEVEL = 6


def write_labels(
    path: Path,
    l0_outlines: Sequence[Polygon | MultiPolygon],
    *,
    width_px: int,
    height_px: int,
    mpp: Mpp,
) -> None:
    """Write a mask of labels, completely or not at all: a tiled, pyramidal OME-TIFF.

    0 is background, and N the Nth outline: a pixel belongs to the outline that its center lies in,
    where several overlap to the smallest of them, so that none hides one inside of it. Each further
    level has half the pixels along each axis, by the same rule: labels are never averaged. A tile
    at a time is in memory.

    Args:
        path: file to write; the name should end in ``.ome.tif``.
        l0_outlines: outlines in the order of their numbers, level-0 px.
        width_px, height_px: size of level 0.
        mpp: pixel size of level 0.

    Raises:
        OutputError: the file cannot be written.
    """
    import tifffile  # 0.15 s

    mask = _Mask(l0_outlines, width_px, height_px)
    with (
        open_atomically(path) as file,
        tifffile.TiffWriter(file, bigtiff=True, byteorder="<", ome=True) as tiff,
    ):
        for level in range(mask.levels):
            um_x, um_y = mpp.x * 2**level, mpp.y * 2**level
            tiff.write(
                mask.encode_tiles(level),
                shape=mask.shape(level),
                dtype=mask.dtype,
                tile=(_TILE_PX, _TILE_PX),
                photometric="minisblack",
                compression="zlib",
                predictor=False,
                resolution=(1e4 / um_x, 1e4 / um_y),
                resolutionunit="CENTIMETER",
                subifds=0 if level else mask.levels - 1,
                subfiletype=1 if level else 0,
                metadata=None if level else _describe(mpp),
            )


def _describe(mpp: Mpp) -> dict[str, object]:
    """Make the OME-XML."""
    return {
        "axes": "YX",
        "Name": "labels",
        "PhysicalSizeX": mpp.x,
        "PhysicalSizeXUnit": "µm",
        "PhysicalSizeY": mpp.y,
        "PhysicalSizeYUnit": "µm",
    }


class _Mask:
    """A mask that is drawn tile by tile.

    Attributes:
        dtype: smallest type that holds all numbers.
        levels: number of levels: until one tile holds all.
    """

    def __init__(
        self, l0_outlines: Sequence[Polygon | MultiPolygon], width_px: int, height_px: int
    ) -> None:
        self._outlines, self._size_px = l0_outlines, (width_px, height_px)
        self._tree = shapely.STRtree(l0_outlines)
        self._areas = [outline.area for outline in l0_outlines]
        fits = len(l0_outlines) <= np.iinfo(np.uint16).max
        self.dtype: type[np.uint16 | np.uint32] = np.uint16 if fits else np.uint32
        longest = ceil(max(width_px, height_px) / _TILE_PX)
        self.levels = 1 + (longest - 1).bit_length()
        self._empty = self._encode(np.zeros((_TILE_PX, _TILE_PX), self.dtype))

    def shape(self, level: int) -> tuple[int, int]:
        """Height and width of a level, px."""
        width_px, height_px = self._size_px
        return ceil(height_px / 2**level), ceil(width_px / 2**level)

    def encode_tiles(self, level: int) -> Iterator[bytes]:
        """Encode the tiles of a level, row by row, compressed."""
        height_px, width_px = self.shape(level)
        for top in range(0, height_px, _TILE_PX):
            for left in range(0, width_px, _TILE_PX):
                tile = self._draw(left, top, 2**level)
                yield self._empty if tile is None else self._encode(tile)

    def _draw(self, left: int, top: int, step: int) -> Labels | None:
        """Draw a tile, 512 x 512; None if nothing lies in it.

        Args:
            left, top: corner of the tile, px of its level.
            step: level-0 px per px of its level.
        """
        right, bottom = left + _TILE_PX, top + _TILE_PX
        found = self._tree.query(shapely.box(left * step, top * step, right * step, bottom * step))
        if not len(found):
            return None
        tile: Labels = np.zeros((_TILE_PX, _TILE_PX), self.dtype)
        for index in sorted(found.tolist(), key=lambda one: (-self._areas[one], -one)):
            outline = self._outlines[index]
            x0, y0, x1, y1 = (shapely.bounds(outline) / step).tolist()
            x0, y0 = max(left, int(x0)), max(top, int(y0))
            x1, y1 = min(right, ceil(x1)), min(bottom, ceil(y1))
            inside = find_inside(outline, x0, y0, x1 - x0, y1 - y0, step)
            tile[y0 - top : y1 - top, x0 - left : x1 - left][inside] = index + 1
        return tile

    def _encode(self, tile: Labels) -> bytes:
        little_endian = tile.astype(tile.dtype.newbyteorder("<"), copy=False)
        return zlib.compress(little_endian.tobytes(), _COMPRESSION_LEVEL)
