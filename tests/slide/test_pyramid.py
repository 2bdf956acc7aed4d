from pathlib import Path

import numpy as np
import openslide
import pytest

from fixtures.formula import formula_rgb, waves_rgb
from wsisam_qupath.errors import OptionError, OutputError
from wsisam_qupath.slide import open_slide
from wsisam_qupath.slide.pyramid import write_pyramid


@pytest.mark.parametrize("mpp", [0.02, 0.121, 0.25, 0.499, 1 / 3, 50.0])
def test_the_pixel_size_is_read_back(tmp_path: Path, mpp: float) -> None:
    path = tmp_path / "slide.tif"
    write_pyramid(path, formula_rgb(range(70), range(50)), mpp=mpp)
    with open_slide(path) as slide:
        assert slide.mpp.x == pytest.approx(mpp, rel=1e-3)
        assert slide.mpp.y == pytest.approx(mpp, rel=1e-3)


def test_openslide_sees_halved_levels_with_exact_averages(tmp_path: Path) -> None:
    rgb = formula_rgb(range(601), range(333))
    path = tmp_path / "slide.tif"
    write_pyramid(path, rgb, mpp=0.5, tile_px=128)
    blocks = rgb[:332, :600].astype(float).reshape(83, 4, 150, 4, 3).mean(axis=(1, 3))
    with openslide.OpenSlide(path) as slide:
        assert slide.properties["openslide.vendor"] == "generic-tiff"
        assert slide.level_dimensions == ((601, 333), (301, 167), (151, 84), (76, 42))
        level_0 = np.asarray(slide.read_region((0, 0), 0, (601, 333)).convert("RGB"))
        level_2 = np.asarray(slide.read_region((0, 0), 2, (151, 84)).convert("RGB"))
    np.testing.assert_array_equal(level_0, rgb)
    assert np.abs(level_2[:83, :150] - blocks).max() <= 0.5
    edge = rgb[:4, 600].astype(float).mean(axis=0)
    assert np.abs(level_2[0, 150] - edge).max() <= 0.5


def test_an_image_of_one_tile_has_one_level(tmp_path: Path) -> None:
    path = tmp_path / "slide.tif"
    write_pyramid(path, waves_rgb(256, 256), mpp=0.5)
    with openslide.OpenSlide(path) as slide:
        assert slide.level_count == 1


def test_a_file_that_is_there_is_replaced_and_nothing_else_is_left(tmp_path: Path) -> None:
    path = tmp_path / "slide.tif"
    path.write_bytes(b"old")
    write_pyramid(path, waves_rgb(20, 10), mpp=0.5)
    assert list(tmp_path.iterdir()) == [path]
    with open_slide(path) as slide:
        assert (slide.width_px, slide.height_px) == (20, 10)


def test_a_missing_folder_is_an_output_error(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="There is no folder"):
        write_pyramid(tmp_path / "no" / "slide.tif", waves_rgb(20, 10), mpp=0.5)


def test_a_failed_write_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "slide.tif").mkdir()
    with pytest.raises(OutputError, match="is a folder"):
        write_pyramid(tmp_path / "slide.tif", waves_rgb(20, 10), mpp=0.5)
    assert [entry.name for entry in tmp_path.iterdir()] == ["slide.tif"]


@pytest.mark.parametrize("mpp", [0.0, -1.0, 0.019, 51.0, float("nan"), float("inf")])
def test_a_pixel_size_that_could_not_be_read_back_is_refused(tmp_path: Path, mpp: float) -> None:
    with pytest.raises(OptionError, match=r"choose from 0\.02 to 50"):
        write_pyramid(tmp_path / "slide.tif", waves_rgb(20, 10), mpp=mpp)


@pytest.mark.parametrize("tile_px", [0, -16, 8, 100])
def test_tiles_that_tiff_does_not_allow_are_refused(tmp_path: Path, tile_px: int) -> None:
    with pytest.raises(OptionError, match="multiple of 16"):
        write_pyramid(tmp_path / "slide.tif", waves_rgb(20, 10), mpp=0.5, tile_px=tile_px)


def test_an_array_that_is_not_rgb_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not HWC uint8 RGB"):
        write_pyramid(tmp_path / "slide.tif", np.zeros((4, 4), dtype=np.uint8), mpp=0.5)
