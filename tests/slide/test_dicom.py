"""DICOM files that are sound, and no slides that can be read."""

import struct
from pathlib import Path

import pytest

from wsisam_qupath.errors import SlideError
from wsisam_qupath.slide import open_slide

SLIDE = "1.2.840.10008.5.1.4.1.1.77.1.6"
CT = "1.2.840.10008.5.1.4.1.1.2"


def write_dicom(path: Path, kind: str, syntax: str, preamble: bytes = bytes(128)) -> Path:
    """The part of a DICOM file that says what it is."""
    elements = b"".join(_element(2, number, uid) for number, uid in ((2, kind), (16, syntax)))
    length = struct.pack("<HH2sHI", 2, 0, b"UL", 4, len(elements))
    path.write_bytes(preamble + b"DICM" + length + elements)
    return path


def _element(group: int, element: int, uid: str) -> bytes:
    value = uid.encode() + b"\0" * (len(uid) % 2)
    return struct.pack("<HH2sH", group, element, b"UI", len(value)) + value


@pytest.mark.parametrize(
    ("kind", "syntax", "what"),
    [
        (SLIDE, "1.2.840.10008.1.2.4.80", "a DICOM slide with JPEG-LS, which is not supported"),
        (SLIDE, "1.2.840.10008.1.2.5", "a DICOM slide with run-length encoding"),
        (CT, "1.2.840.10008.1.2.1", "DICOM, but a CT image, not a whole slide"),
    ],
)
def test_a_sound_file_is_not_called_damaged(
    tmp_path: Path, kind: str, syntax: str, what: str
) -> None:
    path = write_dicom(tmp_path / "image.dcm", kind, syntax)
    with pytest.raises(SlideError, match=what) as caught:
        open_slide(path)
    assert "damaged" not in str(caught.value)


def test_a_dicom_file_that_begins_like_a_tiff_is_dicom(tmp_path: Path) -> None:
    preamble = b"II*\0" + bytes(124)
    path = write_dicom(tmp_path / "image.dcm", CT, "1.2.840.10008.1.2.1", preamble)
    with pytest.raises(SlideError, match="a CT image"):
        open_slide(path)
