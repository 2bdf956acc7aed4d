"""Read what kind of DICOM a file is, so that a sound one is not called damaged."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

from ..errors import SlideError

_SLIDE = "1.2.840.10008.5.1.4.1.1.77.1.6"
"""UID of VL Whole Slide Microscopy Image Storage."""

_KINDS = {
    "1.2.840.10008.5.1.4.1.1.2": "a CT image",
    "1.2.840.10008.5.1.4.1.1.4": "an MR image",
    "1.2.840.10008.5.1.4.1.1.7": "a secondary capture image",
    "1.2.840.10008.1.3.10": "a DICOMDIR index",
}

_READ_SYNTAXES = frozenset(
    {
        "1.2.840.10008.1.2.1",
        "1.2.840.10008.1.2.4.50",
        "1.2.840.10008.1.2.4.90",
        "1.2.840.10008.1.2.4.91",
    }
)
"""UIDs of the compressions that OpenSlide reads: none, JPEG, and JPEG 2000."""

_SYNTAX_NAMES = {
    "1.2.840.10008.1.2": "implicit value representations",
    "1.2.840.10008.1.2.2": "big-endian numbers",
    "1.2.840.10008.1.2.5": "run-length encoding",
    "1.2.840.10008.1.2.4.51": "12-bit JPEG",
    "1.2.840.10008.1.2.4.57": "lossless JPEG",
    "1.2.840.10008.1.2.4.70": "lossless JPEG",
    "1.2.840.10008.1.2.4.80": "JPEG-LS",
    "1.2.840.10008.1.2.4.81": "JPEG-LS",
    "1.2.840.10008.1.2.4.201": "High-Throughput JPEG 2000",
    "1.2.840.10008.1.2.4.202": "High-Throughput JPEG 2000",
    "1.2.840.10008.1.2.4.203": "High-Throughput JPEG 2000",
}

_LONG = (b"OB", b"OW", b"OF", b"SQ", b"UT", b"UN", b"UC", b"UR", b"OD", b"OL", b"OV")
_META_BYTES = 1 << 16

_CONVERT = (
    "Convert it to DICOM with JPEG tiles or to OME-TIFF with a program that shows it, or add it to "
    "a project of a QuPath with Bio-Formats and segment it with batch."
)


def is_dicom(head: bytes) -> bool:
    """Whether a file begins as DICOM does; its first 128 bytes may look like another format."""
    return head[128:132] == b"DICM"


def check_dicom(path: Path) -> None:
    """Check that a file is a whole slide in a compression that OpenSlide reads.

    Raises:
        SlideError: it is something else; the message says what.
    """
    with path.open("rb") as file:
        content = file.read(_META_BYTES)
    meta = dict(_meta_elements(content))
    kind, syntax = meta.get((2, 2)), meta.get((2, 16))
    if kind is not None and kind != _SLIDE:
        raise SlideError(
            f"{path} is DICOM, but {_KINDS.get(kind, f'of the kind {kind}')}, not a whole slide. "
            "Export it as PNG or OME-TIFF with a program that shows it."
        )
    if syntax is not None and syntax not in _READ_SYNTAXES:
        raise SlideError(
            f"{path} is a DICOM slide with {_SYNTAX_NAMES.get(syntax, f'encoding {syntax}')}, "
            f"which is not supported. {_CONVERT}"
        )


def _meta_elements(content: bytes) -> Iterator[tuple[tuple[int, int], str]]:
    """Read elements of group 2, always explicit and little-endian, up to the first fault."""
    place = 132
    while place + 8 <= len(content):
        group, element = struct.unpack_from("<HH", content, place)
        kind = content[place + 4 : place + 6]
        if group != 2:
            return
        if kind in _LONG:
            if place + 12 > len(content):
                return
            (length,) = struct.unpack_from("<I", content, place + 8)
            place += 12
        else:
            (length,) = struct.unpack_from("<H", content, place + 6)
            place += 8
        value = content[place : place + length]
        yield (group, element), value.rstrip(b"\0 ").decode("ascii", "replace")
        place += length
