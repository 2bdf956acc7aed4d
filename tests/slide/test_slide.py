import gc
import pickle
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from fixtures.formula import (
    FormulaReader,
    Rgb,
    averaged,
    formula_rgb,
    shift_l0_px,
    waves_rgb,
    write_leica,
    write_levels,
)
from wsisam_qupath.errors import SlideError
from wsisam_qupath.geometry import Box, Mpp
from wsisam_qupath.slide import Bounds, Slide, SlideIdentity, SlideReference, Window, open_slide
from wsisam_qupath.slide.pyramid import write_pyramid
from wsisam_qupath.slide.resample import Axis, resample

ROUNDING = 0.501
"""Grey values: half a unit, and what 32-bit sums lose."""

WIDTH, HEIGHT = 97, 61


@pytest.fixture
def rgb() -> Rgb:
    return formula_rgb(range(WIDTH), range(HEIGHT))


@pytest.fixture
def slide(tmp_path: Path, rgb: Rgb) -> Iterator[Slide]:
    """One level, through OpenSlide."""
    write_pyramid(tmp_path / "slide.tif", rgb, mpp=0.5)
    with open_slide(tmp_path / "slide.tif") as opened:
        yield opened


def of_reader(reader: FormulaReader) -> Slide:
    return Slide(
        reader,
        mpp=Mpp(0.5, 0.5),
        reference=SlideReference("/formula.tif"),
        identity=SlideIdentity("/formula.tif", 1, 1),
    )


def test_the_whole_slide_at_its_own_scale_is_the_image(slide: Slide, rgb: Rgb) -> None:
    region = slide.read(slide.l0_box, WIDTH, HEIGHT)
    np.testing.assert_array_equal(region, rgb)
    assert region.dtype == np.uint8
    assert region.flags.c_contiguous


def test_a_crop_has_x_to_the_right_and_y_down(slide: Slide, rgb: Rgb) -> None:
    region = slide.read(Box(30, 7, 70, 27), 40, 20)
    np.testing.assert_array_equal(region, rgb[7:27, 30:70])


@pytest.mark.parametrize(
    ("l0_box", "width", "height"),
    [
        (Box(0, 0, 96, 60), 48, 30),
        (Box(0.5, 0.25, 90.5, 60.25), 90, 60),
        (Box(3.3, 2.9, 83.46, 52.9), 80, 50),
        (Box(1, 1, 61, 46), 40, 30),
        (Box(2.2, 1.7, 95.1, 59.9), 25, 15),
        (Box(0, 0, WIDTH, HEIGHT), 1, 1),
        (Box(4.5, 3, 94.5, 58), 30, 50),
    ],
    ids=["half", "shifted", "near-1", "1.5", "odd", "one-pixel", "anisotropic"],
)
def test_a_smaller_region_is_the_exact_average_of_its_area(
    slide: Slide, rgb: Rgb, l0_box: Box, width: int, height: int
) -> None:
    region = slide.read(l0_box, width, height)
    assert np.abs(region - averaged(rgb, l0_box, width, height)).max() <= ROUNDING


@pytest.mark.parametrize(
    ("l0_box", "width", "height"),
    [
        (Box(10, 10, 40, 30), 60, 40),
        (Box(10.4, 5.2, 30.9, 22.1), 77, 55),
        (Box(10.4, 5.2, 30.9, 45.2), 77, 20),
        (Box(-2, -3, WIDTH + 2, HEIGHT + 1), 300, 200),
    ],
    ids=["double", "odd", "x-larger-y-smaller", "over-the-edge"],
)
def test_a_larger_region_is_interpolated_between_pixel_centres(
    slide: Slide, rgb: Rgb, l0_box: Box, width: int, height: int
) -> None:
    region = slide.read(l0_box, width, height)
    assert np.abs(region - averaged(rgb, l0_box, width, height)).max() <= ROUNDING


def test_outside_of_the_slide_is_white_to_the_fraction_of_a_pixel(slide: Slide, rgb: Rgb) -> None:
    l0_box = Box(-10.25, -5.5, WIDTH + 7.75, HEIGHT + 8.5)
    region = slide.read(l0_box, 115, 75)
    assert np.abs(region - averaged(rgb, l0_box, 115, 75)).max() <= ROUNDING
    assert (region[:5] == 255).all()
    assert (region[:, :10] == 255).all()


@pytest.mark.parametrize(
    "l0_box",
    [
        Box(-50, 10, 0, 40),
        Box(WIDTH, 10, WIDTH + 50, 40),
        Box(10, -50, 40, 0),
        Box(10, HEIGHT, 40, HEIGHT + 1e6),
        Box(-1e9, -1e9, -1e8, -1e8),
    ],
)
def test_a_region_beside_the_slide_is_all_white(slide: Slide, l0_box: Box) -> None:
    assert (slide.read(l0_box, 13, 11) == 255).all()


@pytest.mark.parametrize(
    ("downsample", "level"),
    [(0.5, 0), (1, 0), (1.99, 0), (2, 1), (3.9, 1), (4, 2), (7.9, 2), (8, 3), (500, 3)],
)
def test_the_coarsest_level_that_is_fine_enough_is_read(
    tmp_path: Path, downsample: float, level: int
) -> None:
    greys = [np.full((512 >> k, 768 >> k, 3), 50 * k, dtype=np.uint8) for k in range(4)]
    write_levels(tmp_path / "greys.tif", greys)
    with open_slide(tmp_path / "greys.tif", mpp=0.5) as slide:
        region = slide.read(Box(9, 9, 9 + downsample, 9 + downsample), 1, 1)
    assert region[0, 0, 0] == 50 * level


@pytest.mark.parametrize("l0_box", [Box(0, 0, 400, 200), Box(0, 0, 200, 400)])
def test_the_finer_axis_chooses_the_level(tmp_path: Path, l0_box: Box) -> None:
    greys = [np.full((512 >> k, 768 >> k, 3), 50 * k, dtype=np.uint8) for k in range(3)]
    write_levels(tmp_path / "greys.tif", greys)
    with open_slide(tmp_path / "greys.tif", mpp=0.5) as slide:
        region = slide.read(l0_box, 100, 100)
    assert (region == 50).all()


@pytest.mark.parametrize("downsample", [2, 2.1, 4, 6, 8.5])
@pytest.mark.parametrize("sizes", ["up", "down", "resized"])
def test_odd_levels_shift_nothing_at_the_far_corner(
    tmp_path: Path, downsample: float, sizes: str
) -> None:
    rgb = waves_rgb(1019, 763)
    write_levels(tmp_path / "odd.tif", levels_of(rgb, sizes))
    l0_box = Box(1000 - 30 * downsample, 750 - 20 * downsample, 1000, 750)
    with open_slide(tmp_path / "odd.tif", mpp=0.5) as slide:
        region = slide.read(l0_box, 30, 20)
    # What roundings to 8 bits leave; reading by the ratio of the sizes would give up to 1 px.
    assert np.abs(shift_l0_px(region, rgb, l0_box)).max() < 0.15


def levels_of(rgb: Rgb, sizes: str) -> list[Rgb]:
    """Averages over 2 x 2 px and so on, the sizes rounded; or resized by other factors."""
    image = Image.fromarray(rgb)
    width, height = image.size
    levels = [image]
    for factor in (2, 4, 8):
        box = (0, 0, width // factor * factor, height // factor * factor)
        if sizes == "up":
            levels.append(image.reduce(factor))
        elif sizes == "down":
            levels.append(image.reduce(factor, box))
        else:
            size = (round(width / factor / 1.2), round(height / factor / 1.2))
            levels.append(image.resize(size, Image.Resampling.BILINEAR))
    return [np.asarray(level, dtype=np.uint8) for level in levels]


@pytest.mark.parametrize("offset", [(300, 200), (301, 203)])
def test_zero_is_the_corner_of_the_bounds_as_in_qupath(
    tmp_path: Path, offset: tuple[int, int]
) -> None:
    width, height = 400, 240
    rgb = waves_rgb(width, height)
    levels = [rgb, np.asarray(Image.fromarray(rgb).reduce(2), dtype=np.uint8)]
    write_leica(tmp_path / "slide.scn", levels, offset)
    with open_slide(tmp_path / "slide.scn", mpp=0.5) as slide:
        assert slide.reader == "openslide"
        assert slide.l0_box == Box(0, 0, width, height)
        np.testing.assert_array_equal(slide.read(slide.l0_box, width, height), rgb)
        half = slide.read(slide.l0_box, width // 2, height // 2)
        over_the_edge = slide.read(Box(-10, -20, width, height), width + 10, height + 20)
    np.testing.assert_array_equal(half, levels[1])
    np.testing.assert_array_equal(over_the_edge[20:, 10:], rgb)
    assert (over_the_edge[:20] == 255).all()
    assert (over_the_edge[:, :10] == 255).all()


def test_what_a_file_holds_outside_of_the_bounds_is_white() -> None:
    slide = of_reader(FormulaReader(200, 150, Bounds(37, 21, 100, 80)))
    region = slide.read(Box(-5, -5, 105, 85), 110, 90)
    np.testing.assert_array_equal(region[5:85, 5:105], formula_rgb(range(37, 137), range(21, 101)))
    region[5:85, 5:105] = 255
    assert (region == 255).all()


@pytest.mark.slow
def test_a_read_in_tiles_is_the_read_in_one_shot() -> None:
    width, height = 3103, 2801
    reader = FormulaReader(width, height)
    region = of_reader(reader).read(Box(-3.7, 2.2, 3110.1, 2799.9), 1203, 611)
    assert len(reader.window_sizes_px) > 1
    x_axis = Axis(-3.7, 3110.1, 1203, 0, width)
    y_axis = Axis(2.2, 2799.9, 611, 0, height)
    window = Window(formula_rgb(range(width), range(height)), 0, 0)
    one_shot = resample(window, x_axis, y_axis, range(1203), range(611))
    np.testing.assert_array_equal(region, one_shot)


@pytest.mark.parametrize(
    ("l0_box", "width", "height"),
    [(Box(0, 0, 30000, 200), 60, 7), (Box(0, 0, 4000, 3000), 3, 2)],
)
def test_at_most_64_mb_of_source_are_in_memory(l0_box: Box, width: int, height: int) -> None:
    reader = FormulaReader(40_000, 40_000)
    of_reader(reader).read(l0_box, width, height)
    assert max(reader.window_sizes_px) * 4 <= 64 * 2**20
    assert sum(reader.window_sizes_px) <= 1.1 * l0_box.width * l0_box.height


@pytest.mark.parametrize("name", ["slide.tif", "slide.ome.tif", "slide.png"])
def test_eight_threads_read_the_same(tmp_path: Path, name: str) -> None:
    rgb = formula_rgb(range(700), range(500))
    path = tmp_path / name
    if name == "slide.tif":
        write_pyramid(path, rgb, mpp=0.5)
    elif name == "slide.png":
        Image.fromarray(rgb).save(path)
    else:
        tifffile.imwrite(path, rgb, photometric="rgb", tile=(64, 64), compression="zlib", ome=True)
    boxes = [Box(17 * k, 11 * k, 17 * k + 128, 11 * k + 128) for k in range(30)]
    with open_slide(path, mpp=0.5) as slide, ThreadPoolExecutor(8) as pool:
        regions = list(pool.map(lambda box: slide.read(box, 128, 128), boxes * 8))
    for box, region in zip(boxes * 8, regions, strict=True):
        x, y = int(box.x0), int(box.y0)
        expected = np.full((128, 128, 3), 255, dtype=np.uint8)
        inside = rgb[y : y + 128, x : x + 128]
        expected[: inside.shape[0], : inside.shape[1]] = inside
        np.testing.assert_array_equal(region, expected)


@pytest.mark.parametrize(
    ("l0_box", "width", "height"),
    [
        (Box(0, 0, 10, 10), 0, 5),
        (Box(0, 0, 10, 10), 5, -1),
        (Box(10, 0, 10, 10), 5, 5),
        (Box(0, 10, 10, 0), 5, 5),
        (Box(0, 0, float("nan"), 10), 5, 5),
        (Box(0, 0, 10, float("inf")), 5, 5),
    ],
)
def test_a_region_without_area_is_refused(
    slide: Slide, l0_box: Box, width: int, height: int
) -> None:
    with pytest.raises(ValueError, match="no area"):
        slide.read(l0_box, width, height)


def test_a_reference_opens_the_same_slide_in_another_process(slide: Slide) -> None:
    reference = pickle.loads(pickle.dumps(slide.reference))
    with reference.open() as again:
        assert again.identity == slide.identity
        assert again.mpp == slide.mpp
        assert hash(again.identity) == hash(slide.identity)


def test_a_reference_keeps_the_users_own_pixel_size(slide: Slide) -> None:
    with open_slide(slide.uri, mpp=0.31) as other, other.reference.open() as again:
        assert again.mpp == Mpp(0.31, 0.31)


def test_another_file_in_the_same_place_has_another_identity(tmp_path: Path) -> None:
    path = tmp_path / "slide.tif"
    write_pyramid(path, waves_rgb(30, 20), mpp=0.5)
    with open_slide(path) as slide:
        first = slide.identity
    write_pyramid(path, waves_rgb(31, 20), mpp=0.5)
    with open_slide(path) as slide:
        assert slide.identity != first


def test_location_and_uri_are_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_pyramid(tmp_path / "a b ü.tif", waves_rgb(30, 20), mpp=0.5)
    monkeypatch.chdir(tmp_path)
    with open_slide("a b ü.tif") as slide:
        assert Path(slide.location) == Path.cwd() / "a b ü.tif"
        assert slide.uri.startswith("file:///")
        assert slide.uri.endswith("/a%20b%20%C3%BC.tif")
        with open_slide(slide.uri) as same:
            assert same.location == slide.location


def test_the_reader_is_closed_at_the_end_of_the_block_and_only_once() -> None:
    reader = FormulaReader(10, 10)
    with of_reader(reader) as slide:
        assert not reader.is_closed
    assert reader.is_closed
    reader.is_closed = False
    slide.close()
    assert not reader.is_closed


def test_the_reader_is_closed_with_the_last_reference() -> None:
    reader = FormulaReader(10, 10)
    slide = of_reader(reader)
    del slide
    gc.collect()
    assert reader.is_closed


def test_a_region_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    path = tmp_path / "slide.tif"
    noise = np.random.default_rng(0).integers(0, 256, (400, 600, 3), dtype=np.uint8)
    write_pyramid(path, noise, mpp=0.5, tile_px=64)
    content = bytearray(path.read_bytes())
    middle = len(content) // 3
    content[middle : middle + 30_000] = bytes(30_000)
    path.write_bytes(content)
    with (
        open_slide(path) as slide,
        pytest.raises(SlideError, match=r"slide\.tif cannot be read at"),
    ):
        slide.read(slide.l0_box, 600, 400)
