"""Plain images - PNG, JPEG, BMP, GIF, WebP, JPEG 2000 - through Pillow.

A small one is decoded once and held. A large one is converted once to a tiled copy in the cache, by
a process of its own, so that no image takes more memory than the budget allows.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import SlideError
from ..geometry import Mpp
from . import budget, calibration
from .codestream import jpeg_size
from .plain_image import DAMAGE, EXPORT, check_colors, convert_to_rgb, open_image
from .reader import Bounds, Reader, RgbArray, Window
from .tiled_copy import find_or_make_tiled_copy

if TYPE_CHECKING:
    from PIL.Image import Image

PLAIN_PX_MAX = 1_000_000_000
"""Largest plain image, px."""

HELD_PX_MAX = 16_000_000
"""Largest image that is decoded whole and held, with 3 bytes per pixel; others are converted."""

_WHOLE_PX_MAX = 64_000_000
"""Largest image of a kind that cannot be decoded row by row, such as a progressive JPEG."""

_BYTES_PER_PX = 16
"""Most memory per pixel while decoding: 4 bytes in Pillow, 3 as RGB, before that JPEG 2000's 32-bit
planes."""


class PlainReader:
    """Reads an image of one level that is held in memory."""

    def __init__(self, rgb: RgbArray, mpp: Mpp | None) -> None:
        """Use :func:`open_plain` instead."""
        self.name = "pillow"
        self.foreign_errors: tuple[type[Exception], ...] = ()
        self._rgb = rgb
        height, width = rgb.shape[:2]
        self.level_sizes_px: tuple[tuple[int, int], ...] = ((width, height),)
        self.bounds = Bounds(0, 0, width, height)
        self.stated_mpp = mpp

    def read(self, level: int, x: int, y: int, width: int, height: int) -> Window:  # noqa: ARG002
        """See :class:`Reader`."""
        return Window(self._rgb[y : y + height, x : x + width], x, y)

    def close(self) -> None:
        """See :class:`Reader`; the file itself was closed after decoding."""


def open_plain(path: Path) -> Reader:
    """Open a plain image by its header, and decode or convert it.

    Raises:
        SlideError: it is no image, damaged, too large, or of a kind that QuPath shows otherwise.
    """
    from PIL import UnidentifiedImageError  # not needed for `--help`

    try:
        with open_image(path) as image:
            _check_size(path, image)
            check_colors(path, image)
            mpp = _stated_mpp(image)
            if image.width * image.height > HELD_PX_MAX:
                return _converted(path, mpp)
            with budget.decoding.reserve(_BYTES_PER_PX * image.width * image.height):
                image.load()
                rgb = convert_to_rgb(path, image)
    except UnidentifiedImageError as exc:
        raise SlideError(_unknown(path)) from exc
    except DAMAGE as exc:
        raise SlideError(f"{path} is damaged ({exc}). Copy it again from its source.") from exc
    except MemoryError as exc:
        raise SlideError(
            f"{path} does not fit into memory. Convert it to a pyramidal, tiled OME-TIFF."
        ) from exc
    _check_range(path, rgb)
    return PlainReader(rgb, mpp)


def read_plain_size(path: Path) -> tuple[int, int]:
    """Read (width, height) from the header alone.

    Raises:
        SlideError: it is no image, or damaged.
    """
    try:
        with open_image(path) as image:
            return image.size
    except DAMAGE as exc:
        raise SlideError(_unknown(path)) from exc


def _converted(path: Path, mpp: Mpp | None) -> Reader:
    # Its tiles are read like those of any other TIFF.
    from .tiff_layout import read_layout
    from .tiff_reader import TiffReader
    from .tiff_rules import decide

    layout = read_layout(find_or_make_tiled_copy(path))
    reader = TiffReader(layout, decide(layout, openslide_opens=False))
    reader.name, reader.stated_mpp = "libvips", mpp
    _check_range(path, reader.read(len(reader.level_sizes_px) - 1, 0, 0, 1, 1).rgb)
    return reader


def _check_size(path: Path, image: Image) -> None:
    pixels = image.width * image.height
    most = PLAIN_PX_MAX if _is_decoded_by_rows(image) else _WHOLE_PX_MAX
    if pixels > most:
        raise SlideError(
            f"{path} has {image.width} x {image.height} pixels, too many for a plain image of this "
            "kind. Convert it to a pyramidal, tiled OME-TIFF."
        )


def _is_decoded_by_rows(image: Image) -> bool:
    if image.format == "PNG":
        return not image.info.get("interlace")
    return image.format in ("JPEG", "MPO") and not image.info.get("progressive")


def _check_range(path: Path, rgb: RgbArray) -> None:
    """Check that a 16-bit image uses its range: a camera's 8 or 12 bits would look black."""
    if _png_bits(path) == 16 and int(rgb.max(initial=0)) < budget.WIDE_MIN:
        raise SlideError(
            f"{path} has 16-bit samples of which the highest bits are never used, so it would be "
            f"black. {EXPORT}"
        )


def _png_bits(path: Path) -> int:
    with path.open("rb") as file:
        header = file.read(26)
    return header[24] if header.startswith(b"\x89PNG") and len(header) > 24 else 8


def _unknown(path: Path) -> str:
    with path.open("rb") as file:
        header = file.read(1 << 16)
    if header.startswith(b"\xff\xd8\xff"):
        try:
            width, height = jpeg_size(header)
        except (ValueError, struct.error):
            width = height = 0
        if width and height:
            return (
                f"{path} is a JPEG of {width} x {height} px of a kind that QuPath does not show "
                f"(lossless, or of more than 8 bits). {EXPORT}"
            )
    return (
        f"{path} is damaged or in no format that can be read here. Copy it again from its "
        "source, or export it from QuPath as OME-TIFF."
    )


def _stated_mpp(image: Image) -> Mpp | None:
    x_dpi, y_dpi = image.info.get("dpi", (0, 0))
    return calibration.from_resolution(float(x_dpi), float(y_dpi), "inch")
