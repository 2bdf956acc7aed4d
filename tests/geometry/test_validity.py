from __future__ import annotations

import numpy as np
import pytest
from shapely.geometry import LineString, MultiPolygon, Polygon

from wsisam_qupath.errors import PromptError
from wsisam_qupath.geojson import prompts_from_geojson
from wsisam_qupath.geometry import Box
from wsisam_qupath.geometry.validity import TangledError, crossings, make_valid


def star(vertices: int) -> Polygon:
    """Every edge crosses every other one that does not touch it."""
    turns = np.arange(vertices) * (vertices // 2) / vertices
    angles = 2 * np.pi * turns
    return Polygon(np.stack([np.cos(angles), np.sin(angles)], axis=1) * 1000)


def comb(teeth: int, *, upright: bool) -> Polygon:
    """A valid zigzag; two of them, one turned, cross teeth² times and more."""
    across = np.repeat(np.arange(teeth), 2) * 10.0
    along = np.tile([0.0, 10.0 * teeth, 10.0 * teeth, 0.0], teeth)[: 2 * teeth]
    line = LineString(np.stack([across, along] if upright else [along, across], axis=1))
    return line.buffer(0.5, cap_style="flat", join_style="mitre")


def test_a_valid_outline_stays_itself() -> None:
    outline = Polygon([(0, 0), (9, 0), (9, 9)])

    assert make_valid(outline) is outline


def test_both_halves_of_a_bow_tie_stay() -> None:
    assert make_valid(Polygon([(0, 0), (10, 10), (10, 0), (0, 10)])).area == 50


def test_what_is_run_around_twice_is_inside() -> None:
    found = make_valid(star(5))

    assert isinstance(found, Polygon)
    assert not found.interiors


def test_a_ring_of_300_vertices_that_all_cross_is_repaired() -> None:
    found = make_valid(star(301))

    assert found.is_valid
    assert found.area == pytest.approx(1000**2 * np.pi / 3, rel=1e-2)


def test_crossings_are_told_without_making_them() -> None:
    assert crossings(star(1001)) == pytest.approx(1001 * 998 / 2, rel=0.02)
    assert crossings(comb(2000, upright=True)) == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    "outline",
    [
        star(5001),
        MultiPolygon([comb(1000, upright=True), comb(1000, upright=False)]),
    ],
    ids=["one ring", "two valid parts"],
)
def test_an_outline_that_would_take_hours_is_refused_at_once(
    outline: Polygon | MultiPolygon,
) -> None:
    with pytest.raises(TangledError, match="more than 50000 times"):
        make_valid(outline)


def test_a_tangled_prompt_is_skipped_and_its_neighbour_is_not() -> None:
    tangled, square = star(2001), Polygon([(0, 0), (90, 5), (90, 90)])
    features = [{"type": "Feature", "geometry": one.__geo_interface__} for one in (tangled, square)]

    found = prompts_from_geojson(features, hr_l0_box_of=lambda _: Box(0, 0, 1, 1))

    assert len(found.prompts) == 1
    assert found.skipped[0].reason == "it crosses itself more than 50000 times"


def test_reading_is_broken_off_between_features() -> None:
    features = [
        {"type": "Feature", "geometry": Polygon([(0, 0), (90, 5), (90, 9)]).__geo_interface__}
    ] * 10
    looked = []

    def check() -> None:
        looked.append(1)
        if len(looked) == 4:
            raise PromptError("Nobody waits.")

    with pytest.raises(PromptError, match="Nobody waits"):
        prompts_from_geojson(features, hr_l0_box_of=lambda _: Box(0, 0, 1, 1), check=check)

    assert len(looked) == 4
