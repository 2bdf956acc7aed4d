"""Which decoder answers which prompt, and what follows the first answer."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from fixtures.models import PLAIN_BASE, card, load_openvino, routed_to
from wsisam_qupath.geometry import Box
from wsisam_qupath.inference.backends import Embedding, ImageArray, Prediction
from wsisam_qupath.inference.predictor import Predictor, project_mask
from wsisam_qupath.model.adapter import read_adapter, write_adapter
from wsisam_qupath.model.card import DecoderCard, Route, SecondPass
from wsisam_qupath.prompts import PromptKind
from wsisam_qupath.prompts.encoding import (
    CLAMP_LOGIT,
    PADDING,
    POSITIVE,
    EncodedPrompt,
    encode_box,
    mask_box,
    project_mask_to_lr,
)

BOX = encode_box(Box(2, 17, 110, 148))


def point_tokens(x: float, y: float) -> EncodedPrompt:
    point_coords = np.array([[x, y], [0, 0]], dtype=np.float32)
    return EncodedPrompt(
        PromptKind.POINTS, point_coords, np.array([POSITIVE, PADDING], dtype=np.int64)
    )


@pytest.fixture(scope="module")
def embedding(wsi_openvino: Predictor, patches: tuple[ImageArray, ImageArray]) -> Embedding:
    hr, lr = patches
    return wsi_openvino.backend.embed([[hr, lr]])[0]


def decoded(
    predictor: Predictor, embedding: Embedding, decoder: str, encoded: EncodedPrompt
) -> Prediction:
    """The mask with the highest predicted IoU."""
    masks = predictor.backend.decode(decoder, embedding, [encoded])[0]
    return max(masks, key=lambda mask: mask.predicted_iou)


def test_a_box_is_answered_by_the_decoder_that_its_route_names(
    wsi_openvino: Predictor, embedding: Embedding
) -> None:
    (answer,) = wsi_openvino.predict(embedding, [BOX])

    expected = decoded(wsi_openvino, embedding, "boxes", BOX)
    np.testing.assert_array_equal(answer[0].mask_logits, expected.mask_logits)
    assert answer[0].predicted_iou == max(mask.predicted_iou for mask in answer)


def test_self_box_asks_again_with_the_box_of_the_first_answer(
    wsi_openvino: Predictor, embedding: Embedding
) -> None:
    point = next(
        encoded
        for x, y in np.ndindex(8, 8)
        if (
            decoded(
                wsi_openvino, embedding, "points", encoded := point_tokens(32 * x + 9, 32 * y + 9)
            ).mask_logits
            > 0
        ).any()
    )

    (answer,) = wsi_openvino.predict(embedding, [point])

    first = decoded(wsi_openvino, embedding, "points", point)
    hr_mask, _ = project_mask(first.mask_logits, first.patch)
    second = decoded(wsi_openvino, embedding, "boxes", encode_box(mask_box(hr_mask, 256)))
    np.testing.assert_array_equal(answer[0].mask_logits, second.mask_logits)


def test_own_mask_asks_again_with_the_clamped_logits_of_the_first_answer(
    wsi_openvino: Predictor, embedding: Embedding
) -> None:
    mask = np.full((256, 256), -8, dtype=np.float32)
    mask[20:150, 5:110] = 8
    point_coords = np.array([[50, 60], [2, 17], [110, 148]], dtype=np.float32)
    point_labels = np.array([POSITIVE, 2, 3], dtype=np.int64)
    encoded = EncodedPrompt(
        PromptKind.OUTLINE_POINTS, point_coords, point_labels, mask, project_mask_to_lr(mask)
    )

    (answer,) = wsi_openvino.predict(embedding, [encoded])

    first = decoded(wsi_openvino, embedding, "boxes", encoded)
    assert (first.mask_logits > 0).any()
    hr_again, lr_again = (
        np.clip(projected, -CLAMP_LOGIT, CLAMP_LOGIT)
        for projected in project_mask(first.mask_logits, first.patch)
    )
    followed = EncodedPrompt(encoded.kind, point_coords, point_labels, hr_again, lr_again)
    second = decoded(wsi_openvino, embedding, "boxes", followed)
    np.testing.assert_array_equal(answer[0].mask_logits, second.mask_logits)


def test_answers_come_in_the_order_of_their_prompts(
    plain_openvino: Predictor, patches: tuple[ImageArray, ImageArray]
) -> None:
    embedding = plain_openvino.backend.embed([patches[:1]])[0]
    prompts = [
        encode_box(Box(10, 10, 90, 90)),
        point_tokens(60, 60),
        encode_box(Box(100, 20, 220, 140)),
        EncodedPrompt(
            BOX.kind, BOX.point_coords, BOX.point_labels, np.zeros((256, 256), np.float32)
        ),
    ]

    together = plain_openvino.predict(embedding, prompts)

    for prompt, answer in zip(prompts, together, strict=True):
        (alone,) = plain_openvino.predict(embedding, [prompt])
        np.testing.assert_allclose(answer[0].mask_logits, alone[0].mask_logits, atol=1e-3)


@pytest.mark.slow
def test_each_patch_refines_its_own_mask_where_each_answers_by_itself(
    cache: Path, tmp_path: Path, patches: tuple[ImageArray, ImageArray]
) -> None:
    path = tmp_path / "pair.safetensors"
    cards = {"pair": DecoderCard(architecture="sam", both_patches=True)}
    twice = Route(decoder="pair", second_pass=SecondPass.OWN_MASK)
    write_adapter(path, card(cards, routed_to("pair") | {PromptKind.POINTS: twice}), {})
    predictor = load_openvino(path)
    (embedding,) = predictor.backend.embed([patches])
    encoded = point_tokens(128, 128)

    (answer,) = predictor.predict(embedding, [encoded])

    (first,) = predictor.backend.decode("pair", embedding, [encoded])
    assert (first[0].mask_logits > 0).any() or (first[1].mask_logits > 0).any()
    own = [np.clip(each.mask_logits, -CLAMP_LOGIT, CLAMP_LOGIT) for each in first]
    again = replace(encoded, mask_input=own[0], lr_mask_input=own[1])
    (second,) = predictor.backend.decode("pair", embedding, [again])
    by_patch = {each.patch: each.mask_logits for each in answer}
    assert by_patch.keys() == {"hr", "lr"}
    for each in second:
        np.testing.assert_array_equal(by_patch[each.patch], each.mask_logits)


def test_only_an_adapter_with_wsi_sam_reads_the_lr_patch(
    plain_openvino: Predictor, wsi_openvino: Predictor
) -> None:
    assert plain_openvino.patch_count == 1
    assert wsi_openvino.patch_count == 2
    assert wsi_openvino.answers_with_lr(PromptKind.BOX, fits_hr=False)
    assert wsi_openvino.answers_with_lr(PromptKind.POINTS, fits_hr=False)
    assert not wsi_openvino.answers_with_lr(PromptKind.BOX_POINTS, fits_hr=False)


def test_an_empty_first_answer_is_the_last(wsi_openvino: Predictor, embedding: Embedding) -> None:
    nowhere = point_tokens(128, 92)
    first = decoded(wsi_openvino, embedding, "points", nowhere)
    assert first.mask_logits.max() < -1

    (answer,) = wsi_openvino.predict(embedding, [nowhere])

    np.testing.assert_array_equal(answer[0].mask_logits, first.mask_logits)


def test_the_scale_is_that_of_the_adapter(
    plain_openvino: Predictor, wsi_openvino: Predictor, adapter_path: Path, tmp_path: Path
) -> None:
    tensors = load_file(adapter_path)
    finer = tmp_path / "finer.safetensors"
    write_adapter(finer, card().model_copy(update={"hr_mpp": 0.5}), tensors)
    adapter = read_adapter(finer, PLAIN_BASE)

    assert Predictor(wsi_openvino.backend, PLAIN_BASE, adapter).hr_mpp == 0.5
    assert wsi_openvino.hr_mpp == plain_openvino.hr_mpp == 1.0


def test_no_prompts_give_no_answers(wsi_openvino: Predictor, embedding: Embedding) -> None:
    assert wsi_openvino.predict(embedding, []) == []
