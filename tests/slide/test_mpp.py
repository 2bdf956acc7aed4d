"""At which pixel size slides open."""

import re
from pathlib import Path

import pytest
import tifffile
from PIL import Image

from fixtures.formula import Rgb, formula_rgb, write_aperio
from wsisam_qupath.errors import OptionError, SlideError
from wsisam_qupath.geometry import Mpp
from wsisam_qupath.slide import open_slide
from wsisam_qupath.slide.calibration import from_ome, from_resolution, parse_mpp

UNSTATED = re.escape(
    "states no pixel size: give its µm per pixel as mpp, e.g. 0.25 for a 40x scan."
)


@pytest.fixture
def rgb() -> Rgb:
    return formula_rgb(range(300), range(200))


@pytest.mark.parametrize("mpp", ["0.2527", "0,2527"])
def test_the_pixel_size_of_an_aperio_header(tmp_path: Path, rgb: Rgb, mpp: str) -> None:
    write_aperio(tmp_path / "slide.svs", rgb, mpp)
    with open_slide(tmp_path / "slide.svs") as slide:
        assert slide.reader == "openslide"
        assert slide.mpp == Mpp(0.2527, 0.2527)


def test_a_header_without_pixel_size_names_the_option(tmp_path: Path, rgb: Rgb) -> None:
    write_aperio(tmp_path / "slide.svs", rgb, None)
    with pytest.raises(SlideError, match=UNSTATED):
        open_slide(tmp_path / "slide.svs")


@pytest.mark.parametrize("mpp", [0.01, 0.31, 100])
def test_the_users_pixel_size_wins(tmp_path: Path, rgb: Rgb, mpp: float) -> None:
    write_aperio(tmp_path / "slide.svs", rgb, "0.5")
    with open_slide(tmp_path / "slide.svs", mpp=mpp) as slide:
        assert slide.mpp == Mpp(mpp, mpp)


@pytest.mark.parametrize("mpp", [0.0, -0.25, 0.009, 100.1, float("nan"), float("inf")])
def test_a_users_pixel_size_out_of_range_is_refused(tmp_path: Path, mpp: float) -> None:
    with pytest.raises(OptionError, match=r"from 0\.01 to 100"):
        open_slide(tmp_path / "need-not-exist.svs", mpp=mpp)


def test_tiff_resolution_may_differ_between_the_axes(tmp_path: Path, rgb: Rgb) -> None:
    path = tmp_path / "image.tif"
    tifffile.imwrite(
        path, rgb, photometric="rgb", resolution=(20_000, 10_000), resolutionunit="CENTIMETER"
    )
    with open_slide(path) as slide:
        assert slide.mpp == Mpp(0.5, 1.0)


def test_imagej_states_its_unit_in_words(tmp_path: Path, rgb: Rgb) -> None:
    path = tmp_path / "image.tif"
    tifffile.imwrite(path, rgb, imagej=True, resolution=(4, 4), metadata={"unit": "micron"})
    with open_slide(path) as slide:
        assert slide.mpp == Mpp(0.25, 0.25)


def test_png_states_pixels_per_metre(tmp_path: Path, rgb: Rgb) -> None:
    Image.fromarray(rgb).save(tmp_path / "image.png", dpi=(50_800, 50_800))
    with open_slide(tmp_path / "image.png") as slide:
        assert slide.mpp.x == pytest.approx(0.5, rel=1e-3)


@pytest.mark.parametrize("dpi", [72, 96, 300])
@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "tif"])
def test_screen_and_print_resolutions_state_nothing(
    tmp_path: Path, rgb: Rgb, suffix: str, dpi: int
) -> None:
    path = tmp_path / f"image.{suffix}"
    Image.fromarray(rgb).save(path, dpi=(dpi, dpi))
    with pytest.raises(SlideError, match=UNSTATED):
        open_slide(path)


@pytest.mark.parametrize(
    ("x", "y", "expected"),
    [
        ("0.25", "0.26", Mpp(0.25, 0.26)),
        (" 0,25 ", None, Mpp(0.25, 0.25)),
        (None, 0.5, Mpp(0.5, 0.5)),
        ("353", "0.5", Mpp(0.5, 0.5)),
        ("0", "0", None),
        ("-0.5", "nan", None),
        ("inf", "unknown", None),
        ("0.019", "50.1", None),
    ],
)
def test_what_of_a_header_is_believed(x: object, y: object, expected: Mpp | None) -> None:
    assert parse_mpp(x, y) == expected


@pytest.mark.parametrize(
    ("x", "y", "unit", "expected"),
    [
        (20_000, "20000", "centimeter", Mpp(0.5, 0.5)),
        (50_800, 0, "inch", Mpp(0.5, 0.5)),
        (4, 2, "\N{GREEK SMALL LETTER MU}m", Mpp(0.25, 0.5)),
        (4, 4, r"\u00B5m", Mpp(0.25, 0.25)),
        (4, 4, "pixel", None),
        (1, 1, "none", None),
        (None, None, "inch", None),
    ],
)
def test_pixels_per_unit(x: object, y: object, unit: str, expected: Mpp | None) -> None:
    assert from_resolution(x, y, unit) == expected


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ('PhysicalSizeX="0.25" PhysicalSizeY="0.5"', Mpp(0.25, 0.5)),
        ('PhysicalSizeX="250" PhysicalSizeXUnit="nm"', Mpp(0.25, 0.25)),
        ('PhysicalSizeX="0.00025" PhysicalSizeXUnit="mm"', Mpp(0.25, 0.25)),
        ('PhysicalSizeX="2500" PhysicalSizeXUnit="Å"', Mpp(0.25, 0.25)),
        ('PhysicalSizeX="0.25" PhysicalSizeXUnit="pixel"', None),
        ('PhysicalSizeX="1000"', None),
        ("", None),
    ],
)
def test_ome_xml(attributes: str, expected: Mpp | None) -> None:
    xml = (
        '<?xml version="1.0" encoding="UTF-8"?><OME xmlns="http://www.openmicroscopy.org/'
        f'Schemas/OME/2016-06"><Image><Pixels {attributes}/></Image></OME>'
    )
    assert from_ome(xml) == expected


@pytest.mark.parametrize("xml", ["", "<OME", "<OME/>"])
def test_ome_xml_without_pixels_states_nothing(xml: str) -> None:
    assert from_ome(xml) is None
