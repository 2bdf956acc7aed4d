"""Writes pyramidal TIFF files that OpenSlide and QuPath open."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import OptionError
from ..files import write_atomically
from . import calibration

_CLASSIC_TIFF_BYTES_MAX = 1 << 31


def write_pyramid(
    path: str | os.PathLike[str], rgb: NDArray[np.uint8], *, mpp: float, tile_px: int = 256
) -> None:
    """Writes a tiled, losslessly compressed TIFF; each level halves the last one, rounding up.

    The file appears whole or not at all, and replaces one that is there.

    Args:
        path: file to write.
        rgb: HWC uint8 RGB.
        mpp: µm per pixel, written to the resolution tags.
        tile_px: side of the tiles, a multiple of 16; levels are added until one tile holds all.

    Raises:
        OptionError: `mpp` could not be read back (0.02 to 50), or an unsuitable `tile_px`.
        OutputError: the file cannot be written.
        ValueError: `rgb` is no such array.
    """
    _check(rgb, mpp, tile_px)
    write_atomically(Path(path), _encode(rgb, mpp, tile_px))


def _check(rgb: NDArray[np.uint8], mpp: float, tile_px: int) -> None:
    if rgb.ndim != 3 or rgb.shape[2] != 3 or rgb.dtype != np.uint8 or rgb.size == 0:
        raise ValueError(f"not HWC uint8 RGB: {rgb.shape} {rgb.dtype}")
    if calibration.parse_mpp(mpp, mpp) is None:
        raise OptionError(
            "mpp",
            f"{mpp:g} µm per pixel cannot be written: choose from {calibration.STATED_MPP_MIN:g} "
            f"to {calibration.STATED_MPP_MAX:g}.",
        )
    if tile_px < 16 or tile_px % 16:
        raise OptionError("tile_px", f"{tile_px} is not a multiple of 16.")


def _encode(rgb: NDArray[np.uint8], mpp: float, tile_px: int) -> bytes:
    """The content of the file."""
    import tifffile  # 0.15 s

    # The levels together add a third; compression is not counted on.
    is_big = rgb.nbytes * 4 // 3 > _CLASSIC_TIFF_BYTES_MAX
    content = io.BytesIO()
    with tifffile.TiffWriter(content, bigtiff=is_big) as tiff:
        for index, level in enumerate(_levels(rgb, tile_px)):
            per_cm = 1e4 / (mpp * 2**index)
            tiff.write(
                level,
                tile=(tile_px, tile_px),
                photometric="rgb",
                compression="zlib",
                predictor=True,
                resolution=(per_cm, per_cm),
                resolutionunit="CENTIMETER",
                subfiletype=1 if index else 0,
                metadata=None,
            )
    return content.getvalue()


def _levels(rgb: NDArray[np.uint8], tile_px: int) -> Iterator[NDArray[np.uint8]]:
    """The array, then its averages over blocks of 2 x 2, 4 x 4, ... px, each from level 0.

    Blocks on the right and lower edge average what there is of them.
    """
    from PIL import Image  # not needed for `--help`

    yield rgb
    full: Image.Image = Image.fromarray(rgb)
    factor = 1
    while max(full.size) > tile_px * factor:
        factor *= 2
        yield np.asarray(full.reduce(factor), dtype=np.uint8)
