"""WSI-SAM's dual decoder against its own formulas (section 2.2, figure 2)."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import nn

from models import PLAIN_BASE, sam_of
from wsisam_qupath.model.build import Model, build_decoder, build_prompted_sam, learned_state
from wsisam_qupath.model.card import DecoderCard
from wsisam_qupath.model.decoders import (
    Aggregation,
    PromptedSam,
    ResolutionDecoder,
    TokenAnswer,
    WsiSamDecoder,
)

TOLERANCE = 1e-4
ODD_BOX = torch.tensor([[[41.0, 51.5], [200.25, 180.125]]])
BOX_LABELS = torch.tensor([[2, 3]])


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def wsi_decoder(sam: PromptedSam, **settings: object) -> WsiSamDecoder:
    card = DecoderCard.model_validate({"architecture": "wsi-sam", **settings})
    decoder = build_decoder(PLAIN_BASE, sam, card).eval()
    assert isinstance(decoder, WsiSamDecoder)
    return decoder


def lr_of(decoder: WsiSamDecoder) -> ResolutionDecoder:
    assert decoder.lr is not None
    return decoder.lr


@pytest.fixture
def sam(lite: Model) -> PromptedSam:
    return sam_of(lite)


@pytest.fixture
def images() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """HR and LR embedding, 1 x 4096 x 256, and HR features, 1 x 32 x 256 x 256."""
    return torch.randn(1, 4096, 256), torch.randn(1, 4096, 256), torch.randn(1, 32, 256, 256)


@torch.inference_mode()
def test_the_folded_convolution_gives_the_product_of_token_and_mask_features() -> None:
    resolution = ResolutionDecoder(early_channels=160)
    token, upscaled = torch.randn(2, 32), torch.randn(2, 32, 256, 256)
    image_features = torch.randn(1, 32, 256, 256)

    logits = resolution.logits(token, upscaled, image_features)

    mask_features = resolution.mask_features(upscaled) + image_features
    expected = torch.einsum("bc,bchw->bhw", token, mask_features)
    assert (logits - expected).abs().max() < TOLERANCE


@torch.inference_mode()
def test_image_features_are_the_sum_of_both_upscaled_feature_maps() -> None:
    resolution = ResolutionDecoder(early_channels=160)
    final, early = torch.randn(1, 256, 64, 64), torch.randn(1, 160, 64, 64)

    features = resolution.image_features(final.flatten(2).transpose(1, 2), early)

    assert torch.equal(features, resolution.up_embedding(final) + resolution.up_early(early))
    assert features.shape == (1, 32, 256, 256)


def test_a_resolution_learns_450_thousand_parameters() -> None:
    resolution = ResolutionDecoder(PLAIN_BASE.early_channels)

    count = sum(parameter.numel() for parameter in resolution.parameters())

    assert count == 448_512
    assert 440_000 < count < 460_000  # about 0.45 M


@pytest.mark.parametrize(
    ("aggregation", "expected"),
    [("mean", [2.0, -1.0]), ("max", [3.0, 0.0]), ("concat", [1.0 + 10 * 3.0, -2.0 + 10 * 0.0])],
)
@torch.inference_mode()
def test_tokens_are_aggregated_by_hand_values(
    sam: PromptedSam, aggregation: str, expected: list[float]
) -> None:
    decoder = wsi_decoder(sam, aggregation=aggregation)
    if aggregation == "concat":  # HR token + 10 LR token
        decoder.concat.weight.copy_(torch.cat([torch.eye(32), 10 * torch.eye(32)], dim=1))
        decoder.concat.bias.zero_()
    hr_token, lr_token = torch.tensor([[1.0, -2.0] * 16]), torch.tensor([[3.0, 0.0] * 16])

    token = decoder.aggregate(hr_token, lr_token)

    assert token.tolist() == [expected * 16]


@torch.inference_mode()
def test_adding_sams_logits_adds_exactly_its_own_answer_on_the_hr_patch(
    sam: PromptedSam, images: tuple[torch.Tensor, torch.Tensor, torch.Tensor]
) -> None:
    decoder = wsi_decoder(sam, add_sam_logits=False)
    alone = decoder(*images, ODD_BOX, BOX_LABELS)
    decoder.add_sam_logits = True
    together = decoder(*images, ODD_BOX, BOX_LABELS)

    answer = decoder.tokens(images[0], images[1], ODD_BOX, BOX_LABELS)
    own = sam.own_answer(answer.hr_updated, answer.hr_upscaled)

    assert torch.equal(together.hr_logits, alone.hr_logits + own.hr_logits)
    assert torch.equal(together.iou, own.iou)


def tokens_by_hand(
    decoder: WsiSamDecoder,
    images: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
    lr_coords: torch.Tensor,
) -> torch.Tensor:
    """The mean token where the LR patch is asked at ``lr_coords``."""
    sam, no_mask = decoder.sam, decoder.sam.dense(None)
    hr_sparse = sam.sparse(ODD_BOX, BOX_LABELS)
    lr_sparse = sam.sparse(lr_coords, BOX_LABELS)
    hr_token = decoder.hr.update(sam, images[0] + no_mask, hr_sparse)[0]
    lr_token = lr_of(decoder).update(sam, images[1] + no_mask, lr_sparse)[0]
    return (hr_token + lr_token) / 2


@pytest.mark.parametrize(("base_px", "offset"), [(256, 64), (1024, 256)])
@torch.inference_mode()
def test_the_lr_prompt_is_half_the_hr_prompt_plus_a_quarter_of_the_patch_unfloored(
    base_px: int, offset: float, images: tuple[torch.Tensor, torch.Tensor, torch.Tensor]
) -> None:
    base = type(PLAIN_BASE)(**{**vars(PLAIN_BASE), "size_px": base_px})
    decoder = wsi_decoder(build_prompted_sam(base))
    exact = ODD_BOX / 2 + offset

    answer = decoder.tokens(images[0], images[1], ODD_BOX, BOX_LABELS)

    assert torch.equal(answer.token, tokens_by_hand(decoder, images, exact))
    assert not torch.equal(answer.token, tokens_by_hand(decoder, images, exact.floor()))


@torch.inference_mode()
def test_each_patch_gets_the_mask_prompt_of_its_own(
    sam: PromptedSam, images: tuple[torch.Tensor, torch.Tensor, torch.Tensor]
) -> None:
    decoder = wsi_decoder(sam)
    hr_mask, lr_mask = torch.randn(1, 256, 256), torch.randn(1, 256, 256)

    answer = decoder.tokens(images[0], images[1], ODD_BOX, BOX_LABELS, hr_mask, lr_mask)

    lr_coords = ODD_BOX / 2 + 64
    sources = images[0] + sam.dense(hr_mask), images[1] + sam.dense(lr_mask)
    hr_token = decoder.hr.update(sam, sources[0], sam.sparse(ODD_BOX, BOX_LABELS))[0]
    lr_token = lr_of(decoder).update(sam, sources[1], sam.sparse(lr_coords, BOX_LABELS))[0]
    assert torch.equal(answer.token, (hr_token + lr_token) / 2)


@torch.inference_mode()
def test_the_new_token_stands_between_sams_output_tokens_and_the_prompt(
    sam: PromptedSam, images: tuple[torch.Tensor, torch.Tensor, torch.Tensor]
) -> None:
    resolution = ResolutionDecoder(early_channels=160)
    sparse = sam.sparse(ODD_BOX, BOX_LABELS)

    _, updated, _ = resolution.update(sam, images[0] + sam.dense(None), sparse)
    as_a_prompt = torch.cat([resolution.token.weight[None], sparse], dim=1)
    expected, _ = sam.transform(images[0] + sam.dense(None), as_a_prompt)

    assert updated.shape == (1, 1 + 4 + 1 + 2, 256)
    assert torch.equal(updated, expected)


@torch.inference_mode()
def test_an_iou_head_of_its_own_replaces_sams(
    sam: PromptedSam, images: tuple[torch.Tensor, torch.Tensor, torch.Tensor]
) -> None:
    decoder = wsi_decoder(sam, iou_head=True)
    assert decoder.iou_head is not None

    decoded = decoder(*images, ODD_BOX, BOX_LABELS)

    token = decoder.tokens(images[0], images[1], ODD_BOX, BOX_LABELS).token
    assert torch.equal(decoded.iou, decoder.iou_head(token)[:, 0])


@torch.inference_mode()
def test_the_lr_mask_is_the_token_on_the_lr_features(
    sam: PromptedSam, images: tuple[torch.Tensor, torch.Tensor, torch.Tensor]
) -> None:
    decoder = wsi_decoder(sam)
    token, upscaled = torch.randn(3, 32), torch.randn(3, 32, 256, 256)
    answer = TokenAnswer(token, torch.empty(0), torch.empty(0), upscaled)

    lr_logits = decoder.lr_logits(answer, images[2])

    expected = lr_of(decoder).logits(token, upscaled, images[2])
    assert lr_logits.shape == (3, 256, 256)
    assert torch.equal(lr_logits, expected)


def test_with_a_frozen_sam_both_masks_teach_wsi_sam_alone(
    sam: PromptedSam, images: tuple[torch.Tensor, torch.Tensor, torch.Tensor]
) -> None:
    frozen = build_prompted_sam(PLAIN_BASE).requires_grad_(False)
    frozen.load_state_dict(sam.state_dict())
    decoder = wsi_decoder(frozen, aggregation="concat", iou_head=True)
    early = torch.randn(1, 160, 64, 64)

    answer = decoder.tokens(images[0], images[1], ODD_BOX, BOX_LABELS)
    hr_features = decoder.hr.image_features(images[0], early)
    hr = decoder(images[0], images[1], hr_features, ODD_BOX, BOX_LABELS)
    lr_logits = decoder.lr_logits(answer, lr_of(decoder).image_features(images[1], early))
    (hr.hr_logits.square().mean() + lr_logits.square().mean() + hr.iou.sum()).backward()

    taught = {name for name, p in decoder.named_parameters() if p.grad is not None and p.grad.any()}
    assert {f"wsi.{name}" for name in taught} == set(learned_state(decoder))


@torch.inference_mode()
def test_prompts_answered_together_get_the_answers_that_they_get_alone(
    sam: PromptedSam, images: tuple[torch.Tensor, torch.Tensor, torch.Tensor]
) -> None:
    decoder = wsi_decoder(sam)
    coords = torch.cat([ODD_BOX, ODD_BOX.flip(1) * 0.5, ODD_BOX + 20])
    labels = BOX_LABELS.expand(3, -1)

    together = decoder(*images, coords, labels).hr_logits

    alone = [decoder(*images, coords[i, None], labels[i, None]).hr_logits for i in range(3)]
    assert (together - torch.cat(alone)).abs().max() < TOLERANCE
    assert all(not torch.equal(one, other) for one, other in pairwise(alone))


@torch.inference_mode()
def test_prompts_on_pairs_of_their_own_get_the_answers_that_they_get_alone(
    sam: PromptedSam,
) -> None:
    decoder = wsi_decoder(sam, iou_head=True)
    hr, lr = torch.randn(2, 2, 4096, 256)
    hr_early, lr_early = torch.randn(2, 2, 160, 64, 64)
    features = decoder.hr.image_features(hr, hr_early), lr_of(decoder).image_features(lr, lr_early)
    prompts = torch.cat([ODD_BOX, ODD_BOX + 20]), BOX_LABELS.expand(2, -1)
    masks = torch.randn(2, 256, 256), torch.randn(2, 256, 256)

    together = decoder.training_forward(hr, lr, *features, *prompts, *masks)

    for i in range(2):
        one = slice(i, i + 1)
        alone = decoder.training_forward(
            hr[one],
            lr[one],
            decoder.hr.image_features(hr[one], hr_early[one]),
            lr_of(decoder).image_features(lr[one], lr_early[one]),
            *(tensor[one] for tensor in (*prompts, *masks)),
        )
        for batched, single in zip(together, alone, strict=True):
            assert batched is not None
            assert single is not None
            assert (batched[one] - single).abs().max() < TOLERANCE


@torch.inference_mode()
def test_training_sees_the_answer_that_use_gets_and_the_lr_mask(
    sam: PromptedSam, images: tuple[torch.Tensor, torch.Tensor, torch.Tensor]
) -> None:
    decoder = wsi_decoder(sam)
    lr_features = torch.randn(1, 32, 256, 256)

    both = decoder.training_forward(*images, lr_features, ODD_BOX, BOX_LABELS)

    decoded = decoder(*images, ODD_BOX, BOX_LABELS)
    answer = decoder.tokens(images[0], images[1], ODD_BOX, BOX_LABELS)
    assert torch.equal(both.hr_logits, decoded.hr_logits)
    assert torch.equal(both.iou, decoded.iou)
    assert both.lr_logits is not None
    assert torch.equal(both.lr_logits, decoder.lr_logits(answer, lr_features))


def test_every_aggregation_of_a_card_is_known_to_the_decoder() -> None:
    field = DecoderCard.model_fields["aggregation"].annotation

    assert {kind.value for kind in Aggregation} == set(field.__args__)  # type: ignore[union-attr]


def test_decoders_share_the_sam_that_they_are_given(sam: PromptedSam) -> None:
    decoder = wsi_decoder(sam)

    assert isinstance(decoder.sam, nn.Module)
    assert decoder.sam is sam
