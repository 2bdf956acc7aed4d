from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st

from wsisam_qupath.geometry import Box, Mpp, PatchPair
from wsisam_qupath.prompts import Point, Prompt
from wsisam_qupath.prompts.planner import LARGEST_SHARE, SMALLEST_SHARE, Planner

PLANNER = Planner(Mpp(0.25, 0.25), size_px=256)
"""An HR patch is 256 µm wide, 1024 level-0 px; its centres are 256 level-0 px apart."""

MARGIN_SHARE = 0.05
ROUNDING = 1e-6

mpps = st.floats(0.05, 20)
planners = st.builds(
    Planner,
    mpp=st.builds(Mpp, mpps, mpps),
    size_px=st.sampled_from([256, 1024]),
    hr_mpp=st.floats(0.1, 8),
    object_size_um=st.none() | st.floats(0.1, 5000),
)
positions = st.floats(-1e4, 3e5)
points: st.SearchStrategy[Point] = st.tuples(positions, positions)


@st.composite
def boxes(draw: st.DrawFn) -> Box:
    x, y = draw(points)
    sizes = st.floats(0, 3e5) | st.floats(0, 100)
    return Box(x, y, x + draw(sizes), y + draw(sizes))


def box_round(l0_center: Point, size_px: float) -> Prompt:
    x, y = l0_center
    half = size_px / 2
    return Prompt("box", l0_box=Box(x - half, y - half, x + half, y + half))


def assert_within(pair: PatchPair, l0_points: list[Point]) -> None:
    hr_points = pair.l0_to_hr(np.array(l0_points)) / pair.size_px
    assert hr_points.min() >= MARGIN_SHARE - ROUNDING
    assert hr_points.max() <= 1 - MARGIN_SHARE + ROUNDING


@given(planner=planners, box=boxes())
def test_any_box_lies_inside_of_the_hr_patch_with_a_margin(planner: Planner, box: Box) -> None:
    pair = planner.pair(Prompt("p", l0_box=box))

    assert_within(pair, [(box.x0, box.y0), (box.x1, box.y1)])
    assert (pair.size_px, pair.mpp) == (planner.size_px, planner.mpp)


@given(planner=planners, positives=st.lists(points, min_size=1, max_size=6))
def test_all_positive_points_lie_inside_of_the_hr_patch_with_a_margin(
    planner: Planner, positives: list[Point]
) -> None:
    pair = planner.pair(Prompt("p", l0_positives=tuple(positives)))

    assert_within(pair, positives)
    alone = planner.pair(Prompt("p", l0_positives=(positives[0],)))
    # Further points never refine it, but for a slide with large pixels: up to twice as fine there.
    finest = max(planner.hr_mpp, alone.hr_mpp / 2)
    assert pair.hr_mpp >= (alone.hr_mpp if planner.object_size_um else finest)


@given(planner=planners, box=boxes(), positives=st.lists(points, min_size=1, max_size=4))
def test_a_box_and_positive_points_beyond_it_lie_inside_of_the_hr_patch(
    planner: Planner, box: Box, positives: list[Point]
) -> None:
    pair = planner.pair(Prompt("p", l0_box=box, l0_positives=tuple(positives)))

    assert_within(pair, [(box.x0, box.y0), (box.x1, box.y1), *positives])


@given(planner=planners, box=boxes())
def test_a_pair_is_refined_never_beyond_the_slide(planner: Planner, box: Box) -> None:
    hr_mpp = planner.pair(Prompt("p", l0_box=box)).hr_mpp

    assert hr_mpp >= min(planner.hr_mpp, max(planner.mpp.x, planner.mpp.y))


@given(planner=planners, box=boxes())
def test_scales_stand_on_a_ladder_of_square_roots_of_two(planner: Planner, box: Box) -> None:
    hr_mpp = planner.pair(Prompt("p", l0_box=box)).hr_mpp

    rungs = 2 * math.log2(hr_mpp / planner.hr_mpp)
    assert rungs == pytest.approx(round(rungs), abs=1e-6)


def test_a_pair_is_the_same_again_and_hashes_alike() -> None:
    prompt = box_round((12345.6, 789.1), 300)

    assert len({PLANNER.pair(prompt), PLANNER.pair(prompt)}) == 1


def test_neighbours_share_the_pair_whose_centre_is_nearest() -> None:
    near = [box_round((x, y), 200) for x in (2440, 2560, 2680) for y in (2440, 2680)]

    pairs = {PLANNER.pair(prompt) for prompt in near}

    assert pairs == {PatchPair(2560, 2560, 1.0, 256, Mpp(0.25, 0.25))}


def test_beyond_half_a_step_lies_the_next_pair() -> None:
    assert PLANNER.pair(box_round((2560 + 129, 2560), 200)).l0_x == 2560 + 256


def test_a_class_or_a_name_moves_no_pair() -> None:
    prompt = box_round((500, 500), 100)

    assert PLANNER.pair(replace(prompt, id="other")) == PLANNER.pair(prompt)


@pytest.mark.parametrize(
    ("size_um", "hr_mpp"),
    [
        (LARGEST_SHARE * 256, 1.0),
        (LARGEST_SHARE * 256 + 0.1, math.sqrt(2)),
        (LARGEST_SHARE * 512 + 0.1, 2 * math.sqrt(2)),
        (SMALLEST_SHARE * 256, 1.0),
        (SMALLEST_SHARE * 256 - 0.1, math.sqrt(0.5)),
        (SMALLEST_SHARE * 128 - 0.1, math.sqrt(0.5) / 2),
        (1.0, 0.25),
    ],
)
def test_the_size_of_a_box_chooses_the_scale(size_um: float, hr_mpp: float) -> None:
    box = Box(0, 0, size_um / 0.25, 8)

    assert PLANNER.pair(Prompt("p", l0_box=box)).hr_mpp == pytest.approx(hr_mpp)


def test_a_coarse_slide_is_never_refined() -> None:
    planner = Planner(Mpp(4, 4), size_px=256)

    assert planner.pair(box_round((100, 100), 1)).hr_mpp == 1.0


@pytest.mark.parametrize(
    ("mpp", "hr_mpp"), [(0.25, 1.0), (1.1, 1.0), (1.3, 2**0.5), (2.6, 2**1.5), (55.0, 64.0)]
)
def test_a_click_is_seen_no_finer_than_the_slide(mpp: float, hr_mpp: float) -> None:
    planner = Planner(Mpp(mpp, mpp), size_px=256)
    click = Prompt("p", l0_positives=((500, 500),))

    pair = planner.pair(click)

    assert pair.hr_mpp == pytest.approx(hr_mpp)
    assert not planner.fits_hr(click, pair)


@pytest.mark.parametrize(("mpp", "hr_mpp"), [(0.25, 1.0), (2.6, 2**0.5), (55.0, 32.0)])
def test_several_clicks_are_seen_at_most_twice_as_fine_as_the_slide(
    mpp: float, hr_mpp: float
) -> None:
    planner = Planner(Mpp(mpp, mpp), size_px=256)
    clicks = Prompt("p", l0_positives=((500, 500), (510, 500)))

    pair = planner.pair(clicks)

    assert pair.hr_mpp == pytest.approx(hr_mpp)


def test_the_coarser_axis_limits_the_refinement() -> None:
    planner = Planner(Mpp(0.1, 0.6), size_px=256)

    assert planner.pair(box_round((100, 100), 1)).hr_mpp == pytest.approx(math.sqrt(0.5))


def test_anisotropic_pixels_are_measured_in_micrometres() -> None:
    planner = Planner(Mpp(0.25, 0.5), size_px=256)
    tall = Box(0, 0, 100, 400)  # 25 x 200 µm

    pair = planner.pair(Prompt("p", l0_box=tall))

    assert pair.hr_mpp == pytest.approx(math.sqrt(2))
    covered = pair.hr_l0_box
    assert covered.width * 0.25 == pytest.approx(covered.height * 0.5)


def test_an_outline_is_planned_as_its_box() -> None:
    outline = shapely.Polygon([(100, 100), (700, 300), (200, 600)])

    assert PLANNER.pair(Prompt("o", l0_outline=outline)) == PLANNER.pair(
        Prompt("b", l0_box=Box(100, 100, 700, 600))
    )


@pytest.mark.parametrize(("size_um", "hr_mpp"), [(None, 1.0), (8, 0.25), (300, 2.0)])
def test_bare_points_are_seen_at_the_scale_of_their_objects(
    size_um: float | None, hr_mpp: float
) -> None:
    planner = replace(PLANNER, object_size_um=size_um)

    pair = planner.pair(Prompt("p", l0_positives=((5000, 5000),)))

    assert pair.hr_mpp == pytest.approx(hr_mpp)


def test_an_object_size_changes_no_box() -> None:
    prompt = box_round((5000, 5000), 400)

    assert replace(PLANNER, object_size_um=5).pair(prompt) == PLANNER.pair(prompt)


def test_later_clicks_keep_the_pair() -> None:
    clicks = Prompt("p", l0_positives=((5000, 5000),))
    later = replace(
        clicks,
        l0_positives=((5000, 5000), (5200, 4900), (4700, 5100)),
        l0_negatives=((5300, 5300), (9000, 9000)),
    )

    assert PLANNER.pair(later) == PLANNER.pair(clicks)


def test_clicks_keep_the_pair_of_their_box() -> None:
    box = box_round((5000, 5000), 400)
    clicked = replace(box, l0_positives=((5010, 4990),), l0_negatives=((8000, 1),))

    assert PLANNER.pair(clicked) == PLANNER.pair(box)


def test_widely_spread_points_coarsen_the_pair() -> None:
    spread = Prompt("p", l0_positives=((5000, 5000), (5000 + 900, 5000)))

    assert PLANNER.pair(spread).hr_mpp == pytest.approx(math.sqrt(2))


@pytest.mark.parametrize(
    ("side_um", "count", "fits"),
    # A box around k random points has (k - 1) / (k + 1) of their object: 76.8 µm fit.
    [(0, 1, False), (25, 2, True), (26, 2, False), (38, 3, True), (39, 3, False), (62, 10, True)],
)
def test_points_that_lie_close_together_show_that_their_object_fits(
    side_um: float, count: int, fits: bool
) -> None:
    l0_side = side_um / 0.25
    spread = [(5000 + l0_side * i / max(count - 1, 1), 5000.0) for i in range(count)]
    prompt = Prompt("p", l0_positives=tuple(spread), l0_negatives=((9000, 9000),))

    assert PLANNER.fits_hr(prompt, PLANNER.pair(prompt)) is fits


def test_points_that_chose_a_coarser_pair_show_that_their_object_fits() -> None:
    spread = Prompt("p", l0_positives=((5000, 5000), (5800, 5000), (6600, 5000)))
    pair = PLANNER.pair(spread)

    assert pair.hr_mpp > PLANNER.hr_mpp
    assert PLANNER.fits_hr(spread, pair)


def test_an_object_of_a_size_that_is_told_fits() -> None:
    click = Prompt("p", l0_positives=((5000, 5000),))
    pair = PLANNER.pair(click)

    assert not PLANNER.fits_hr(click, pair)
    assert replace(PLANNER, object_size_um=300.0).fits_hr(click, pair)
    assert PLANNER.fits_hr(box_round((5000, 5000), 300), pair)
    assert PLANNER.fits_hr(replace(click, l0_earlier=shapely.box(4900, 4900, 5100, 5100)), pair)


def test_a_box_as_large_as_a_slide_of_100_000_pixels_fits() -> None:
    whole = Box(0, 0, 100_000, 80_000)

    pair = PLANNER.pair(Prompt("whole", l0_box=whole))

    covered = pair.hr_l0_box
    assert covered.intersection(whole) == whole
    assert covered.width < 100_000 / LARGEST_SHARE * math.sqrt(2)
