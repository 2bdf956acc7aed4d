"""Models with the same encoder share what it made of patches, and answer the same."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fixtures.counting import count_encodes
from wsisam_qupath import Box, OutlineOptions, Prompt, Result, Segmenter, Slide
from wsisam_qupath.inference.predictor import Predictor
from wsisam_qupath.inference.shared_patches import SharedPatches

pytestmark = pytest.mark.slow

GLAND = Prompt("gland", l0_box=Box(248, 298, 392, 510))
CLICK = Prompt("click", l0_positives=((320.0, 404.0),))
LARGE = Prompt("large", l0_box=Box(0, 0, 280, 266))


def outline(segmenter: Segmenter, slide: Slide) -> dict[str, tuple[bytes, float]]:
    options = OutlineOptions(min_area_um2=0)
    answers = segmenter.segment(slide, [GLAND, CLICK, LARGE], options)
    return {
        one.prompt.id: (one.polygon.wkb, one.predicted_iou)
        for one in answers
        if isinstance(one, Result)
    }


@pytest.mark.parametrize(
    ("first", "second"), [("wsi_openvino", "plain_openvino"), ("wsi_torch", "plain_torch")]
)
def test_a_second_model_encodes_nothing_again_and_answers_as_it_does_alone(
    first: str, second: str, request: pytest.FixtureRequest, tissue_slide: Slide
) -> None:
    shared = SharedPatches()
    outline(Segmenter(request.getfixturevalue(first), shared=shared), tissue_slide)
    alone, of_alone = count_encodes(request.getfixturevalue(second))
    sharing, of_sharing = count_encodes(request.getfixturevalue(second))

    expected = outline(Segmenter(alone), tissue_slide)
    answers = outline(Segmenter(sharing, shared=shared), tissue_slide)

    assert answers == expected
    assert answers
    assert of_alone.encoded > 0
    assert of_sharing.encoded == 0


def test_nothing_is_shared_with_another_encoder(
    wsi_openvino: Predictor, plain_torch: Predictor, tissue_slide: Slide
) -> None:
    shared = SharedPatches()
    outline(Segmenter(wsi_openvino, shared=shared), tissue_slide)
    segmenter = Segmenter(wsi_openvino)
    pair = segmenter.planner(tissue_slide, OutlineOptions()).pair(GLAND)
    adapter = wsi_openvino.adapter
    assert adapter is not None
    tuned = replace(adapter, encoder_sha256="0" * 64)
    other = Predictor(wsi_openvino.backend, wsi_openvino.base, tuned)

    found = [
        shared.find(one, tissue_slide, pair.hr_l0_box, pair.size_px) is not None
        for one in (wsi_openvino, other, plain_torch)
    ]

    assert found == [True, False, False]


def test_adapters_that_bring_the_same_encoder_share_what_it_made(
    wsi_openvino: Predictor, tissue_slide: Slide
) -> None:
    adapter, shared = wsi_openvino.adapter, SharedPatches()
    assert adapter is not None
    first, second, other = (
        Predictor(
            wsi_openvino.backend,
            wsi_openvino.base,
            replace(adapter, sha256=file * 64, encoder_sha256=encoder * 64),
        )
        for file, encoder in (("1", "a"), ("2", "a"), ("2", "b"))
    )
    outline(Segmenter(first, shared=shared), tissue_slide)
    pair = Segmenter(first).planner(tissue_slide, OutlineOptions()).pair(GLAND)

    found = [
        shared.find(one, tissue_slide, pair.hr_l0_box, pair.size_px) is not None
        for one in (first, second, other)
    ]

    assert found == [True, True, False]


def test_patches_beyond_the_limit_are_encoded_again(
    plain_openvino: Predictor, tissue_slide: Slide
) -> None:
    shared = SharedPatches(cache_bytes=1000)
    expected = outline(Segmenter(plain_openvino, shared=shared), tissue_slide)
    counted, counting = count_encodes(plain_openvino)

    assert outline(Segmenter(counted, shared=shared), tissue_slide) == expected
    assert counting.encoded > 0
