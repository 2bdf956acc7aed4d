"""An earlier answer and clicks that correct it: one prompt, its place, its tokens, its id."""

from __future__ import annotations

import numpy as np
import pytest
import shapely
from shapely.geometry import Polygon

from fixtures.command_line import annotation, rectangle
from wsisam_qupath import Result, Segmenter, Slide
from wsisam_qupath.errors import PromptError
from wsisam_qupath.geojson import prompts_to_refine, to_feature
from wsisam_qupath.geometry import Box, Mpp, PatchPair
from wsisam_qupath.inference.predictor import Predictor
from wsisam_qupath.prompts import Prompt, PromptKind, PromptSet, clip_to_slide
from wsisam_qupath.prompts.encoding import NEGATIVE, PADDING, POSITIVE, encode_prompt
from wsisam_qupath.prompts.planner import Planner
from wsisam_qupath.prompts.results import compute_result_id

EARLIER = Polygon([(100, 100), (180, 110), (170, 190), (110, 180)])
AREA = annotation("earlier", "Polygon", [list(map(list, EARLIER.exterior.coords))], "Gland")
POSITIVE_CLICK = annotation("inside", "Point", [150, 150], "Tumor")
NEGATIVE_CLICKS = annotation("outside", "MultiPoint", [[175, 175], [300, 300]], "Ignore*")
PLANNER = Planner(Mpp(0.5, 0.5), size_px=256)


def only_prompt(prompt_set: PromptSet) -> Prompt:
    assert prompt_set.skipped == ()
    (prompt,) = prompt_set.prompts
    return prompt


def test_all_points_correct_the_area_wherever_they_lie() -> None:
    prompt = only_prompt(prompts_to_refine([NEGATIVE_CLICKS, POSITIVE_CLICK], AREA))

    assert (prompt.id, prompt.kind) == ("inside", PromptKind.POINTS)
    assert prompt.l0_earlier is not None
    assert prompt.l0_earlier.equals(EARLIER)
    assert prompt.l0_positives == ((150, 150),)
    assert prompt.l0_negatives == ((175, 175), (300, 300))
    assert prompt.path_class is not None
    assert prompt.path_class.name == "Tumor"


def test_negative_points_alone_correct_an_area() -> None:
    prompt = only_prompt(prompts_to_refine([NEGATIVE_CLICKS], AREA))

    assert (prompt.id, prompt.kind, prompt.l0_positives) == ("outside", PromptKind.POINTS, ())
    assert prompt.path_class is not None
    assert prompt.path_class.name == "Gland"


def test_a_rectangle_among_the_prompts_bounds_the_object() -> None:
    drawn = [rectangle("box", (90, 90, 200, 200)), POSITIVE_CLICK]

    prompt = only_prompt(prompts_to_refine(drawn, AREA))

    assert (prompt.id, prompt.kind) == ("inside", PromptKind.BOX_POINTS)
    assert prompt.l0_extent == Box(90, 90, 200, 200)


def test_without_points_the_area_is_a_rough_outline() -> None:
    prompt = only_prompt(prompts_to_refine([], AREA))

    assert (prompt.id, prompt.kind) == ("earlier", PromptKind.OUTLINE)
    assert prompt.l0_earlier is None


def test_without_points_a_rectangular_area_is_a_box() -> None:
    prompt = only_prompt(prompts_to_refine([], rectangle("earlier", (10, 10, 50, 60))))

    assert (prompt.id, prompt.kind) == ("earlier", PromptKind.BOX)


def test_other_areas_among_the_prompts_are_skipped() -> None:
    drawn = [POSITIVE_CLICK, rectangle("one", (0, 0, 9, 9)), rectangle("two", (0, 0, 8, 8))]

    found = prompts_to_refine(drawn, AREA)

    assert [skipped.id for skipped in found.skipped] == ["two"]


@pytest.mark.parametrize(
    "area",
    [
        {"type": "Feature", "geometry": None},
        annotation("click", "Point", [1, 2]),
        annotation("line", "Polygon", [[[0, 0], [5, 5]]]),
    ],
)
def test_what_is_no_area_cannot_be_refined(area: object) -> None:
    with pytest.raises(PromptError, match="The area to refine is not usable"):
        prompts_to_refine([POSITIVE_CLICK], area)


def test_an_earlier_answer_is_a_mask_and_no_box() -> None:
    pair = PatchPair(256, 256, 1.0, 256, Mpp(0.5, 0.5))
    prompt = Prompt("p", l0_earlier=EARLIER, l0_positives=((150, 150),), l0_negatives=((175, 175),))

    encoded = encode_prompt(prompt, pair)

    assert encoded.point_labels.tolist() == [POSITIVE, NEGATIVE, PADDING]
    assert encoded.mask_input is not None
    assert encoded.lr_mask_input is not None
    rows, columns = np.nonzero(encoded.mask_input > 0)
    inside = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
    # A pixel of the mask is two of the slide.
    assert np.abs(2 * inside - np.array(EARLIER.bounds)).max() <= 2


def test_a_correction_is_planned_round_the_first_click_as_before() -> None:
    click = Prompt("p", l0_positives=((150, 150),))
    correction = Prompt(
        "p", l0_positives=((150, 150),), l0_negatives=((175, 175),), l0_earlier=EARLIER
    )

    assert PLANNER.pair(correction) == PLANNER.pair(click)


def test_the_pair_of_a_correction_holds_the_whole_earlier_answer() -> None:
    far = shapely.box(0, 0, 900, 400)

    pair = PLANNER.pair(Prompt("p", l0_positives=((30, 30),), l0_earlier=far))

    assert shapely.box(*pair.hr_l0_box.corners().ravel()).contains(far)


def test_negative_points_alone_are_planned_round_the_earlier_answer() -> None:
    pair = PLANNER.pair(Prompt("p", l0_negatives=((900, 900),), l0_earlier=EARLIER))

    assert pair.hr_l0_box.contains(*EARLIER.centroid.coords[0])
    assert pair.hr_mpp == 1.0


def test_an_area_off_the_slide_is_no_prompt() -> None:
    prompt = Prompt("p", l0_negatives=((10, 10),), l0_earlier=EARLIER)

    found = clip_to_slide(PromptSet((prompt,)), Box(0, 0, 50, 50))

    assert found.prompts == ()
    assert found.skipped[0].id == "p"


def test_the_earlier_answer_is_part_of_the_id() -> None:
    ids = {
        compute_result_id(Prompt("p", l0_positives=((1, 1),), l0_earlier=earlier), "base", None, {})
        for earlier in (None, EARLIER, EARLIER.reverse(), shapely.box(0, 0, 5, 5))
    }

    assert len(ids) == 3


def test_without_an_earlier_answer_ids_are_what_they_were() -> None:
    prompt = Prompt("p", l0_box=Box(1, 2, 3, 4), l0_positives=((1, 1),))

    first = compute_result_id(prompt, "base", None, {"a": 1}, answers=1)
    assert first == "ce458316-6db7-5f45-b2ea-865992efc98c"


def test_a_correction_is_answered(plain_openvino: Predictor, tissue_slide: Slide) -> None:
    segmenter = Segmenter(plain_openvino)
    first = Prompt("first", l0_box=Box(248, 298, 392, 510))
    (result,) = segmenter.segment(tissue_slide, [first])
    assert isinstance(result, Result)
    prompts = prompts_to_refine(
        [annotation("more", "Point", [320, 400])], to_feature(result, "detection")
    )

    (corrected,) = segmenter.segment(tissue_slide, prompts.prompts)

    assert isinstance(corrected, Result)
    assert corrected.prompt.id == "more"
