"""Masks of known geometry through every frame, and outlines to masks and back."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import pytest
import shapely
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from shapely.geometry import MultiPolygon, Point, Polygon, box

from wsisam_qupath.geometry import FloatArray, Mpp, PatchPair
from wsisam_qupath.geometry.polygons import (
    MASK_PX,
    area_um2,
    mask_to_polygon,
    outline_to_mask,
    smooth_mask,
    stability_score,
)
from wsisam_qupath.geometry.raster import pixel_coverage

Logits = NDArray[np.float32]

# One mask pixel is one HR pixel, is one level-0 pixel, and both frames begin at (0, 0).
PLAIN = PatchPair(128.0, 128.0, 1.0, 256, Mpp(1.0, 1.0))
PAIRS = {
    "plain": PLAIN,
    "at a fraction of a pixel": PatchPair(10203.37, 4051.81, 1.0, 256, Mpp(0.2498, 0.2498)),
    "anisotropic": PatchPair(5000.25, 7000.5, 1.0, 256, Mpp(0.25, 0.4)),
    "1024 px": PatchPair(5000.25, 7000.5, 1.0, 1024, Mpp(0.5, 0.5)),
    "magnified": PatchPair(100.1, 50.3, 0.2, 256, Mpp(0.5, 0.5)),
}


def centres() -> tuple[FloatArray, FloatArray]:
    """x and y of the mask's pixel centres, 256 x 256 each."""
    y, x = np.mgrid[:256, :256] + 0.5
    return x, y


def disc(x0: float, y0: float, radius: float) -> Logits:
    """Signed distance to a circle, positive inside."""
    x, y = centres()
    return cast("Logits", (radius - np.hypot(x - x0, y - y0)).astype(np.float32))


def outline(
    logits: Logits, pair: PatchPair = PLAIN, simplify_um: float = 0.0, min_area_um2: float = 0.0
) -> Polygon | MultiPolygon:
    polygon = mask_to_polygon(logits, pair, simplify_um=simplify_um, min_area_um2=min_area_um2)
    assert polygon is not None
    assert polygon.is_valid
    return polygon


def iou(one: Polygon | MultiPolygon, other: Polygon | MultiPolygon) -> float:
    return float(one.intersection(other).area / one.union(other).area)


@pytest.mark.parametrize("pair", PAIRS.values(), ids=PAIRS)
def test_a_disc_lies_where_it_is_to_a_tenth_of_a_mask_pixel(pair: PatchPair) -> None:
    polygon = outline(disc(100.3, 140.7, 60), pair)

    mask_per_hr = 256 / pair.size_px
    l0_x, l0_y = polygon.centroid.coords[0]
    centre = pair.l0_to_hr(np.array([[l0_x, l0_y]]))[0] * mask_per_hr
    um_per_mask = pair.hr_mpp / mask_per_hr
    assert centre == pytest.approx([100.3, 140.7], abs=0.01)
    assert area_um2(polygon, pair.mpp) == pytest.approx(np.pi * (60 * um_per_mask) ** 2, rel=1e-3)
    x0, y0, x1, y1 = polygon.bounds
    corners = pair.l0_to_hr(np.array([[x0, y0], [x1, y1]])) * mask_per_hr
    assert corners == pytest.approx(np.array([[40.3, 80.7], [160.3, 200.7]]), abs=0.05)


def test_x_and_y_are_not_swapped() -> None:
    logits = np.full((256, 256), -1.0, np.float32)
    logits[10:20, 100:180] = 1.0  # rows 10 to 19, columns 100 to 179

    assert outline(logits).bounds == (100, 10, 180, 20)


def test_a_ring_keeps_its_hole() -> None:
    ring = np.minimum(disc(120, 130, 80), -disc(120, 130, 40))

    polygon = outline(ring, simplify_um=0.1)

    assert isinstance(polygon, Polygon)
    assert len(polygon.interiors) == 1
    assert polygon.area == pytest.approx(np.pi * (80**2 - 40**2), rel=2e-3)
    assert not polygon.contains(Point(120, 130))


def test_two_parts_and_an_island_in_a_hole_are_one_multipolygon() -> None:
    ring = np.minimum(disc(80, 100, 60), -disc(80, 100, 40))
    mask = np.maximum.reduce([ring, disc(80, 100, 20), disc(200, 200, 30)])

    polygon = outline(mask, simplify_um=0.1)

    areas = sorted(shapely.area(shapely.get_parts(polygon)) / np.pi)
    assert areas == pytest.approx([20**2, 30**2, 60**2 - 40**2], rel=5e-3)


@pytest.mark.parametrize("pair", PAIRS.values(), ids=PAIRS)
def test_an_object_that_runs_off_the_patch_ends_at_its_edge(pair: PatchPair) -> None:
    polygon = outline(disc(250, 3, 50), pair, simplify_um=0.05)

    patch = pair.hr_l0_box
    x0, y0, x1, y1 = polygon.bounds
    assert (x1, y0) == pytest.approx((patch.x1, patch.y0), abs=1e-6)
    assert x0 > patch.x0
    assert y1 < patch.y1
    scale = pair.size_px / 256 * pair.hr_mpp
    whole = Point(250, 3).buffer(50, quad_segs=64).intersection(box(0, 0, 256, 256))
    assert area_um2(polygon, pair.mpp) == pytest.approx(whole.area * scale**2, rel=5e-3)


def test_a_full_mask_is_the_patch_and_an_empty_one_is_none() -> None:
    full = np.full((256, 256), 3.0, np.float32)

    assert outline(full, simplify_um=0.1).equals(box(0, 0, 256, 256))
    for empty in (-full, 0 * full):
        assert mask_to_polygon(empty, PLAIN, simplify_um=0.1, min_area_um2=0.0) is None


def test_small_parts_are_dropped_and_small_holes_filled() -> None:
    pair = PatchPair(100, 100, 0.5, 256, Mpp(0.5, 0.5))  # a mask pixel has 0.25 µm²
    ring = np.minimum(disc(80, 100, 60), -disc(80, 100, 5))  # a hole of 20 µm²
    mask = np.maximum(ring, disc(200, 200, 8))  # a part of 50 µm²

    assert len(shapely.get_parts(outline(mask, pair, min_area_um2=15))) == 2
    both = outline(mask, pair, min_area_um2=30)
    assert len(shapely.get_parts(both)) == 2
    assert shapely.get_num_interior_rings(shapely.get_parts(both)).tolist() == [0, 0]
    assert isinstance(outline(mask, pair, min_area_um2=60), Polygon)
    assert mask_to_polygon(mask, pair, simplify_um=0.0, min_area_um2=1e5) is None


def test_a_ring_counts_by_what_it_covers_and_not_by_what_it_encloses() -> None:
    thin = np.minimum(disc(128, 128, 40), -disc(128, 128, 38))  # 490 of the 5027 it encloses

    assert mask_to_polygon(thin, PLAIN, simplify_um=0.0, min_area_um2=1000) is None


@pytest.mark.parametrize("pair", [PAIRS["plain"], PAIRS["anisotropic"]])
def test_simplifying_moves_the_outline_by_no_more_than_its_tolerance_in_um(
    pair: PatchPair,
) -> None:
    exact = outline(disc(100.3, 140.7, 60), pair)

    simple = outline(disc(100.3, 140.7, 60), pair, simplify_um=2.0)

    def in_um(polygon: Polygon | MultiPolygon) -> Any:
        return shapely.transform(polygon, lambda xy: xy * (pair.mpp.x, pair.mpp.y))

    moved = shapely.hausdorff_distance(in_um(simple).boundary, in_um(exact).boundary)
    assert 0.5 < moved <= 2.0
    assert len(simple.exterior.coords) < len(exact.exterior.coords) / 10


def test_a_tolerance_larger_than_the_object_does_not_break() -> None:
    polygon = mask_to_polygon(disc(128, 128, 5), PLAIN, simplify_um=1e6, min_area_um2=0.0)

    assert polygon is None or polygon.is_valid


def test_logits_that_are_not_finite_are_inside_only_where_they_are_plus_infinity() -> None:
    logits = np.full((256, 256), np.nan, np.float32)
    logits[100:150, 50:80] = np.inf
    logits[110:120, 60:70] = -np.inf

    polygon = outline(logits)

    # Each of the eight corners is cut, which takes from the shell what it takes from the hole.
    assert polygon.area == pytest.approx(30 * 50 - 10 * 10)
    assert polygon.bounds == (50, 100, 80, 150)


def test_pixels_that_touch_at_a_corner_of_zeros_come_out_valid() -> None:
    logits = np.zeros((256, 256), np.float32)
    logits[10, 10] = logits[12, 12] = logits[11, 9] = 1.0

    assert outline(logits).area > 0


@settings(deadline=None)
@given(
    arrays(np.float32, (7, 9), elements=st.floats(width=32)),
    st.sampled_from([0.0, 0.5, 5.0, 50.0]),
    st.sampled_from([0.0, 10.0, 2000.0]),
    st.sampled_from(sorted(PAIRS)),
)
def test_whatever_the_logits_the_outline_is_valid_and_above_the_least_area(
    logits: Logits, simplify_um: float, min_area_um2: float, name: str
) -> None:
    pair = PAIRS[name]

    polygon = mask_to_polygon(logits, pair, simplify_um=simplify_um, min_area_um2=min_area_um2)

    if polygon is None:
        return
    assert polygon.is_valid
    assert isinstance(polygon, (Polygon, MultiPolygon))
    for part in shapely.get_parts(polygon):
        assert area_um2(part, pair.mpp) >= min_area_um2 * (1 - 1e-9)
        for hole in part.interiors:
            assert area_um2(Polygon(hole), pair.mpp) >= min_area_um2 * (1 - 1e-9)
    patch = pair.hr_l0_box
    assert box(patch.x0, patch.y0, patch.x1, patch.y1).buffer(1e-6).contains(polygon)


def test_the_stability_is_the_share_of_the_loose_mask_that_the_strict_one_keeps() -> None:
    logits = np.full((256, 256), -5.0, np.float32)
    logits[:10, :10] = 0.5
    logits[:5, :10] = 5.0

    assert stability_score(logits) == 0.5
    assert stability_score(logits, offset=0.2) == 1.0


def test_the_stability_of_an_empty_mask_is_zero() -> None:
    assert stability_score(np.full((256, 256), -5.0, np.float32)) == 0.0
    assert stability_score(np.full((256, 256), np.nan, np.float32)) == 0.0


def test_coverage_is_exact() -> None:
    covered = pixel_coverage(box(10.25, 20.5, 12.0, 21.25), 32)

    expected = np.zeros((32, 32))
    expected[20, 10:12] = [0.75 * 0.5, 0.5]
    expected[21, 10:12] = [0.75 * 0.25, 0.25]
    assert covered == pytest.approx(expected, abs=1e-12)


def test_coverage_of_a_slope_and_of_what_lies_off_the_raster_is_exact() -> None:
    slope = pixel_coverage(Polygon([(0, 0), (2, 1), (0, 1)]), 4)
    off = pixel_coverage(box(-50, 2.5, 90, 70), 4)

    assert slope[0].tolist() == pytest.approx([0.75, 0.25, 0, 0])
    assert off.tolist() == [[0] * 4, [0] * 4, [0.5] * 4, [1] * 4]
    assert not pixel_coverage(box(10, 10, 12, 12), 4).any()


@given(st.lists(st.tuples(*[st.floats(-5, 20)] * 3), min_size=1, max_size=6))
@example([(5e-324, 0.0, 0.0), (-1.175494351e-38, 0.5, 0.0)])  # a corner at -1e-38
def test_coverage_adds_up_to_the_area_on_the_raster(discs: list[tuple[float, ...]]) -> None:
    union = shapely.union_all([Point(x, y).buffer(abs(r) / 3 + 0.1) for x, y, r in discs])
    holed = union.difference(Point(7.3, 7.7).buffer(2.2))

    covered = pixel_coverage(holed, 16)

    assert covered.sum() == pytest.approx(holed.intersection(box(0, 0, 16, 16)).area, abs=1e-6)
    pixel = holed.intersection(box(5, 9, 6, 10))
    assert covered[9, 5] == pytest.approx(pixel.area, abs=1e-9)


def test_a_rectangle_becomes_logits_in_the_hr_and_the_lr_frame() -> None:
    pair = PatchPair(1000.0, 2000.0, 1.0, 256, Mpp(0.5, 0.25))
    # From the centre 32 px to the left and 16 to the right, 8 up and 24.5 down, in HR pixels.
    rectangle = box(1000 - 64, 2000 - 32, 1000 + 32, 2000 + 98)

    hr = outline_to_mask(rectangle, pair, zoom=1.0, magnitude=6.0)
    lr = outline_to_mask(rectangle, pair, zoom=2.0, magnitude=6.0)

    expected = np.full((256, 256), -6.0, np.float32)
    expected[120:152, 96:144] = 6.0
    expected[152, 96:144] = 0.0
    assert hr.dtype == np.float32
    assert hr == pytest.approx(expected, abs=1e-5)
    expected = np.full((256, 256), -6.0, np.float32)
    expected[124:140, 112:136] = 6.0
    expected[140, 112:136] = -6.0 + 12.0 * 0.25
    assert lr == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("zoom", [1.0, 2.0])
@pytest.mark.parametrize("pair", PAIRS.values(), ids=PAIRS)
def test_an_outline_survives_the_way_to_logits_and_back(pair: PatchPair, zoom: float) -> None:
    ring = np.minimum(disc(118.4, 133.3, 83.1), -disc(108.2, 140.6, 31.5))
    drawn = outline(ring, pair)

    logits = outline_to_mask(drawn, pair, zoom=zoom, magnitude=8.0)

    lens = PatchPair(pair.l0_x, pair.l0_y, zoom * pair.hr_mpp, pair.size_px, pair.mpp)
    assert iou(outline(logits, lens), drawn) > 0.99


def test_what_an_outline_has_outside_of_the_patch_is_cut_off() -> None:
    logits = outline_to_mask(box(-500, -500, 64, 999), PLAIN, zoom=1.0, magnitude=1.0)

    assert logits[:, :64].min() == 1.0
    assert logits[:, 64:].max() == -1.0
    assert outline_to_mask(box(900, 900, 999, 999), PLAIN, zoom=1.0, magnitude=1.0).max() == -1.0


def test_the_area_of_an_outline_is_in_um() -> None:
    assert area_um2(box(0, 0, 10, 20), Mpp(0.5, 0.25)) == 25.0


def draw_steps(radius_px: float) -> NDArray[np.float32]:
    """A disc with an edge in steps of 4 px, as the decoder draws edges."""
    y, x = np.mgrid[:MASK_PX, :MASK_PX] // 4 * 4 + 2 - MASK_PX / 2
    return np.where(np.hypot(x, y) < radius_px, 4.0, -4.0).astype(np.float32)


def test_the_edge_of_a_large_object_is_smoothed() -> None:
    jagged, smooth = draw_steps(80), smooth_mask(draw_steps(80))

    lines = [
        mask_to_polygon(mask, PLAIN, simplify_um=0.25, min_area_um2=0) for mask in (jagged, smooth)
    ]

    before, after = (line.length for line in lines if line is not None)
    assert before > 1.2 * 2 * np.pi * 80
    assert after < 1.08 * 2 * np.pi * 80
    assert abs((smooth > 0).sum() / (jagged > 0).sum() - 1) < 0.01


def test_a_small_object_is_left_nearly_as_it_is() -> None:
    y, x = np.mgrid[:MASK_PX, :MASK_PX] - MASK_PX / 2
    nucleus = (8.0 - np.hypot(x, y)).astype(np.float32)

    assert abs((smooth_mask(nucleus) > 0).sum() / (nucleus > 0).sum() - 1) < 0.02


def test_smoothing_leaves_nothing_as_nothing_and_everything_as_everything() -> None:
    everything = np.full((MASK_PX, MASK_PX), 3.0, dtype=np.float32)

    np.testing.assert_array_equal(smooth_mask(-everything), -everything)
    np.testing.assert_allclose(smooth_mask(everything), everything, rtol=1e-5)
    with_gap = everything.copy()
    with_gap[0, 0] = np.nan
    assert np.isfinite(smooth_mask(with_gap)).all()
