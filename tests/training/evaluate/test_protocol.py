"""Prompts for annotated objects: how they are spread, and on which patch they are asked."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import shapely
from shapely.geometry import Point, Polygon

from fixtures.evaluate_models import MPP, SQUARE, OutlineModel, make_image
from wsisam_qupath.errors import OptionError
from wsisam_qupath.geometry import Box
from wsisam_qupath_training.evaluate.prompting import (
    add_box_noise,
    coarsen_outline,
    sample_points_inside,
)
from wsisam_qupath_training.evaluate.protocol import (
    BOX_AND_POINTS,
    CLICKS,
    GIVEN_BOX,
    PromptBuilder,
    ProtocolSettings,
    Query,
)

LONG = shapely.box(20, 100, 350, 160)


def prompt_builder(
    tmp_path: Path,
    settings: ProtocolSettings,
    outline: Polygon = SQUARE,
    *,
    sizes_um: Mapping[str, float] | None = None,
    given: Mapping[str, Box] | None = None,
    **model: Any,
) -> PromptBuilder:
    image = make_image(tmp_path, outlines=[outline], class_names=["gland"])
    return PromptBuilder(
        settings, OutlineModel("m", [outline], **model), image, MPP, sizes_um or {}, given or {}
    )


def build_queries(of: PromptBuilder) -> dict[str, Query]:
    return {query.label: query for query in of.build_queries(of.image.truths[0])}


def test_each_edge_of_a_box_moves_by_5_percent_of_its_side() -> None:
    rng = np.random.default_rng(0)
    box = Box(100, 200, 300, 240)

    drawn = [add_box_noise(box, rng, 0.05) for _ in range(4000)]

    edges = np.array([(b.x0, b.y0, b.x1, b.y1) for b in drawn])
    np.testing.assert_allclose(edges.mean(axis=0), (100, 200, 300, 240), atol=0.6)
    np.testing.assert_allclose(edges.std(axis=0), (10, 2, 10, 2), rtol=0.04)
    np.testing.assert_allclose(np.corrcoef(edges.T), np.eye(4), atol=0.06)


def test_a_box_is_never_turned_inside_out() -> None:
    rng = np.random.default_rng(0)

    drawn = [add_box_noise(Box(0, 0, 10, 10), rng, 0.5) for _ in range(500)]

    assert all(box.width >= 0 and box.height >= 0 for box in drawn)


def test_points_are_spread_evenly_a_pixel_inside() -> None:
    ring = Point(50, 50).buffer(40, 64) - Point(50, 50).buffer(20, 64)

    points = np.array(sample_points_inside(ring, np.random.default_rng(0), 4000))

    radius = np.hypot(*(points - 50).T)
    assert radius.min() > 20.9
    assert radius.max() < 39.1
    np.testing.assert_allclose(points.mean(axis=0), 50, atol=1.5)
    # Evenly by area: half of it lies within the radius between the two squares.
    assert np.mean(radius < np.sqrt((21**2 + 39**2) / 2)) == pytest.approx(0.5, abs=0.03)


@pytest.mark.parametrize(
    "sliver", [shapely.box(0, 0, 500, 0.5), Polygon([(0, 0), (500, 500), (500, 500.001)])]
)
def test_points_lie_in_a_sliver_too(sliver: Polygon) -> None:
    points = sample_points_inside(sliver, np.random.default_rng(0), 10)

    assert len(points) == 10
    assert all(sliver.distance(Point(p)) < 1e-9 for p in points)


@pytest.mark.parametrize("seed", range(5))
def test_a_coarse_outline_strays_by_its_noise(seed: int) -> None:
    disc = Point(500, 300).buffer(100, 64)

    rough = coarsen_outline(disc, np.random.default_rng(seed), 0.05)

    assert rough.is_valid
    angles = np.linspace(0, 2 * np.pi, 400)
    at = np.column_stack([500 + 100 * np.cos(angles), 300 + 100 * np.sin(angles)])
    strays = shapely.distance(rough.exterior, shapely.points(at))
    size = np.sqrt(disc.area)
    assert 0.015 * size < strays.mean() < 0.08 * size
    assert strays.max() < 0.25 * size


def test_more_noise_makes_an_outline_coarser() -> None:
    disc = Point(500, 300).buffer(100, 64)

    def mean_iou(share: float) -> float:
        rough = [coarsen_outline(disc, np.random.default_rng(n), share) for n in range(5)]
        ious = [disc.intersection(r).area / disc.union(r).area for r in rough]
        return float(np.mean(ious))

    assert mean_iou(0.0) > 0.97
    assert mean_iou(0.0) > mean_iou(0.05) > mean_iou(0.15) > 0.5


def test_a_tiny_object_has_a_coarse_outline() -> None:
    rough = coarsen_outline(shapely.box(7, 7, 8, 8), np.random.default_rng(0), 0.05)

    assert rough.is_valid
    assert 0.5 < rough.area < 1.5


def test_more_points_begin_with_the_fewer(tmp_path: Path) -> None:
    asked = build_queries(prompt_builder(tmp_path, ProtocolSettings()))

    points = [asked[label].prompt for label in ("1 point", "3 points", "5 points", "10 points")]
    found = [prompt.l0_positives for prompt in points if prompt is not None]
    assert [len(own) for own in found] == [1, 3, 5, 10]
    assert all(fewer == found[-1][: len(fewer)] for fewer in found)
    both = asked[BOX_AND_POINTS].prompt
    box = asked["box"].prompt
    assert both is not None
    assert box is not None
    assert (both.l0_positives, both.l0_box) == (found[1], box.l0_box)


def test_prompts_depend_on_the_object_and_the_seed_alone(tmp_path: Path) -> None:
    def asked(seed: int, *kinds: Any, name: str = "m") -> dict[str, Any]:
        settings = ProtocolSettings(kinds=kinds, seed=seed)
        return {k: q.prompt for k, q in build_queries(prompt_builder(tmp_path, settings)).items()}

    all_kinds = asked(0, "box", "points", "outline")

    assert asked(0, "outline")["outline"].l0_outline.equals(all_kinds["outline"].l0_outline)
    assert asked(0, "points")["1 point"] == all_kinds["1 point"]
    assert asked(1, "points")["1 point"] != all_kinds["1 point"]


def test_clicks_are_asked_on_the_pair_of_the_true_box(tmp_path: Path) -> None:
    settings = ProtocolSettings(kinds=("box", "noc"), box_noise=0.0)

    asked = build_queries(prompt_builder(tmp_path, settings, LONG))

    assert asked[CLICKS].prompt is None
    assert asked[CLICKS].pair == asked["box"].pair


@pytest.mark.parametrize(
    ("scale", "hr_mpp"), [("truth", 2.0), ("median", 2.0**0.5), (160.0, 1.0), (None, 1.0)]
)
def test_points_are_asked_at_the_scale_of_what_is_said_of_the_size(
    tmp_path: Path, scale: float | Literal["truth", "median"] | None, hr_mpp: float
) -> None:
    settings = ProtocolSettings(kinds=("points",), scale=scale)

    asked = build_queries(prompt_builder(tmp_path, settings, LONG, sizes_um={"gland": 200.0}))

    assert asked["1 point"].pair.hr_mpp == pytest.approx(hr_mpp)


def test_in_the_papers_protocol_the_object_ends_where_the_window_does(tmp_path: Path) -> None:
    settings = ProtocolSettings(kinds=("box",), box_noise=0.0, window_mpp=1.0)
    builder = prompt_builder(tmp_path, settings, LONG, hr_mpp=0.5)

    left, right = builder.build_queries(builder.image.truths[0])

    # 330 µm need two windows of 256, with the object in the middle of both.
    assert left.pair.hr_l0_box == Box(-71, 2, 185, 258)
    assert right.pair.hr_l0_box == Box(185, 2, 441, 258)
    assert left.l0_outline.bounds == (20, 100, 185, 160)
    assert right.l0_outline.bounds == (185, 100, 350, 160)
    assert right.prompt is not None
    assert right.prompt.l0_box == Box(185, 100, 350, 160)
    assert [q.object_key.object_id for q in (left, right)] == ["1, window 1", "1, window 2"]


def test_an_object_that_fits_a_window_is_in_its_middle_with_all_kinds_of_prompts(
    tmp_path: Path,
) -> None:
    asked = build_queries(prompt_builder(tmp_path, ProtocolSettings(window_mpp=1.0)))

    assert {q.pair.hr_l0_box.center for q in asked.values()} == {(110.0, 100.0)}
    assert {q.object_key.object_id for q in asked.values()} == {"1"}
    assert all(q.l0_outline.equals(SQUARE) for q in asked.values())


def test_windows_that_the_answer_everything_would_win_are_left_out(tmp_path: Path) -> None:
    disc = Point(200, 150).buffer(140, 64)  # 9 windows of 128; the one in the middle is full
    settings = ProtocolSettings(kinds=("box",), window_mpp=0.5)
    builder = prompt_builder(tmp_path, settings, disc)

    asked = list(builder.build_queries(builder.image.truths[0]))

    assert [q.object_key.object_id for q in asked] == [
        f"1, window {number}" for number in range(1, 9)
    ]
    shares = [q.l0_outline.area / 128**2 for q in asked]
    assert max(shares) <= 0.9
    assert min(shares) >= 0.01


def test_very_large_objects_are_asked_about_on_16_windows(tmp_path: Path) -> None:
    comb = shapely.union_all([shapely.box(10, y, 390, y + 4) for y in range(10, 290, 8)])
    settings = ProtocolSettings(kinds=("box",), window_mpp=0.125)
    builder = prompt_builder(tmp_path, settings, shapely.MultiPolygon(comb))

    asked = list(builder.build_queries(builder.image.truths[0]))

    assert len(asked) == 16
    assert asked == list(builder.build_queries(builder.image.truths[0]))


def test_a_box_of_another_model_is_asked_as_it_is(tmp_path: Path) -> None:
    given = Box(50, 45, 170, 155)

    asked = build_queries(
        prompt_builder(tmp_path, ProtocolSettings(kinds=("box",)), given={"1": given})
    )

    prompt = asked[GIVEN_BOX].prompt
    assert prompt is not None
    assert prompt.l0_box == given


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"box_noise": -0.1}, "box_noise: -0.1 is not a share"),
        ({"outline_noise": float("nan")}, "outline_noise: nan is not a share"),
        ({"scale": 0.0}, "scale: 0 is not a positive size"),
        ({"window_mpp": -1.0}, "window_mpp: -1 is not a pixel size"),
        ({"kinds": ()}, "kinds: none is given"),
        ({"kinds": ("box", "lines")}, "kinds: lines is none of"),
    ],
)
def test_settings_out_of_range_are_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        ProtocolSettings(**wrong)
