"""Read numbers per pixel from the files of label masks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsisam_qupath.errors import SlideError
from wsisam_qupath.slide.plain_image import DAMAGE, open_image
from wsisam_qupath.slide.tiff_layout import MAGIC, damage, open_file

Labels = NDArray[np.integer]

MARK_BYTES_MAX = 1 << 30
"""Largest mask, decoded, bytes."""

MARK_DAMAGE = (*DAMAGE, SlideError, LookupError, RuntimeError, MemoryError)
"""Errors of reading a file that is damaged, or no mask."""

_MOST = 2**31 - 1


def read_marks(path: Path) -> Labels:
    """Read H x W whole numbers: integers, whole floats, a palette, or gray stored as RGB.

    Raises:
        ValueError: it has colors, fractions, several planes, or is too large.
        OSError, SlideError: it is damaged.
    """
    with path.open("rb") as file:
        is_tiff = file.read(4) in MAGIC
    marks = _squeezed(_tiff_samples(path) if is_tiff else _plain_samples(path))
    if marks.dtype.kind == "f":
        if not (np.isfinite(marks).all() and (marks == np.rint(marks)).all()):
            raise ValueError("its numbers have fractions, and should be whole")
        marks = _checked_range(marks).astype(np.int32)
    if marks.dtype.kind not in "bui":
        raise ValueError("its numbers have fractions, and should be whole")
    return _checked_range(marks).astype(np.int32) if marks.dtype.itemsize > 4 else marks


def _checked_range(marks: NDArray[Any]) -> NDArray[Any]:
    if marks.size and not 0 <= marks.min() <= marks.max() <= _MOST:
        raise ValueError(f"its numbers are not all from 0 to {_MOST}")
    return marks


def _squeezed(samples: NDArray[Any]) -> NDArray[Any]:
    """H x W of H x W x 3 or 4: the first channel, if all colors are gray."""
    if samples.ndim == 3 and samples.shape[2] in (3, 4):
        first = samples[..., :1]
        if (samples[..., 1:3] == first).all():
            return samples[..., 0]
        raise ValueError("it has colors, and should have one channel")
    if samples.ndim < 2 or samples.size != samples.shape[0] * samples.shape[1]:
        raise ValueError("it has several planes or channels, and should have one")
    return samples.reshape(samples.shape[:2])


def _plain_samples(path: Path) -> NDArray[Any]:
    with open_image(path) as image:
        _check_bytes(image.width * image.height * 4)
        image.load()
        return np.asarray(image)


def _tiff_samples(path: Path) -> NDArray[Any]:
    """Read the samples of the first page, whatever their color interpretation."""
    with open_file(path) as tiff:
        try:
            page = tiff.pages[0]
            _check_bytes(int(page.size) * int(page.dtype.itemsize))
            samples: NDArray[Any] = page.asarray(maxworkers=1)
        except damage() as exc:
            raise ValueError(f"it is damaged: {exc}") from exc
    return np.moveaxis(samples, 0, -1) if page.planarconfig == 2 and samples.ndim == 3 else samples


def _check_bytes(size_bytes: int) -> None:
    if size_bytes > MARK_BYTES_MAX:
        raise ValueError(f"it would take {size_bytes >> 20} MB, more than {MARK_BYTES_MAX >> 20}")
