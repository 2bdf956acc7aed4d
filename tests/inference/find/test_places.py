"""Which tiles are looked at, how much their places look like examples, and where objects may be."""

from pathlib import Path

import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st

from wsisam_qupath.geometry import Box, Mpp, PatchPair
from wsisam_qupath.inference.find.likeness import PLACES, ExampleFeatures, Likeness, Map
from wsisam_qupath.inference.find.overlaps import FoundOutlines
from wsisam_qupath.inference.find.places import Place, find_places, spread_places
from wsisam_qupath.inference.find.tiles import (
    choose_scale,
    find_middle,
    is_glass,
    lay_tiles,
    list_places,
    measure_tissue,
    sort_tiles,
)
from wsisam_qupath.prompts.planner import Planner
from wsisam_qupath.slide import Slide, open_slide
from wsisam_qupath.slide.pyramid import write_pyramid

PLANNER = Planner(Mpp(0.5, 0.5), 256)
PAIR = PatchPair(256.0, 256.0, 1.0, 256, Mpp(0.5, 0.5))
"""Its HR patch is level-0 px 0 to 512; a place is 8 px wide."""

EVERYWHERE = Box(0, 0, 512, 512)
NOTHING: Map = np.full((PLACES, PLACES), -1, dtype=np.float32)


def hills(*tops: tuple[int, int, float]) -> Map:
    """A map with round hills: row, column, height."""
    y, x = np.indices((PLACES, PLACES))
    heights = [h * np.exp(-((y - r) ** 2 + (x - c) ** 2) / 50) for r, c, h in tops]
    field: Map = np.maximum.reduce(heights).astype(np.float32)
    return field


# Scale and tiles


@pytest.mark.parametrize(
    ("longest_um", "hr_mpp"), [(115.0, 1.0), (116.0, 2**0.5), (30.0, 0.5), (400.0, 4.0)]
)
def test_the_scale_is_the_finest_at_which_an_object_fits(longest_um: float, hr_mpp: float) -> None:
    assert choose_scale(PLANNER, longest_um) == pytest.approx(hr_mpp)


@given(st.floats(0, 3000), st.floats(0, 2000), st.floats(5, 2500), st.floats(5, 2500))
def test_each_point_of_a_region_lies_in_one_middle(
    x: float, y: float, width: float, height: float
) -> None:
    tiles = lay_tiles(PLANNER, 1.0, shapely.box(x, y, x + width, y + height))

    middles = [find_middle(pair) for pair in tiles]
    for share in (0.0, 0.31, 0.77, 0.999):
        at = x + share * width, y + share * height
        owners = [m for m in middles if m.x0 <= at[0] < m.x1 and m.y0 <= at[1] < m.y1]
        assert len(owners) == 1


def test_tiles_lie_where_later_clicks_look() -> None:
    tiles = lay_tiles(PLANNER, 1.0, shapely.box(0, 0, 2000, 1500))

    assert all(PLANNER.place_pair((pair.l0_x, pair.l0_y), 1.0) == pair for pair in tiles)


def test_tiles_that_a_region_does_not_meet_are_left_out() -> None:
    corner = shapely.Polygon([(0, 0), (4000, 0), (0, 4000)])

    tiles = lay_tiles(PLANNER, 1.0, corner)

    assert 0 < len(tiles) < 0.7 * len(lay_tiles(PLANNER, 1.0, shapely.box(0, 0, 4000, 4000)))


def test_tiles_near_an_example_come_first_and_none_is_lost() -> None:
    tiles = lay_tiles(PLANNER, 1.0, shapely.box(0, 0, 2000, 1500))
    examples = [shapely.box(1500, 1200, 1600, 1300), shapely.box(100, 900, 160, 960)]

    ordered = sort_tiles(tiles, examples)

    away = [
        min(one.distance(shapely.Point(pair.hr_l0_box.center)) for one in examples)
        for pair in ordered
    ]
    assert away == sorted(away)
    assert set(ordered) == set(tiles)
    assert sort_tiles(tiles, []) == tiles


def test_glass_is_told_from_tissue(tissue_slide: Slide) -> None:
    beside = PatchPair(-1000.0, 256.0, 1.0, 256, tissue_slide.mpp)
    around = PatchPair(256.0, 256.0, 64.0, 256, tissue_slide.mpp)

    assert is_glass(tissue_slide, beside)
    assert not is_glass(tissue_slide, around)  # though most of it lies beside the slide
    assert not is_glass(tissue_slide, PAIR)


def test_how_much_of_an_object_is_tissue_is_measured_within_its_outline(tmp_path: Path) -> None:
    scene = np.full((256, 256, 3), 245, np.uint8)
    scene[:, :128] = (180, 90, 140)
    write_pyramid(tmp_path / "half.tif", scene, mpp=0.5)

    with open_slide(tmp_path / "half.tif") as slide:
        shares = [
            measure_tissue(slide, outline)
            for outline in (
                shapely.box(10, 10, 100, 100),
                shapely.box(140, 10, 250, 100),
                shapely.box(64, 64, 192, 192),
                shapely.Polygon([(0, 0), (256, 0), (0, 256)]),
            )
        ]

    assert shares == pytest.approx([1, 0, 0.5, 0.75], abs=0.05)


# Likeness


def test_what_looks_like_an_example_is_told_from_the_rest() -> None:
    rng = np.random.default_rng(0)
    kind, other = rng.normal(size=(2, 256))
    tokens = np.where(np.arange(PLACES)[:, None, None] < 20, kind, other)
    tokens = (tokens + 0.3 * rng.normal(size=(PLACES, PLACES, 256))).astype(np.float32)
    coverage = np.zeros((PLACES, PLACES), dtype=np.float32)
    coverage[3:9, 3:9] = 1

    likeness = Likeness.learn([ExampleFeatures(tokens, coverage, coverage > -1)])
    measured = likeness.measure(tokens)

    assert measured[:20].min() > 0.5
    assert measured[20:].max() < 0
    assert likeness.measure_unwanted(tokens).max() == -1


def test_an_example_smaller_than_a_place_is_learned_too() -> None:
    tokens = np.random.default_rng(0).normal(size=(PLACES, PLACES, 256)).astype(np.float32)
    coverage = np.zeros((PLACES, PLACES), dtype=np.float32)
    coverage[30, 40] = 0.1

    measured = Likeness.learn([ExampleFeatures(tokens, coverage, coverage > -1)]).measure(tokens)

    assert divmod(int(measured.argmax()), PLACES) == (30, 40)


# Places


def test_each_hill_is_a_place_with_its_ground() -> None:
    field = hills((10, 12, 0.9), (40, 50, 0.6))

    places = list(find_places(field, NOTHING, PAIR, EVERYWHERE, 40.0))

    assert [place.l0_point for place in places] == [(100.0, 84.0), (404.0, 324.0)]
    for place, center in zip(places, ((100, 84), (404, 324)), strict=True):
        assert place.l0_box is not None
        assert place.l0_box.contains(*place.l0_point)
        assert place.l0_box.center == pytest.approx(center, abs=8)
        assert 60 < place.l0_box.width < 160


def test_low_hills_and_those_of_other_tiles_are_no_places() -> None:
    field = hills((10, 12, 0.1), (40, 50, 0.6))
    left_half = Box(0, 0, 256, 512)

    assert list(find_places(field, NOTHING, PAIR, left_half, 40.0)) == []


def test_what_looks_more_like_what_is_not_wanted_is_no_place() -> None:
    field, unwanted = hills((10, 12, 0.9), (40, 50, 0.6)), hills((10, 12, 0.95))

    (place,) = find_places(field, unwanted, PAIR, EVERYWHERE, 40.0)

    assert place.l0_point == (404.0, 324.0)


def test_bumps_within_a_large_object_are_one_place() -> None:
    field = hills((20, 20, 0.9), (26, 20, 0.88))

    assert len(list(find_places(field, NOTHING, PAIR, EVERYWHERE, 200.0))) == 1


def test_a_grid_goes_on_from_one_tile_to_the_next() -> None:
    left, right = Box(0, 0, 256, 256), Box(256, 0, 512, 256)

    both = [*spread_places(PAIR, left, 10.0), *spread_places(PAIR, right, 10.0)]
    whole = list(spread_places(PAIR, Box(0, 0, 512, 256), 10.0))

    assert {place.l0_point for place in both} == {place.l0_point for place in whole}
    assert len(both) == len(whole) == 26 * 13
    assert all(isinstance(place, Place) and place.l0_box is None for place in whole)


def test_places_are_centers_of_the_patch_in_rows() -> None:
    places = list_places(PAIR, PLACES)

    assert places[0, 0].tolist() == [4, 4]
    assert places[2, 1].tolist() == [12, 20]


# Overlaps


def test_an_object_is_known_by_what_it_shares_with_the_smaller_one() -> None:
    found = FoundOutlines(50.0)
    found.add(shapely.box(0, 0, 100, 100))

    assert found.has(shapely.box(10, 10, 30, 30))
    assert found.has(shapely.box(-100, -100, 400, 400))
    assert not found.has(shapely.box(70, 0, 170, 100))
    assert not found.has(shapely.box(1000, 0, 1100, 100))


def test_outlines_far_larger_than_an_object_are_known_at_once() -> None:
    found = FoundOutlines(20.0)
    found.add(shapely.Point(0, 0).buffer(4e8))
    found.add(shapely.box(2e9, 0, 2e9 + 10, 10))

    assert found.has(shapely.box(10, 10, 30, 30))
    assert found.has(shapely.box(1.9e9, -1e9, 2.1e9, 1e9))
    assert not found.has(shapely.box(3e9, 0, 3e9 + 10, 10))
