"""Which answers of auto mask are kept: of one point, and of several that found the same."""

from __future__ import annotations

import pytest
from shapely.geometry import box

from fixtures.sam_extension import (
    MULTI_ALL,
    MULTI_BEST_QUALITY,
    MULTI_LARGEST,
    MULTI_SMALLEST,
    SINGLE_MASK,
)
from wsisam_qupath.server.samapi.automask import (
    FoundObject,
    choose_candidates,
    count_points,
    drop_overlapping,
)
from wsisam_qupath.server.samapi.schemas import AutoMaskRequest

SMALL, LARGE = FoundObject(box(0, 0, 4, 4), 0.9, 0), FoundObject(box(0, 0, 8, 8), 0.8, 0)


def request(**fields: object) -> AutoMaskRequest:
    return AutoMaskRequest.model_validate({"b64img": "x", **fields})


@pytest.mark.parametrize(
    ("mode", "kept"),
    [
        (SINGLE_MASK, [SMALL]),
        (MULTI_ALL, [SMALL, LARGE]),
        (MULTI_LARGEST, [LARGE]),
        (MULTI_SMALLEST, [SMALL]),
        (MULTI_BEST_QUALITY, [SMALL]),
    ],
)
def test_the_dialog_chooses_among_the_answers_to_a_point(
    mode: str, kept: list[FoundObject]
) -> None:
    wanted = request(output_type=mode).output_type
    answers = [SMALL] if mode == SINGLE_MASK else [SMALL, LARGE]

    assert list(choose_candidates(answers, wanted)) == kept


def test_of_objects_with_the_same_box_the_surest_is_kept() -> None:
    sure, unsure = FoundObject(box(0, 0, 9, 9), 0.9, 0), FoundObject(box(0, 0, 9, 8), 0.8, 0)
    apart = FoundObject(box(20, 0, 29, 9), 0.7, 0)

    assert drop_overlapping([unsure, apart, sure], request(box_nms_thresh=0.5)) == [sure, apart]
    assert drop_overlapping([unsure, sure], request(box_nms_thresh=0.95)) == [sure, unsure]


def test_objects_of_two_layers_have_a_threshold_of_their_own() -> None:
    coarse, fine = FoundObject(box(0, 0, 9, 9), 0.9, 0), FoundObject(box(0, 0, 9, 8), 0.8, 1)
    wanted = request(box_nms_thresh=0.1, crop_nms_thresh=0.95)

    assert drop_overlapping([coarse, fine], wanted) == [coarse, fine]


def test_thousands_of_objects_take_little_time() -> None:
    many = [FoundObject(box(n, 0, n + 1, 1), n / 1e5, 0) for n in range(2_000)]

    assert drop_overlapping(many, request()) == many[::-1]
    assert drop_overlapping([], request()) == []


def test_each_layer_has_as_many_points_in_each_of_its_crops() -> None:
    assert count_points(request(points_per_side=16)) == [16]
    assert count_points(request(points_per_side=16, crop_n_layers=2)) == [16, 32, 64]
    fewer = request(points_per_side=16, crop_n_layers=2, crop_n_points_downscale_factor=2)
    assert count_points(fewer) == [16, 16, 16]
    assert count_points(request(points_per_side=1, crop_n_points_downscale_factor=0)) == [1]


def test_the_extensions_words_are_taken_in_any_case() -> None:
    assert request(output_type="Single Mask").output_type == "single mask"
