"""Files that state more than they hold, or more than memory holds."""

from __future__ import annotations

import resource
import struct
import subprocess
import sys
import zlib
from dataclasses import replace
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from PIL import Image

from fixtures.plain_grid import png_of
from fixtures.tiff_files import (
    DEFLATE,
    JPEG,
    JPEG2000,
    JPEGXL,
    LERC,
    PNG,
    WEBP,
    ZSTD,
    Page,
    write_tiff,
)
from fixtures.tiff_samples import picture
from wsisam_qupath.errors import SlideError
from wsisam_qupath.geometry import Box
from wsisam_qupath.slide import open_slide, plain_reader
from wsisam_qupath.slide.budget import SEGMENT_BYTES_MAX, Reservations
from wsisam_qupath.slide.codestream import read_stated_size

APERIO = "Aperio Image Library v12\n80x64|AppMag = 40|MPP = 0.5"


def write_huge_tiles(path: Path, description: str | None) -> Path:
    """A file of a few hundred bytes that states tiles of 262144 px."""
    page = Page(picture(), description=description)
    huge = {322: (4, (262144,)), 323: (4, (262144,))}
    return write_tiff(path, [replace(page, more=huge)])


@pytest.mark.parametrize("description", [None, APERIO], ids=["generic", "of a vendor"])
def test_tiles_beyond_the_budget_are_refused_before_openslide_sees_them(
    tmp_path: Path, description: str | None
) -> None:
    path = write_huge_tiles(tmp_path / "slide.svs", description)
    with pytest.raises(SlideError, match=r"tiles of 262144 x 262144 px.*export it with tiles of"):
        open_slide(path, mpp=0.5)


@pytest.mark.parametrize("compression", [JPEG2000, JPEGXL, PNG, WEBP, LERC])
def test_an_image_larger_than_its_tile_is_refused_before_it_is_decoded(
    tmp_path: Path, compression: int
) -> None:
    path = write_tiff(
        tmp_path / "slide.tif",
        [Page(picture(64, 64), compression=compression, tile_px=64, more={322: (3, (32,))})],
    )
    content = path.read_bytes()
    assert struct.pack("<HHIHH", 322, 3, 1, 32, 0) in content
    # Two tiles of 32 x 64 px are stated; each offset leads to an image of 64 x 64 px.
    with pytest.raises(SlideError):
        open_slide(path, mpp=0.5).read(Box(0, 0, 30, 30), 30, 30)


@pytest.mark.parametrize(
    ("compression", "encoded"),
    [
        (JPEG, imagecodecs.jpeg_encode(picture())),
        (JPEG2000, imagecodecs.jpeg2k_encode(picture())),
        (PNG, imagecodecs.png_encode(picture())),
        (WEBP, imagecodecs.webp_encode(picture(), lossless=True)),
        (WEBP, imagecodecs.webp_encode(picture(), level=80)),
        (JPEGXL, imagecodecs.jpegxl_encode(picture(), lossless=True)),
        (LERC, imagecodecs.lerc_encode(picture()[..., 0].copy())),
    ],
)
def test_an_encoded_tile_states_its_size(compression: int, encoded: bytes) -> None:
    assert read_stated_size(bytes(encoded), compression) == (80, 64)


@pytest.mark.parametrize("side", [1, 7, 32, 255, 256, 257, 600])
def test_a_jpeg_xl_tile_of_any_side_states_its_size(side: int) -> None:
    encoded = imagecodecs.jpegxl_encode(np.zeros((side, side + 3, 3), np.uint8), lossless=True)
    assert read_stated_size(bytes(encoded), JPEGXL) == (side + 3, side)


def test_one_compressed_strip_beyond_the_budget_is_refused(tmp_path: Path) -> None:
    path = write_tiff(
        tmp_path / "strip.tif",
        [
            Page(
                picture(),
                compression=ZSTD,
                tile_px=None,
                strip_rows=1000,
                more={256: (4, (60_000,)), 257: (4, (60_000,)), 278: (4, (60_000,))},
            )
        ],
    )
    with pytest.raises(SlideError, match=r"compressed in one piece of 60000 x 60000 px"):
        open_slide(path, mpp=0.5)


def test_rows_of_a_large_strip_without_compression_are_read_alone(tmp_path: Path) -> None:
    side = 12_000
    path = tmp_path / "strip.tif"
    page = Page(
        picture(),
        tile_px=None,
        strip_rows=1000,
        more={
            256: (4, (side,)), 257: (4, (side,)), 278: (4, (side,)),
            273: (4, (4096,)), 279: (4, (side * side * 3,)),
        },
    )  # fmt: skip
    write_tiff(path, [page])
    with path.open("r+b") as file:  # sparse: 432 MB of zeros, and one row of 200s
        file.truncate(4096 + side * side * 3)
        file.seek(4096 + 6000 * side * 3)
        file.write(bytes([200]) * side * 3)
    assert side * side * 3 > SEGMENT_BYTES_MAX
    with open_slide(path, mpp=0.5) as slide:
        region = slide.read(Box(100, 5999, 140, 6002), 40, 3)
    assert region[:, :, 0].tolist() == [[0] * 40, [200] * 40, [0] * 40]


def test_a_large_png_is_converted_once_and_read_in_regions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plain_reader, "HELD_PX_MAX", 1000)
    rgb = picture(700, 600)
    path = tmp_path / "image.png"
    Image.fromarray(rgb).save(path, dpi=(25400, 25400))
    with open_slide(path) as slide:
        assert slide.reader == "libvips"
        assert slide.mpp.x == pytest.approx(1.0, rel=1e-3)
        np.testing.assert_array_equal(slide.read(slide.l0_box, 700, 600), rgb)
    with open_slide(path) as slide:
        box = Box(500, 500, 560, 540)
        np.testing.assert_array_equal(slide.read(box, 60, 40), rgb[500:540, 500:560])


@pytest.mark.parametrize(
    ("name", "mode"),
    [("a.png", "L"), ("a.png", "RGBA"), ("a.png", "P"), ("a.bmp", "RGB"), ("a.jpg", "RGB")],
)
def test_a_converted_image_has_the_pixels_of_a_held_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, mode: str
) -> None:
    image = Image.fromarray(picture(300, 200)).convert(mode)
    if mode == "RGBA":
        image.putalpha(128)
    path = tmp_path / name
    image.save(path)
    with open_slide(path, mpp=0.5) as slide:
        held = slide.read(slide.l0_box, 300, 200)
    monkeypatch.setattr(plain_reader, "HELD_PX_MAX", 1000)
    with open_slide(path, mpp=0.5) as slide:
        assert slide.reader == "libvips"
        converted = slide.read(slide.l0_box, 300, 200)
    assert np.abs(converted.astype(int) - held).max() <= 1


def test_a_damaged_large_image_is_called_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plain_reader, "HELD_PX_MAX", 1000)
    path = tmp_path / "image.png"
    Image.fromarray(picture(700, 600)).save(path)
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(SlideError, match=r"is damaged .*Copy it again"):
        open_slide(path, mpp=0.5)


_OPEN = """
import re, resource, sys
from pathlib import Path
from wsisam_qupath.errors import SlideError
from wsisam_qupath.slide import open_slide
from wsisam_qupath.geometry import Box
try:
    with open_slide(sys.argv[1], mpp=0.5) as slide:
        slide.read(Box(5000, 5000, 5500, 5500), 500, 500)
except SlideError as exc:
    print(exc)
# Not ru_maxrss, which a process has from the one that started it.
print(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in KiB on Linux alone")
def test_a_small_png_of_many_pixels_takes_little_memory(tmp_path: Path, cache: Path) -> None:
    side = 20_000
    row = b"\0" + bytes([255, 0, 0]) * side
    packer = zlib.compressobj(9)
    packed = b"".join(packer.compress(row) for _ in range(side)) + packer.flush()
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    path = tmp_path / "bomb.png"
    path.write_bytes(png_of((b"IHDR", header), (b"IDAT", packed), (b"IEND", b"")))
    done = subprocess.run(
        [sys.executable, "-c", _OPEN, str(path)], capture_output=True, text=True, check=True
    )
    own, child = map(int, done.stdout.split()[-2:])
    assert path.stat().st_size < 6_000_000
    assert max(own, child) < 1_000_000  # KiB; decoded it has 1.2 GB


def test_what_can_never_fit_is_refused_and_the_rest_waits_its_turn() -> None:
    reservations = Reservations(100)
    with pytest.raises(SlideError, match="more than the"), reservations.reserve(101):
        pass
    with reservations.reserve(60), reservations.reserve(40):
        pass
    with reservations.reserve(100):
        pass


def test_the_soft_limit_of_this_process_is_left_as_it_was() -> None:
    """The process that opens unknown files limits itself, not its driver."""
    assert resource.getrlimit(resource.RLIMIT_AS)[0] in (
        resource.RLIM_INFINITY,
        resource.getrlimit(resource.RLIMIT_AS)[1],
    )


def test_a_deflate_tile_that_holds_more_than_it_states_is_refused(tmp_path: Path) -> None:
    page = Page(picture(64, 64), compression=DEFLATE, tile_px=64)
    path = write_tiff(tmp_path / "slide.ome.tif", [page])
    content = path.read_bytes()
    small = struct.pack("<HHIHH", 322, 3, 1, 16, 0) + struct.pack("<HHIHH", 323, 3, 1, 16, 0)
    large = struct.pack("<HHIHH", 322, 3, 1, 64, 0) + struct.pack("<HHIHH", 323, 3, 1, 64, 0)
    assert large in content
    path.write_bytes(content.replace(large, small))
    with pytest.raises(SlideError, match=r"damaged or truncated"):
        open_slide(path, mpp=0.5)
