"""Tiles show what the slide's reader reads, wherever they lie."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fixtures.servers import Client, json_of, problem_name
from fixtures.viewing import about, viewing
from wsisam_qupath.geometry import Box
from wsisam_qupath.server.viewer.tiles import TILE_PX, TileName, TilePyramid, Tiles, encode_jpeg
from wsisam_qupath.slide import open_slide
from wsisam_qupath.slide.pyramid import write_pyramid


@pytest.fixture(scope="module")
def slide_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Waves of 700 x 300 px, so that no two tiles are alike, and the edges are no whole tiles."""
    y, x = np.mgrid[0:300, 0:700]
    waves = [128 + 100 * np.sin(x / a + y / b) for a, b in ((19, 31), (37, 23), (53, 41))]
    path = tmp_path_factory.mktemp("tiles") / "waves.tif"
    write_pyramid(path, np.stack(waves, axis=2).astype(np.uint8), mpp=0.5)
    return path


@pytest.fixture(scope="module")
def client(slide_path: Path) -> Client:
    return viewing(slide_path)[0]


def pixels_of(content: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(content)) as image:
        assert image.format == "JPEG"
        return np.asarray(image.convert("RGB"))


def test_the_levels_are_those_of_deepzoom() -> None:
    pyramid = TilePyramid(700, 300)

    sizes = [pyramid.size_px(level) for level in range(pyramid.top_level + 1)]

    assert sizes[-3:] == [(175, 75), (350, 150), (700, 300)]
    assert (sizes[0], len(sizes)) == ((1, 1), 11)
    assert pyramid.first_level == 8
    assert TilePyramid(1, 1).top_level == 0
    assert TilePyramid(1024, 7).top_level == 10
    assert TilePyramid(1025, 7).top_level == 11


def test_the_tiles_of_a_level_cover_it_once() -> None:
    pyramid = TilePyramid(700, 300)
    places = [
        place
        for column in range(4)
        for row in range(3)
        if (place := pyramid.place(TileName(10, column, row))) is not None
    ]

    assert sum(place.width_px * place.height_px for place in places) == 700 * 300
    assert {(place.width_px, place.height_px) for place in places} == {
        (256, 256), (256, 44), (188, 256), (188, 44),
    }  # fmt: skip


@pytest.mark.parametrize("tile", [(10, 0, 0), (10, 2, 1), (9, 1, 0), (8, 0, 0)])
def test_a_tile_has_the_pixels_of_the_region_as_the_reader_reads_it(
    client: Client, slide_path: Path, tile: tuple[int, int, int]
) -> None:
    level, column, row = tile
    l0_step = 1 << (10 - level)
    x, y = column * TILE_PX * l0_step, row * TILE_PX * l0_step
    width, height = TilePyramid(700, 300).size_px(level)
    right = min((column + 1) * TILE_PX, width)
    bottom = min((row + 1) * TILE_PX, height)
    with open_slide(slide_path) as slide:
        l0_box = Box(x, y, right * l0_step, bottom * l0_step)
        region = slide.read(l0_box, right - column * TILE_PX, bottom - row * TILE_PX)

    answer = about(client, f"tiles/{level}/{column}/{row}", slide_path.name)

    assert (answer.status_code, answer.content_type) == (200, "image/jpeg")
    shown = pixels_of(answer.data)
    assert np.array_equal(shown, pixels_of(encode_jpeg(region)))
    # What JPEG loses is little, too little for another place or scale.
    assert np.abs(shown.astype(int) - region.astype(int)).mean() < 4


@pytest.mark.parametrize("tile", ["10/3/0", "10/0/2", "11/0/0", "99/0/0", "8/1/0"])
def test_a_tile_that_the_slide_does_not_have_is_not_found(
    client: Client, slide_path: Path, tile: str
) -> None:
    answer = about(client, f"tiles/{tile}", slide_path.name)

    assert (answer.status_code, problem_name(answer)) == (404, "not-found")


def test_a_tile_is_read_once_and_again_when_the_file_was_replaced(tmp_path: Path) -> None:
    path = tmp_path / "gray.tif"
    tiles, tile = Tiles(), TileName(6, 0, 0)
    contents = []
    for value in (40, 200):
        write_pyramid(path, np.full((64, 64, 3), value, np.uint8), mpp=0.5)
        with open_slide(path) as slide:
            contents.append(tiles.encode(slide, tile, lambda: None))
            read_again = tiles.encode(slide, tile, pytest.fail)

        assert read_again is contents[-1]

    assert contents[0] != contents[1]


def test_the_page_learns_how_to_ask_for_tiles_and_for_outlines(
    client: Client, slide_path: Path
) -> None:
    answer = json_of(about(client, "slide", slide_path.name))

    assert answer == {
        "name": "waves.tif",
        "slide": {
            "uri": slide_path.as_uri(),
            "width": 700,
            "height": 300,
            "mpp_x": None,
            "mpp_y": None,
            "downsamples": [],
        },
        "mpp": 0.5,
        "tile_px": 256,
        "first_level": 8,
        "top_level": 10,
    }


def test_a_slide_without_a_pixel_size_is_shown_where_one_is_given(tmp_path: Path) -> None:
    path = tmp_path / "photo.png"
    Image.new("RGB", (90, 60), "white").save(path)

    refused = about(viewing(tmp_path)[0], "slide", path.name)
    given = json_of(about(viewing(tmp_path, mpp=0.25)[0], "slide", path.name))

    assert problem_name(refused) == "no-pixel-size"
    assert "Start the page again" in json_of(refused)["detail"]
    assert (given["mpp"], given["slide"]["mpp_x"]) == (0.25, 0.25)


def test_the_first_view_is_read_before_a_page_asks_for_it(slide_path: Path) -> None:
    client, viewer = viewing(slide_path)

    viewer.read_first(3600.0)

    slide = viewer.open(slide_path.name)
    first = list(TilePyramid(700, 300).list_first())
    kept = [viewer.tiles.encode(slide, one, pytest.fail) for one in first]
    assert {one.level for one in first} == {10}
    assert client.get(f"/view/tiles/10/2/1?slide={slide_path.name}").data == kept[-1]


def test_the_model_waits_no_longer_once_a_page_has_its_tiles(slide_path: Path) -> None:
    client, viewer = viewing(slide_path)
    about(client, "objects", slide_path.name).close()

    viewer.await_shown(3600.0)

    assert viewer.is_shown.is_set()
