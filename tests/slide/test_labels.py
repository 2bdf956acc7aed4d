"""Masks of labels, read by tifffile: each pixel has the smallest outline around its center."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import shapely
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from shapely.geometry import MultiPolygon, Point, Polygon, box

from wsisam_qupath.errors import OutputError
from wsisam_qupath.geometry import Mpp
from wsisam_qupath.geometry.raster import find_inside
from wsisam_qupath.slide import calibration
from wsisam_qupath.slide.labels import write_labels

WIDTH, HEIGHT = 1300, 700
OUTLINES = (
    Point(500, 300).buffer(90),
    Point(560, 300).buffer(80),  # overlaps the first
    Point(480, 280).buffer(20),  # lies in it
    Point(580, 320).buffer(80),  # as large as the second
    box(100.4, 100.4, 400, 400).difference(box(200, 200, 300, 300)),
    MultiPolygon([box(1000, 0, 1100, 52), box(1200, 600, 1300, 700)]),
    box(-50, -50, 20, 20),  # partly beside the slide
    box(7.6, 50, 8.4, 90),  # holds no center
    Polygon([(1029.3, 400), (1219.7, 460.2), (1021.1, 520.9)]),
)


def draw(step: int) -> np.ndarray:
    """By the definition, each outline at each center."""
    shape = -(-HEIGHT // step), -(-WIDTH // step)
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    mask = np.zeros(shape, int)
    numbered = sorted(enumerate(OUTLINES, start=1), key=lambda one: (-round(one[1].area), -one[0]))
    for number, outline in numbered:
        inside = shapely.contains_xy(outline, (columns + 0.5) * step, (rows + 0.5) * step)
        mask[inside] = number
    return mask


def write(path: Path, *outlines: Polygon | MultiPolygon, **size: int) -> Path:
    given = {"width_px": WIDTH, "height_px": HEIGHT, **size}
    write_labels(path, outlines, **given, mpp=Mpp(0.25, 0.5))
    return path


def test_each_level_has_the_number_of_the_smallest_outline_around_each_center(
    tmp_path: Path,
) -> None:
    path = write(tmp_path / "a.ome.tif", *OUTLINES)

    with tifffile.TiffFile(path) as tiff:
        (series,) = tiff.series
        levels = [level.asarray() for level in series.levels]
        page = tiff.pages.first

    assert [level.shape for level in levels] == [(700, 1300), (350, 650), (175, 325)]
    assert {level.dtype for level in levels} == {np.dtype("uint16")}
    assert (page.tilewidth, page.tilelength, page.is_ome, tiff.is_bigtiff) == (512, 512, True, True)
    for number, level in enumerate(levels):
        assert np.array_equal(level, draw(2**number)), number
    assert set(np.unique(levels[0])) == {0, 1, 2, 3, 4, 5, 6, 7, 9}


def test_the_pixel_size_is_in_the_ome_xml_and_in_the_tags(tmp_path: Path) -> None:
    path = write(tmp_path / "a.ome.tif")

    with tifffile.TiffFile(path) as tiff:
        assert tiff.ome_metadata is not None
        assert calibration.from_ome(tiff.ome_metadata) == Mpp(0.25, 0.5)
        of_levels = [level.pages[0].resolution for level in tiff.series[0].levels]

    assert of_levels[0] == (40_000, 20_000)
    assert of_levels[1] == (20_000, 10_000)


@pytest.mark.slow
def test_many_outlines_get_32_bits(tmp_path: Path) -> None:
    squares = [box(x, y, x + 1, y + 1) for y in range(260) for x in range(260)]

    path = write(tmp_path / "a.ome.tif", *squares, width_px=260, height_px=260)

    mask = tifffile.imread(path)
    assert mask.dtype == np.uint32
    assert np.array_equal(mask.ravel(), np.arange(1, 260 * 260 + 1))


@pytest.mark.slow
def test_memory_does_not_grow_with_the_slide(tmp_path: Path) -> None:
    tracemalloc.start()
    try:
        size = {"width_px": 20_000, "height_px": 16_000}
        path = write(tmp_path / "a.ome.tif", *OUTLINES, **size)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak_bytes < 16 << 20  # the mask has 640 MB
    with tifffile.TiffFile(path) as tiff:
        assert tiff.series[0].shape == (16_000, 20_000)
        assert tiff.series[0].levels[-1].shape == (250, 313)


def test_a_file_that_cannot_be_written_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="There is no folder"):
        write(tmp_path / "none" / "a.ome.tif")


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(st.floats(-5, 25), st.floats(-5, 25)), min_size=3, max_size=8),
    st.sampled_from([1, 2, 4]),
)
def test_a_raster_finds_the_centers_that_lie_inside(
    corners: list[tuple[float, float]], step: int
) -> None:
    polygon = shapely.buffer(shapely.convex_hull(shapely.MultiPoint(corners)), 0.37)
    x, y = np.meshgrid((np.arange(3, 12) + 0.5) * step, (np.arange(1, 8) + 0.5) * step)
    on_edge = shapely.distance(polygon.exterior, shapely.points(x, y)) < 1e-6

    found = find_inside(polygon, 3, 1, 9, 7, step)

    assert np.array_equal(found[~on_edge], shapely.contains_xy(polygon, x, y)[~on_edge])
