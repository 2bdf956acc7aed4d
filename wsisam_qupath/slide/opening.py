"""Chooses the reader of a file: by its first bytes and its tags, before a library decodes it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..errors import SlideError
from . import budget
from .dicom import check_dicom, is_dicom
from .openslide_reader import OpenSlideReader, detect_format
from .plain_reader import open_plain, read_plain_size
from .probe import check_opens
from .reader import Reader
from .tiff_layout import MAGIC as TIFF_MAGIC
from .tiff_layout import read_layout
from .tiff_reader import TiffReader
from .tiff_rules import Reading, Via, check_sizes, decide

_HEAD_BYTES = 132

_LOOKED_AT_PX = 2048
"""Side of the region that tells whether 16-bit samples use their range."""


def open_reader(path: Path, *, as_qupath: bool = True) -> Reader:
    """Open a file with OpenSlide, our own rules for other TIFF files, or Pillow for images.

    Args:
        as_qupath: see :func:`.decide`.

    Raises:
        SlideError: it cannot be read as QuPath shows it.
    """
    head = _first_bytes(path)
    if path.suffix.lower() == ".mrxs" and not path.with_suffix("").is_dir():
        raise SlideError(f"{path} needs the folder {path.stem} beside it. Copy that too.")
    if is_dicom(head):
        check_dicom(path)
        check_opens(path)
        return OpenSlideReader(path)
    if head[:4] in TIFF_MAGIC:
        return _tiff_reader(path, as_qupath)
    if detect_format(path) is None:
        return open_plain(path)
    check_opens(path)
    return OpenSlideReader(path)


def read_size(path: Path) -> tuple[int, int]:
    """Read (width, height) of level 0 of an image of a data set, from its header if possible.

    Raises:
        SlideError: it cannot be read.
    """
    head = _first_bytes(path)
    if head[:4] not in TIFF_MAGIC and not is_dicom(head) and detect_format(path) is None:
        return read_plain_size(path)
    reader = open_reader(path, as_qupath=False)
    try:
        return reader.bounds.width, reader.bounds.height
    finally:
        reader.close()


def _tiff_reader(path: Path, as_qupath: bool) -> Reader:
    layout = read_layout(path)
    check_sizes(layout)
    vendor = detect_format(path)
    if vendor not in (None, "generic-tiff"):
        check_opens(path)
        return OpenSlideReader(path)
    reading = decide(layout, openslide_opens=vendor is not None, as_qupath=as_qupath)
    if reading.via is Via.OPENSLIDE:
        reader: Reader = OpenSlideReader(path, [page.size_px for page in reading.levels])
    else:
        reader = TiffReader(layout, reading)
    if reading.is_wide:
        try:
            _check_range(path, reader, reading)
        except SlideError:
            reader.close()
            raise
    return reader


def _check_range(path: Path, reader: Reader, reading: Reading) -> None:
    """Check that 16-bit samples use their range: a camera's 8 or 12 bits would look black.

    Raises:
        SlideError: the brightest that is found, in the middle of the coarsest level, is nearly
            black; or the file is damaged there.
    """
    level = len(reader.level_sizes_px) - 1
    width, height = reader.level_sizes_px[level]
    side_x, side_y = min(width, _LOOKED_AT_PX), min(height, _LOOKED_AT_PX)
    try:
        window = reader.read(level, (width - side_x) // 2, (height - side_y) // 2, side_x, side_y)
    except reader.foreign_errors as exc:
        raise SlideError(f"{path} is damaged ({exc}). Copy it again from its source.") from exc
    values = np.invert(window.rgb) if reading.is_white_zero else window.rgb
    if int(values.max(initial=0)) < budget.WIDE_MIN:
        raise SlideError(
            f"{path} has 16-bit samples that stay below {(int(values.max()) + 1) * 257} of 65535, "
            "so it would be black. Export it as 8-bit RGB."
        )


def _first_bytes(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(_HEAD_BYTES)
    except PermissionError as exc:
        raise SlideError(f"{path} may not be read by this user. Change its permissions.") from exc
    except OSError as exc:
        raise SlideError(f"{path} cannot be read ({exc}). Check the drive it is on.") from exc
