"""WSI-SAM's dual decoder against its own formulas (section 2.2, figure 2)."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from segment_anything.modeling.common import LayerNorm2d
from torch import nn

from fixtures.models import PLAIN_BASE, sam_of
from wsisam_qupath.model.build import (
    Networks,
    build_decoder,
    build_prompted_sam,
    extract_learned_state,
)
from wsisam_qupath.model.card import DecoderCard, SamLogits
from wsisam_qupath.model.decoders import (
    Aggregation,
    Decoded,
    PromptedSam,
    ResolutionDecoder,
    WsiSamDecoder,
)
from wsisam_qupath.model.prompted_sam import as_pixels, as_tokens, expand_tokens

pytestmark = pytest.mark.slow

TOLERANCE = 1e-4
ODD_BOX = torch.tensor([[[41.0, 51.5], [200.25, 180.125]]])
BOX_LABELS = torch.tensor([[2, 3]])

Images = tuple[list[torch.Tensor], list[torch.Tensor]]
"""Embeddings of the HR and the LR patch, 1 x 4096 x 256, and features, 1 x 256 x 256 x 32."""


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
def sam(lite: Networks) -> PromptedSam:
    return sam_of(lite)


@pytest.fixture
def images() -> Images:
    embeddings = [torch.randn(1, 4096, 256) for _ in range(2)]
    return embeddings, [torch.randn(1, 256, 256, 32) for _ in range(2)]


def channels_first(pixels: torch.Tensor) -> torch.Tensor:
    return pixels.permute(0, 3, 1, 2)


@pytest.mark.parametrize("ends_with_gelu", [False, True])
@torch.inference_mode()
def test_expanded_tokens_are_what_two_transposed_convolutions_make(ends_with_gelu: bool) -> None:
    layers = nn.Sequential(
        nn.ConvTranspose2d(24, 16, kernel_size=2, stride=2),
        LayerNorm2d(16),
        nn.GELU(),
        nn.ConvTranspose2d(16, 8, kernel_size=2, stride=2),
        *([nn.GELU()] if ends_with_gelu else []),
    )
    for parameter in layers[1].parameters():
        nn.init.normal_(parameter)
    feature_map = torch.randn(3, 24, 6, 6)

    expanded = expand_tokens(layers, as_tokens(feature_map))

    assert expanded.shape == (3, 36, 4, 4, 8)
    pixels = as_pixels(expanded)
    assert pixels.shape == (3, 24, 24, 8)
    assert (channels_first(pixels) - layers(feature_map)).abs().max() < 1e-5


@torch.inference_mode()
def test_the_folded_convolution_gives_the_product_of_token_and_mask_features() -> None:
    resolution = ResolutionDecoder(early_channels=160)
    token, upscaled = torch.randn(2, 32), torch.randn(2, 256, 256, 32)
    image_features = torch.randn(1, 256, 256, 32)

    logits = resolution.logits(token, upscaled, image_features)

    mask_features = resolution.mask_features(channels_first(upscaled))
    mask_features = mask_features + channels_first(image_features)
    expected = torch.einsum("bc,bchw->bhw", token, mask_features)
    assert (logits - expected).abs().max() < TOLERANCE


@torch.inference_mode()
def test_image_features_are_the_sum_of_both_upscaled_feature_maps() -> None:
    resolution = ResolutionDecoder(early_channels=160)
    final, early = torch.randn(1, 256, 64, 64), torch.randn(1, 160, 64, 64)

    features = resolution.image_features(as_tokens(final), early)

    expected = resolution.up_embedding(final) + resolution.up_early(early)
    assert features.shape == (1, 256, 256, 32)
    assert (channels_first(features) - expected).abs().max() < TOLERANCE


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

    tokens = decoder.aggregate([hr_token, lr_token])

    assert [token.tolist() for token in tokens] == [[expected * 16]] * 2


@torch.inference_mode()
def test_both_masks_are_answers(sam: PromptedSam, images: Images) -> None:
    decoder = wsi_decoder(sam, sam_logits="none")
    embeddings, features = images

    decoded = decoder(embeddings, features, ODD_BOX, BOX_LABELS)

    updated = decoder.update(embeddings, ODD_BOX, BOX_LABELS)
    token = (updated[0].token + updated[1].token) / 2
    assert decoded.logits.shape == (1, 2, 256, 256)
    assert decoded.iou.shape == (1, 2)
    for index, resolution in enumerate((decoder.hr, lr_of(decoder))):
        expected = resolution.logits(token, updated[index].upscaled, features[index])
        assert torch.equal(decoded.logits[:, index], expected)
    assert not torch.equal(decoded.logits[:, 0], decoded.logits[:, 1])


@pytest.mark.parametrize(
    ("sam_logits", "takes"), [("none", (0, 0)), ("hr", (1, 0)), ("both", (1, 1))]
)
@torch.inference_mode()
def test_adding_sams_logits_adds_exactly_its_own_answer_on_that_patch(
    sam: PromptedSam, images: Images, sam_logits: str, takes: tuple[int, int]
) -> None:
    decoder = wsi_decoder(sam, sam_logits="none")
    alone = decoder(*images, ODD_BOX, BOX_LABELS)
    decoder.sam_logits = SamLogits(sam_logits)
    together = decoder(*images, ODD_BOX, BOX_LABELS)

    updated = decoder.update(images[0], ODD_BOX, BOX_LABELS)
    own = [sam.predict_plain_mask(u.all_tokens, u.upscaled) for u in updated]

    for index, (logits, iou) in enumerate(own):
        added = logits if takes[index] else 0.0
        assert torch.equal(together.logits[:, index], alone.logits[:, index] + added)
        assert torch.equal(together.iou[:, index], iou)


@pytest.mark.parametrize(("base_px", "offset"), [(256, 64), (1024, 256)])
@torch.inference_mode()
def test_the_lr_prompt_is_half_the_hr_prompt_plus_a_quarter_of_the_patch_unfloored(
    base_px: int, offset: float, images: Images
) -> None:
    base = type(PLAIN_BASE)(**{**vars(PLAIN_BASE), "size_px": base_px})
    decoder = wsi_decoder(build_prompted_sam(base))
    exact = ODD_BOX / 2 + offset

    def ask_lr(coords: torch.Tensor) -> torch.Tensor:
        own, no_mask = decoder.sam, decoder.sam.dense(None)
        sparse = own.sparse(coords, BOX_LABELS)
        return lr_of(decoder).update(own, images[0][1] + no_mask, sparse).token

    hr, lr = decoder.update(images[0], ODD_BOX, BOX_LABELS)

    hr_source = images[0][0] + decoder.sam.dense(None)
    hr_sparse = decoder.sam.sparse(ODD_BOX, BOX_LABELS)
    assert torch.equal(hr.token, decoder.hr.update(decoder.sam, hr_source, hr_sparse).token)
    assert torch.equal(lr.token, ask_lr(exact))
    assert not torch.equal(lr.token, ask_lr(exact.floor()))


@torch.inference_mode()
def test_each_patch_gets_the_mask_prompt_of_its_own(sam: PromptedSam, images: Images) -> None:
    decoder = wsi_decoder(sam)
    masks = [torch.randn(1, 256, 256), torch.randn(1, 256, 256)]

    hr, lr = decoder.update(images[0], ODD_BOX, BOX_LABELS, masks)

    lr_coords = ODD_BOX / 2 + 64
    sources = [e + sam.dense(mask) for e, mask in zip(images[0], masks, strict=True)]
    hr_expected = decoder.hr.update(sam, sources[0], sam.sparse(ODD_BOX, BOX_LABELS))
    lr_expected = lr_of(decoder).update(sam, sources[1], sam.sparse(lr_coords, BOX_LABELS))
    assert torch.equal(hr.token, hr_expected.token)
    assert torch.equal(lr.token, lr_expected.token)


@torch.inference_mode()
def test_the_new_token_stands_between_sams_output_tokens_and_the_prompt(
    sam: PromptedSam, images: Images
) -> None:
    resolution = ResolutionDecoder(early_channels=160)
    sparse = sam.sparse(ODD_BOX, BOX_LABELS)
    source = images[0][0] + sam.dense(None)

    updated = resolution.update(sam, source, sparse)
    as_a_prompt = torch.cat([resolution.token.weight[None], sparse], dim=1)
    expected, upscaled = sam.transform(source, as_a_prompt)

    assert updated.all_tokens.shape == (1, 1 + 4 + 1 + 2, 256)
    assert torch.equal(updated.all_tokens, expected)
    assert torch.equal(updated.token, resolution.token_mlp(expected[:, 5]))
    assert torch.equal(updated.upscaled, upscaled)


@torch.inference_mode()
def test_an_untrained_iou_head_leaves_sams_own_predictions(
    sam: PromptedSam, images: Images
) -> None:
    decoder = wsi_decoder(sam, iou_head=True)

    decoded = decoder(*images, ODD_BOX, BOX_LABELS)

    own = decoder.predict_as_sam(decoder.update(images[0], ODD_BOX, BOX_LABELS))
    assert torch.equal(decoded.iou, own.iou)


@torch.inference_mode()
def test_the_iou_head_corrects_each_prediction_by_the_tokens_of_both_patches(
    sam: PromptedSam, images: Images
) -> None:
    decoder = wsi_decoder(sam, iou_head=True)
    assert decoder.iou_head is not None
    nn.init.normal_(decoder.iou_head.mlp.layers[-1].weight)

    decoded = decoder(*images, ODD_BOX, BOX_LABELS)

    updated = decoder.update(images[0], ODD_BOX, BOX_LABELS)
    own = decoder.predict_as_sam(updated)
    hr, lr = updated
    seen = torch.cat([hr.all_tokens[:, 0], hr.token, lr.all_tokens[:, 0], lr.token], dim=1)
    assert torch.equal(decoded.iou, own.iou + decoder.iou_head.mlp(seen))
    for index in range(2):  # each prediction depends on the tokens of both
        other = [u._replace(token=u.token + (i == index)) for i, u in enumerate(updated)]
        assert (decoder.predict_iou(other, own.iou) != decoded.iou).all()


def test_with_a_frozen_sam_both_masks_teach_wsi_sam_alone(sam: PromptedSam, images: Images) -> None:
    frozen = build_prompted_sam(PLAIN_BASE).requires_grad_(False)
    frozen.load_state_dict(sam.state_dict())
    decoder = wsi_decoder(frozen, aggregation="concat", iou_head=True)
    assert decoder.iou_head is not None
    nn.init.normal_(decoder.iou_head.mlp.layers[-1].weight)
    early = torch.randn(1, 160, 64, 64)

    features = [
        resolution.image_features(embedding, early)
        for resolution, embedding in zip(decoder.resolutions, images[0], strict=True)
    ]
    decoded = decoder(images[0], features, ODD_BOX, BOX_LABELS)
    (decoded.logits.square().mean() + decoded.iou.sum()).backward()

    taught = {name for name, p in decoder.named_parameters() if p.grad is not None and p.grad.any()}
    assert {f"wsi.{name}" for name in taught} == set(extract_learned_state(decoder))


@torch.inference_mode()
def test_prompts_answered_together_get_the_answers_that_they_get_alone(
    sam: PromptedSam, images: Images
) -> None:
    decoder = wsi_decoder(sam)
    coords = torch.cat([ODD_BOX, ODD_BOX.flip(1) * 0.5, ODD_BOX + 20])
    labels = BOX_LABELS.expand(3, -1)

    together = decoder(*images, coords, labels).logits

    alone = [decoder(*images, coords[i, None], labels[i, None]).logits for i in range(3)]
    assert together.shape == (3, 2, 256, 256)
    assert (together - torch.cat(alone)).abs().max() < TOLERANCE
    assert all(not torch.equal(one, other) for one, other in pairwise(alone))


@torch.inference_mode()
def test_prompts_on_pairs_of_their_own_get_the_answers_that_they_get_alone(
    sam: PromptedSam,
) -> None:
    decoder = wsi_decoder(sam, iou_head=True)
    embeddings = torch.randn(2, 2, 4096, 256)  # patch, prompt, ...
    early = torch.randn(2, 2, 160, 64, 64)
    prompts = torch.cat([ODD_BOX, ODD_BOX + 20]), BOX_LABELS.expand(2, -1)
    masks = torch.randn(2, 2, 256, 256)

    def answer(rows: slice) -> Decoded:
        own = [patch[rows] for patch in embeddings]
        features = [
            resolution.image_features(tokens, patch[rows])
            for resolution, tokens, patch in zip(decoder.resolutions, own, early, strict=True)
        ]
        coords, labels = (tensor[rows] for tensor in prompts)
        decoded: Decoded = decoder(own, features, coords, labels, [m[rows] for m in masks])
        return decoded

    together = answer(slice(None))

    for row in (slice(0, 1), slice(1, 2)):
        for batched, single in zip(together, answer(row), strict=True):
            assert (batched[row] - single).abs().max() < TOLERANCE


@torch.inference_mode()
def test_masks_fused_in_windows_are_the_windows_of_the_fused_masks_but_at_their_edges(
    sam: PromptedSam, images: Images
) -> None:
    decoder = wsi_decoder(sam)
    updated = decoder.update(images[0], ODD_BOX, BOX_LABELS)
    rows, columns = slice(40, 136), slice(90, 186)

    def cut(pixels: torch.Tensor) -> torch.Tensor:
        return pixels[:, rows, columns]

    whole = decoder.fuse(updated, [u.upscaled for u in updated], images[1])
    parts = decoder.fuse(updated, [cut(u.upscaled) for u in updated], [cut(f) for f in images[1]])

    assert parts.shape == (1, 2, 96, 96)
    difference = (parts - whole[..., rows, columns]).abs()
    assert difference[..., 2:-2, 2:-2].max() < TOLERANCE
    assert difference.max() > 10 * TOLERANCE  # zeros stand around a window, and not pixels


def test_every_aggregation_of_a_card_is_known_to_the_decoder() -> None:
    field = DecoderCard.model_fields["aggregation"].annotation

    assert {kind.value for kind in Aggregation} == set(field.__args__)  # type: ignore[union-attr]


def test_decoders_share_the_sam_that_they_are_given(sam: PromptedSam) -> None:
    decoder = wsi_decoder(sam)

    assert isinstance(decoder.sam, nn.Module)
    assert decoder.sam is sam
