"""Which files open, and what is said of those that do not."""

import os
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from fixtures.formula import Rgb, formula_rgb, write_aperio, write_levels
from wsisam_qupath.errors import SlideError
from wsisam_qupath.geometry import Box, Mpp
from wsisam_qupath.slide import open_slide
from wsisam_qupath.slide.pyramid import write_pyramid

WIDTH, HEIGHT = 300, 200


@pytest.fixture
def rgb() -> Rgb:
    return formula_rgb(range(WIDTH), range(HEIGHT))


def read_whole(path: Path) -> Rgb:
    with open_slide(path, mpp=0.5) as slide:
        return slide.read(slide.l0_box, slide.width_px, slide.height_px)


def write_ome(path: Path, levels: list[Any], **options: Any) -> None:
    """A tiled OME-TIFF with its lower levels in SubIFDs, 0.5 x 0.25 µm/px."""
    metadata = {
        "PhysicalSizeX": 500,
        "PhysicalSizeXUnit": "nm",
        "PhysicalSizeY": 0.25,
        "PhysicalSizeYUnit": "µm",
        **options.pop("metadata", {}),
    }
    options = {"tile": (64, 64), "photometric": "rgb", **options}
    with tifffile.TiffWriter(path, ome=True) as tiff:
        tiff.write(levels[0], subifds=len(levels) - 1, metadata=metadata, **options)
        for level in levels[1:]:
            tiff.write(level, subfiletype=1, **options)


@pytest.mark.parametrize("suffix", ["png", "bmp"])
def test_plain_images_open_through_pillow(tmp_path: Path, rgb: Rgb, suffix: str) -> None:
    path = tmp_path / f"image.{suffix}"
    Image.fromarray(rgb).save(path)
    with open_slide(path, mpp=0.5) as slide:
        assert slide.reader == "pillow"
    np.testing.assert_array_equal(read_whole(path), rgb)


def test_jpeg_opens_through_pillow(tmp_path: Path) -> None:
    Image.new("RGB", (40, 30), (200, 120, 160)).save(tmp_path / "image.jpg", quality=95)
    region = read_whole(tmp_path / "image.jpg")
    assert region.shape == (30, 40, 3)
    assert np.abs(region - np.array([200.0, 120, 160])).max() <= 2


@pytest.mark.parametrize("planar", ["contig", "separate"])
def test_ome_tiff_shows_its_pyramid_and_pixel_size(tmp_path: Path, rgb: Rgb, planar: str) -> None:
    path = tmp_path / "slide.ome.tif"
    levels = [rgb, np.full((HEIGHT // 2, WIDTH // 2, 3), 99, dtype=np.uint8)]
    if planar == "separate":
        levels = [np.moveaxis(level, -1, 0).copy() for level in levels]
    write_ome(path, levels, planarconfig=planar)
    with open_slide(path) as slide:
        assert slide.reader == "tifffile"
        assert slide.mpp == Mpp(0.5, 0.25)
        assert slide.l0_box == Box(0, 0, WIDTH, HEIGHT)
        np.testing.assert_array_equal(slide.read(slide.l0_box, WIDTH, HEIGHT), rgb)
        np.testing.assert_array_equal(slide.read(Box(70, 30, 170, 90), 100, 60), rgb[30:90, 70:170])
        assert (slide.read(slide.l0_box, WIDTH // 2, HEIGHT // 2) == 99).all()


def test_where_a_level_was_rounded_down_the_last_pixels_are_white(tmp_path: Path) -> None:
    path = tmp_path / "slide.ome.tif"
    write_ome(path, [np.zeros((side, side, 3), dtype=np.uint8) for side in (259, 64)])
    with open_slide(path) as slide:
        region = slide.read(Box(0, 0, 260, 260), 65, 65)
    assert (region[:64, :64] == 0).all()
    assert (region[64] == 255).all()
    assert (region[:, 64] == 255).all()


def test_ome_tiff_in_16_bit_gray_is_scaled_to_8(tmp_path: Path, rgb: Rgb) -> None:
    path = tmp_path / "slide.ome.tif"
    grey = rgb[:, :256, 0]  # a whole number of tiles: QuPath misplaces the rest of others
    write_ome(path, [grey.astype(np.uint16) * 257], photometric="minisblack")
    np.testing.assert_array_equal(read_whole(path), np.stack([grey] * 3, axis=-1))


def test_ome_tiff_with_alpha_lies_on_black_as_in_qupath(tmp_path: Path, rgb: Rgb) -> None:
    path = tmp_path / "slide.ome.tif"
    alpha = np.zeros((HEIGHT, WIDTH, 1), dtype=np.uint8)
    alpha[:, 100:] = 255
    write_ome(path, [np.concatenate([rgb, alpha], axis=-1)], extrasamples=["unassalpha"])
    region = read_whole(path)
    assert (region[:, :100] == 0).all()
    np.testing.assert_array_equal(region[:, 100:], rgb[:, 100:])


@pytest.mark.parametrize("name", ["slide.ome.tif", "slide.tif"])
def test_a_missing_tile_is_black_as_in_qupath(tmp_path: Path, rgb: Rgb, name: str) -> None:
    path = tmp_path / name
    if name == "slide.tif":
        write_levels(path, [rgb])
    else:
        write_ome(path, [rgb])
    with tifffile.TiffFile(path, mode="r+") as tiff:
        counts = tiff.pages[0].tags["TileByteCounts"]
        counts.overwrite([0, *counts.value[1:]])
    region = read_whole(path)
    assert (region[:64, :64] == 0).all()
    np.testing.assert_array_equal(region[:, 64:], rgb[:, 64:])


def test_a_compression_that_openslide_lacks_is_read_through_tifffile(
    tmp_path: Path, rgb: Rgb
) -> None:
    path = tmp_path / "slide.tif"
    tifffile.imwrite(
        path,
        rgb,
        tile=(64, 64),
        photometric="rgb",
        compression="jpeg2000",
        compressionargs={"reversible": True},
        metadata=None,
    )
    with open_slide(path, mpp=0.5) as slide:
        assert slide.reader == "tifffile"
    np.testing.assert_array_equal(read_whole(path), rgb)


@pytest.mark.parametrize(
    ("mode", "value", "expected"),
    [
        ("L", 100, (100, 100, 100)),
        ("1", 1, (255, 255, 255)),
        ("RGBA", (10, 20, 30, 255), (10, 20, 30)),
        ("RGBA", (10, 20, 30, 0), (255, 255, 255)),
        ("RGBA", (55, 155, 255, 51), (215, 235, 255)),
    ],
)
def test_other_png_modes_become_rgb_on_white(
    tmp_path: Path, mode: str, value: Any, expected: tuple[int, int, int]
) -> None:
    Image.new(mode, (20, 10), value).save(tmp_path / "image.png")
    assert (read_whole(tmp_path / "image.png") == expected).all()


def test_a_palette_becomes_rgb_and_its_transparent_colour_white(tmp_path: Path) -> None:
    image = Image.new("P", (20, 10), 1)
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.putpixel((3, 2), 0)
    image.save(tmp_path / "image.png", transparency=0)
    region = read_whole(tmp_path / "image.png")
    assert tuple(region[0, 0]) == (40, 50, 60)
    assert tuple(region[2, 3]) == (255, 255, 255)


@pytest.mark.parametrize(
    ("name", "mode", "value", "what"),
    [
        ("image.jpg", "CMYK", (0, 255, 255, 0), "CMYK colors"),
        ("image.png", "LA", (55, 51), "gray with transparency"),
    ],
)
def test_colors_that_qupath_shows_differently_are_refused(
    tmp_path: Path, name: str, mode: str, value: Any, what: str
) -> None:
    Image.new(mode, (20, 10), value).save(tmp_path / name)
    with pytest.raises(SlideError, match=rf"{what}.*Export it as 8-bit RGB"):
        open_slide(tmp_path / name, mpp=0.5)


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_16_bit_grey_is_scaled_from_its_whole_range(tmp_path: Path, suffix: str) -> None:
    levels = np.arange(0, 256, dtype=np.uint16).reshape(8, 32)
    Image.fromarray(levels * 257).save(tmp_path / f"image.{suffix}")
    region = read_whole(tmp_path / f"image.{suffix}")
    np.testing.assert_array_equal(region, np.stack([levels] * 3, axis=-1))


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(SlideError, match=r"slide\.svs does not exist\. Check where"):
        open_slide(tmp_path / "slide.svs")


def test_a_file_taken_for_a_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(SlideError, match=r"does not exist|cannot be reached"):
        open_slide(tmp_path / "file" / "slide.svs")


def test_a_name_that_no_file_can_have(tmp_path: Path) -> None:
    with pytest.raises(SlideError, match=r"cannot be reached|does not exist"):
        open_slide(tmp_path / ("x" * 5000))


def test_a_folder(tmp_path: Path) -> None:
    with pytest.raises(SlideError, match=r"is a folder or a device\. Pass a slide file"):
        open_slide(tmp_path)


def test_an_empty_file(tmp_path: Path) -> None:
    (tmp_path / "slide.svs").touch()
    with pytest.raises(SlideError, match=r"is empty\. Copy it again"):
        open_slide(tmp_path / "slide.svs")


@pytest.mark.skipif(
    os.name == "nt" or getattr(os, "geteuid", lambda: 0)() == 0,
    reason="permissions bind neither on Windows nor the superuser",
)
def test_a_file_that_may_not_be_read(tmp_path: Path, rgb: Rgb) -> None:
    write_aperio(tmp_path / "slide.svs", rgb, "0.5")
    (tmp_path / "slide.svs").chmod(0)
    with pytest.raises(SlideError, match=r"Change its permissions\."):
        open_slide(tmp_path / "slide.svs")


@pytest.mark.parametrize("name", ["slide.svs", "slide.tif", "image.png", "slide.czi"])
def test_text_under_the_name_of_a_slide(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("no slide at all\n" * 50)
    with pytest.raises(SlideError, match=r"in no format .* from QuPath as OME-TIFF"):
        open_slide(tmp_path / name)


def test_mrxs_without_its_folder(tmp_path: Path) -> None:
    Image.new("RGB", (20, 10)).save(tmp_path / "slide.mrxs", format="JPEG")
    with pytest.raises(SlideError, match="needs the folder slide beside it"):
        open_slide(tmp_path / "slide.mrxs")


@pytest.mark.parametrize("name", ["slide.svs", "slide.ome.tif", "strips.tif", "image.png"])
@pytest.mark.parametrize("kept", [0.02, 0.6, 0.95])
def test_a_truncated_file(tmp_path: Path, rgb: Rgb, name: str, kept: float) -> None:
    path = tmp_path / name
    if name == "slide.svs":
        write_aperio(path, rgb, "0.5")
    elif name == "slide.ome.tif":
        write_ome(path, [rgb])
    else:
        Image.fromarray(rgb).save(path)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * kept)])
    with pytest.raises(SlideError, match=r"Copy it again from its source"):
        read_whole(path)


def test_a_tiff_whose_first_directory_is_nonsense(tmp_path: Path) -> None:
    (tmp_path / "slide.tif").write_bytes(b"II*\0" + b"\x08\0\0\0" + b"\xff" * 200)
    with pytest.raises(SlideError, match=r"damaged or truncated TIFF file\. Copy it again"):
        open_slide(tmp_path / "slide.tif", mpp=0.5)


def test_a_damaged_tile_is_named_when_it_is_read(tmp_path: Path, rgb: Rgb) -> None:
    path = tmp_path / "slide.ome.tif"
    write_ome(path, [rgb], compression="zlib")
    with tifffile.TiffFile(path) as tiff:
        offset = tiff.pages[0].dataoffsets[0]
    content = bytearray(path.read_bytes())
    content[offset : offset + 50] = bytes(50)
    path.write_bytes(content)
    with open_slide(path) as slide:
        whole = slide.read(Box(64, 0, WIDTH, HEIGHT), WIDTH - 64, HEIGHT)
        np.testing.assert_array_equal(whole, rgb[:, 64:])
        with pytest.raises(SlideError, match=r"cannot be read at x 10, y 0 of level 0 "):
            slide.read(Box(10, 0, 20, 10), 10, 10)


@pytest.mark.parametrize(
    ("shape", "axes"), [((2, 200, 300, 3), "ZYXS"), ((5, 200, 300), "CYX"), ((2, 200, 300), "TYX")]
)
def test_a_stack_is_refused(tmp_path: Path, shape: tuple[int, ...], axes: str) -> None:
    path = tmp_path / "stack.ome.tif"
    photometric = "rgb" if axes.endswith("S") else "minisblack"
    write_ome(
        path,
        [np.zeros(shape, dtype=np.uint8)],
        photometric=photometric,
        metadata={"axes": axes},
    )
    with pytest.raises(SlideError, match=r"is a stack of \d planes or channels\. Export"):
        open_slide(path)


@pytest.mark.parametrize(
    ("pixels", "photometric"),
    [
        (np.zeros((200, 300, 5), dtype=np.uint8), "minisblack"),
        (np.zeros((200, 300), dtype=np.float32), "minisblack"),
    ],
    ids=["five-channels", "float"],
)
def test_tiles_that_are_neither_rgb_nor_grey_are_refused(
    tmp_path: Path, pixels: Any, photometric: str
) -> None:
    path = tmp_path / "slide.ome.tif"
    write_ome(path, [pixels], photometric=photometric, planarconfig="contig")
    with pytest.raises(SlideError, match=r"(5 samples|floating-point).*Export it as a tiled"):
        open_slide(path)


def test_gray_values_without_a_range_are_refused(tmp_path: Path) -> None:
    Image.new("F", (20, 10)).save(tmp_path / "image.tif")
    with pytest.raises(SlideError, match=r"no fixed range\. Export it as a tiled 8-bit RGB"):
        open_slide(tmp_path / "image.tif", mpp=0.5)


def test_a_plain_image_beyond_the_limit_is_refused_unread(tmp_path: Path) -> None:
    header = struct.pack(">IIBBBBB", 40_000, 30_000, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", len(header)) + b"IHDR" + header
    crc = struct.pack(">I", zlib.crc32(b"IHDR" + header))
    data = struct.pack(">I", 0) + b"IDAT" + struct.pack(">I", zlib.crc32(b"IDAT"))
    (tmp_path / "bomb.png").write_bytes(b"\x89PNG\r\n\x1a\n" + chunk + crc + data)
    limit = Image.MAX_IMAGE_PIXELS
    with pytest.raises(SlideError, match=r"40000 x 30000 pixels, too many .*OME-TIFF\."):
        open_slide(tmp_path / "bomb.png", mpp=0.5)
    assert limit == Image.MAX_IMAGE_PIXELS


def test_an_image_above_pillows_own_limit_opens_without_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rgb: Rgb
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    Image.fromarray(rgb).save(tmp_path / "image.png")
    np.testing.assert_array_equal(read_whole(tmp_path / "image.png"), rgb)
    assert Image.MAX_IMAGE_PIXELS == 100


def test_an_ordinary_tiled_tiff_opens_through_openslide(tmp_path: Path, rgb: Rgb) -> None:
    write_levels(tmp_path / "levels.tif", [rgb])
    write_pyramid(tmp_path / "pyramid.tif", rgb, mpp=0.5)
    for name in ("levels.tif", "pyramid.tif"):
        with open_slide(tmp_path / name, mpp=0.5) as slide:
            assert slide.reader == "openslide"
