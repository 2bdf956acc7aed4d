"""Plain images as Pillow opens them, and their pixels as RGB where QuPath shows the same."""

from __future__ import annotations

import struct
import threading
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..errors import SlideError
from .reader import RgbArray, to_rgb8

if TYPE_CHECKING:
    from PIL.Image import Image

_FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "JPEG2000")
"""Formats that Pillow may open; others, such as EPS, would start another program."""

DAMAGE = (
    *(OSError, ValueError, SyntaxError, EOFError, TypeError, struct.error, zlib.error),
    *(AssertionError, LookupError, ArithmeticError, RuntimeError, AttributeError),
)
"""Errors that Pillow raises on damaged files; found by damaging files at random."""

_PILLOW_GLOBALS = threading.Lock()
"""Lock for changes of Pillow's limit on the image size and Python's warnings, both global."""

EXPORT = "Export it as 8-bit RGB, for example as PNG or OME-TIFF."
"""Advice on how to get an image that can be read."""


@contextmanager
def open_image(path: Path) -> Iterator[Image]:
    """Open an image by its header, whatever its size.

    Pillow's limit of 179 Mpx is for web servers; ours are checked by whoever calls this. What it
    warns of on stderr is either an error later, or of no interest.
    """
    from PIL import Image  # not needed for `--help`

    with _PILLOW_GLOBALS:
        limit = Image.MAX_IMAGE_PIXELS
        Image.MAX_IMAGE_PIXELS = None
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                image = Image.open(path, formats=_FORMATS)
        finally:
            Image.MAX_IMAGE_PIXELS = limit
    with image:
        yield image


def check_colors(path: Path | str, image: Image) -> None:
    """Check that QuPath shows an image, opened and not yet decoded, as this program reads it.

    Raises:
        SlideError: it does not, or nobody knows how its numbers become colors.
    """
    is_moving = getattr(image, "is_animated", False) and image.format in ("PNG", "GIF", "WEBP")
    if is_moving:
        raise SlideError(f"{path} is an animation. Export the frame to segment as PNG.")
    if image.mode == "CMYK":
        raise SlideError(
            f"{path} has CMYK colors, as for printing, which QuPath does not show. {EXPORT}"
        )
    has_gray_alpha = (
        image.mode in ("LA", "La")
        or "LA;16B" in str(getattr(image, "tile", ""))
        or (image.mode in ("1", "L", "I;16", "I") and "transparency" in image.info)
    )
    if has_gray_alpha:
        raise SlideError(
            f"{path} is gray with transparency, which QuPath shows differently from other "
            f"programs. {EXPORT}"
        )
    if image.mode in ("F", "YCbCr", "LAB", "HSV"):
        raise SlideError(f"{path} has colors of a kind ({image.mode}) without a rule. {EXPORT}")


def convert_to_rgb(path: Path | str, image: Image) -> RgbArray:
    """Convert any mode to HWC uint8 RGB: 16 bits from their whole range, alpha on white.

    Args:
        path: names the image in messages.

    Raises:
        SlideError: QuPath shows it differently, or gray values have no fixed range.
    """
    from PIL import Image  # not needed for `--help`

    check_colors(path, image)
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG"):
        return to_rgb8(np.asarray(image)[..., None].astype(np.uint16))
    if image.mode == "I":
        raise SlideError(f"{path} has gray values without a fixed range. {EXPORT}")
    if image.has_transparency_data:
        on_white = Image.new("RGB", image.size, "white")
        with_alpha = image.convert("RGBA")
        on_white.paste(with_alpha, mask=with_alpha)
        return np.array(on_white, dtype=np.uint8)
    return np.array(image.convert("RGB"), dtype=np.uint8)
