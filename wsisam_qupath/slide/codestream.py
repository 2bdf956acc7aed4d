"""Read the size that an encoded tile states itself, before a decoder allocates it.

A TIFF or DICOM header and the image in its tile may disagree: 256 px in one, 12,000 in the other.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping

_JPEG2000, _LERC, _PNG, _WEBP, _JPEGXL, _JPEG = 34712, 34887, 34933, 50001, 50002, 7

_FRAMES = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})
"""JPEG's start-of-frame markers."""


def read_stated_size(encoded: bytes, compression: int) -> tuple[int, int] | None:
    """Read (width, height) that an encoded image states; None for codecs without a header.

    Args:
        compression: number of the compression in the TIFF specification and its registry.

    Raises:
        ValueError: the header is damaged.
    """
    parse = _PARSERS.get(compression)
    if parse is None:
        return None
    try:
        return parse(encoded)
    except (struct.error, IndexError) as exc:
        raise ValueError("the header of a tile is damaged") from exc


def jpeg_size(encoded: bytes) -> tuple[int, int]:
    """Read the size in the first frame of a JPEG file.

    Raises:
        ValueError: there is none.
    """
    place = 2
    while place + 9 <= len(encoded):
        if encoded[place] != 0xFF:
            raise ValueError("a JPEG marker is missing")
        marker = encoded[place + 1]
        if marker in _FRAMES:
            height, width = struct.unpack_from(">HH", encoded, place + 5)
            return width, height
        if marker == 0xFF or 0xD0 <= marker <= 0xD8:
            place += 1 if marker == 0xFF else 2
            continue
        place += 2 + int(struct.unpack_from(">H", encoded, place + 2)[0])
    raise ValueError("a JPEG image has no frame")


def jpeg2000_size(encoded: bytes) -> tuple[int, int]:
    """Read the size in a JPEG 2000 codestream, bare or in JP2 boxes.

    Raises:
        ValueError: there is none.
    """
    start = encoded.find(b"\xff\x4f\xff\x51")
    if start < 0:
        raise ValueError("a JPEG 2000 image has no codestream")
    right, bottom, left, top = struct.unpack_from(">IIII", encoded, start + 8)
    return right - left, bottom - top


def _png_size(encoded: bytes) -> tuple[int, int]:
    width, height = struct.unpack_from(">II", encoded, 16)
    return width, height


def _lerc_size(encoded: bytes) -> tuple[int, int]:
    if encoded[:6] != b"Lerc2 ":
        raise ValueError("a LERC tile is of an unknown version")
    (version,) = struct.unpack_from("<i", encoded, 6)
    height, width = struct.unpack_from("<ii", encoded, 14 if version >= 3 else 10)
    return width, height


def _webp_size(encoded: bytes) -> tuple[int, int]:
    kind = encoded[12:16]
    if kind == b"VP8X":
        width, height = (int.from_bytes(encoded[n : n + 3], "little") + 1 for n in (24, 27))
        return width, height
    if kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", encoded, 21)
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", encoded, 26)
        return width & 0x3FFF, height & 0x3FFF
    raise ValueError("a WebP tile is of an unknown kind")


def _jpegxl_size(encoded: bytes) -> tuple[int, int]:
    """Read the size by ISO 18181-1, SizeHeader; the codestream is bare or in jxlc or jxlp boxes."""
    start = encoded.find(b"\xff\x0a")
    if start < 0:
        raise ValueError("a JPEG XL tile has no codestream")
    bits = _Bits(encoded[start + 2 : start + 16])
    is_small = bits.take(1)
    height = _jpegxl_side(bits, is_small)
    ratio = bits.take(3)
    if ratio == 0:
        return _jpegxl_side(bits, is_small), height
    across, down = ((1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))[ratio - 1]
    return height * across // down, height


def _jpegxl_side(bits: _Bits, is_small: int) -> int:
    if is_small:
        return (bits.take(5) + 1) * 8
    return bits.take((9, 13, 18, 30)[bits.take(2)]) + 1


class _Bits:
    """Takes bits from the lowest one on."""

    def __init__(self, content: bytes) -> None:
        self._value = int.from_bytes(content, "little")

    def take(self, count: int) -> int:
        taken = self._value & ((1 << count) - 1)
        self._value >>= count
        return taken


_PARSERS: Mapping[int, Callable[[bytes], tuple[int, int]]] = {
    _JPEG: jpeg_size,
    _JPEG2000: jpeg2000_size,
    _LERC: _lerc_size,
    _PNG: _png_size,
    _WEBP: _webp_size,
    _JPEGXL: _jpegxl_size,
}
