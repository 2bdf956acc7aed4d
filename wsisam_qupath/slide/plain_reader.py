"""Plain images - PNG, JPEG, BMP, TIFF without tiles - decoded once, through Pillow."""

from __future__ import annotations

import struct
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..errors import SlideError
from ..geometry import Mpp
from . import calibration
from .reader import Bounds, RgbArray, Window, to_rgb8

if TYPE_CHECKING:
    from PIL.Image import Image

PLAIN_PX_MAX = 1_000_000_000
"""Largest plain image, px: it is held in memory whole, with 3 bytes a pixel."""

_FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "GIF", "WEBP", "JPEG2000")
"""Not all that Pillow knows: EPS, for one, would start another program."""

DAMAGE = (OSError, ValueError, SyntaxError, EOFError, TypeError, struct.error)
"""What Pillow raises on damaged files."""

_PILLOW_LIMIT = threading.Lock()
"""Held while Pillow's own limit on the image size, a global, is lifted."""


class PlainReader:
    """One level, in memory."""

    def __init__(self, path: Path, mpp: Mpp | None = None) -> None:
        """Decodes the file. `mpp` is what a TIFF states; of other files Pillow knows it.

        Raises:
            SlideError: it is no image, damaged, too large, or of a kind without fixed range.
        """
        self.name = "pillow"
        self.foreign_errors: tuple[type[Exception], ...] = ()
        self._rgb, pillow_mpp = _decode(path)
        height, width = self._rgb.shape[:2]
        self.level_sizes_px: tuple[tuple[int, int], ...] = ((width, height),)
        self.bounds = Bounds(0, 0, width, height)
        self.stated_mpp = mpp or pillow_mpp

    def read(self, level: int, x: int, y: int, width: int, height: int) -> Window:  # noqa: ARG002
        """See :class:`Reader`."""
        return Window(self._rgb[y : y + height, x : x + width], x, y)

    def close(self) -> None:
        """See :class:`Reader`; the file itself was closed after decoding."""


def _decode(path: Path) -> tuple[RgbArray, Mpp | None]:
    from PIL import UnidentifiedImageError  # not needed for `--help`

    try:
        with _open_unlimited(path) as image:
            _check_size(path, image)
            image.load()
            x_dpi, y_dpi = image.info.get("dpi", (0, 0))
            mpp = calibration.from_resolution(float(x_dpi), float(y_dpi), "inch")
            return convert_to_rgb(path, image), mpp
    except UnidentifiedImageError as exc:
        raise SlideError(
            f"{path} is damaged or in no format that can be read here. Copy it again from its "
            "source, or export it from QuPath as OME-TIFF."
        ) from exc
    except DAMAGE as exc:
        raise SlideError(f"{path} is damaged ({exc}). Copy it again from its source.") from exc
    except MemoryError as exc:
        raise SlideError(
            f"{path} does not fit into memory. Convert it to a pyramidal, tiled OME-TIFF."
        ) from exc


def _open_unlimited(path: Path) -> Image:
    """Reads the header. Pillow's limit of 179 Mpx is for web servers; ours is below."""
    from PIL import Image  # not needed for `--help`

    with _PILLOW_LIMIT:
        limit = Image.MAX_IMAGE_PIXELS
        Image.MAX_IMAGE_PIXELS = None
        try:
            return Image.open(path, formats=_FORMATS)
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def _check_size(path: Path, image: Image) -> None:
    if image.width * image.height > PLAIN_PX_MAX:
        raise SlideError(
            f"{path} has {image.width} x {image.height} pixels, too many for a plain image. "
            "Convert it to a pyramidal, tiled OME-TIFF."
        )


def convert_to_rgb(path: Path | str, image: Image) -> RgbArray:
    """Any mode to HWC uint8 RGB: 16 bits are scaled from their whole range, alpha is on white.

    Args:
        path: names the image in messages.

    Raises:
        SlideError: grey values without a fixed range.
    """
    from PIL import Image  # not needed for `--help`

    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG"):
        return to_rgb8(np.asarray(image)[..., None].astype(np.uint16))
    if image.mode in ("I", "F"):
        raise SlideError(
            f"{path} has grey values without a fixed range (mode {image.mode}). Export it as "
            "8-bit RGB."
        )
    if image.has_transparency_data:
        on_white = Image.new("RGB", image.size, "white")
        with_alpha = image.convert("RGBA")
        on_white.paste(with_alpha, mask=with_alpha)
        return np.array(on_white, dtype=np.uint8)
    return np.array(image.convert("RGB"), dtype=np.uint8)
