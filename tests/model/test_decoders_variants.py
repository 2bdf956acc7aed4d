"""What is not the paper's first choice: enhanced decoders, mixed features, HR alone."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from fixtures.models import PLAIN_BASE, Tensors, card, load_openvino, load_torch, routed_to, sam_of
from wsisam_qupath.geometry import Box
from wsisam_qupath.inference.backends import Embedding, ImageArray
from wsisam_qupath.inference.predictor import Predictor
from wsisam_qupath.model.adapter import read_adapter, write_adapter
from wsisam_qupath.model.build import (
    Networks,
    build_decoder,
    build_networks,
    encoder_state,
    extract_learned_state,
)
from wsisam_qupath.model.card import DecoderCard, SamLogits
from wsisam_qupath.model.decoders import (
    PromptedSam,
    SamDecoder,
    UpdatedTokens,
    WsiSamDecoder,
)
from wsisam_qupath.model.prompted_sam import FoldedImageAttention, fold_image_attention
from wsisam_qupath.prompts import PromptKind
from wsisam_qupath.prompts.encoding import MASK_PX, EncodedPrompt, encode_box, project_mask_to_lr

pytestmark = [pytest.mark.slow, pytest.mark.walk]

TOLERANCE = 1e-4
LOGIT_TOLERANCE, MEAN_LOGIT_TOLERANCE, IOU_TOLERANCE = 2.0, 0.5, 0.03
"""What bf16 may change, see test_backends.py."""

BOX = torch.tensor([[[41.0, 51.5], [200.25, 180.125]]])
BOX_LABELS = torch.tensor([[2, 3]])

VARIANTS = {
    "enhanced": DecoderCard(architecture="sam", enhanced=True),
    "mixed": DecoderCard(
        architecture="wsi-sam",
        enhanced=True,
        aggregation="features",
        sam_logits=SamLogits.BOTH,
    ),
    "hr": DecoderCard(architecture="wsi-sam", hr_only=True, iou_head=True),
    "pair": DecoderCard(architecture="sam", both_patches=True),
}


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture
def sam(lite: Networks) -> PromptedSam:
    return sam_of(lite)


Images = tuple[list[torch.Tensor], list[torch.Tensor]]
"""Embeddings of the HR and the LR patch, 1 x 4096 x 256, and features, 1 x 256 x 256 x 32."""


@pytest.fixture
def images() -> Images:
    embeddings = [torch.randn(1, 4096, 256) for _ in range(2)]
    return embeddings, [torch.randn(1, 256, 256, 32) for _ in range(2)]


def built(sam: PromptedSam, name: str) -> SamDecoder | WsiSamDecoder:
    return build_decoder(PLAIN_BASE, sam, VARIANTS[name]).eval()


def wsi(sam: PromptedSam, **settings: Any) -> WsiSamDecoder:
    decoder = build_decoder(PLAIN_BASE, sam, DecoderCard(architecture="wsi-sam", **settings)).eval()
    assert isinstance(decoder, WsiSamDecoder)
    return decoder


@torch.inference_mode()
def test_an_untrained_enhancement_leaves_sams_own_logits_to_the_bit(
    sam: PromptedSam, images: Images
) -> None:
    mask = torch.randn(1, 256, 256)

    enhanced = built(sam, "enhanced")(images[0][:1], BOX, BOX_LABELS, [mask])

    own = SamDecoder(sam)(images[0][:1], BOX, BOX_LABELS, [mask])
    assert torch.equal(enhanced.logits, own.logits)
    assert torch.equal(enhanced.iou, own.iou)


@torch.inference_mode()
def test_an_untrained_enhancement_leaves_wsi_sams_logits_to_the_bit(
    sam: PromptedSam, images: Images
) -> None:
    decoder = wsi(sam, enhanced=True)
    enhanced = decoder(*images, BOX, BOX_LABELS)

    decoder.sam = sam

    assert torch.equal(enhanced.logits, decoder(*images, BOX, BOX_LABELS).logits)


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("points", [1, 40])
def test_folding_the_image_attention_changes_no_answer(
    lite: Networks, images: Images, name: str, points: int
) -> None:
    decoder = built(copy.deepcopy(sam_of(lite)), name)
    for part, value in decoder.named_parameters():
        if part.endswith("gate"):  # else the added layers would change nothing
            value.data.fill_(0.5)
    folded = copy.deepcopy(decoder)
    coords, labels = 256 * torch.rand(1, points, 2), torch.ones(1, points, dtype=torch.int64)
    inputs = [
        some[: decoder.patch_count] for some in images[: 1 + isinstance(decoder, WsiSamDecoder)]
    ]

    fold_image_attention(folded)

    own, answer = decoder(*inputs, coords, labels), folded(*inputs, coords, labels)
    replaced = sum(isinstance(one, FoldedImageAttention) for one in folded.modules())
    assert replaced == (4 if VARIANTS[name].enhanced else 2)
    assert (answer.logits - own.logits).abs().max() < TOLERANCE * own.logits.abs().max()
    assert (answer.iou - own.iou).abs().max() < TOLERANCE
    assert list(folded.state_dict()) == list(decoder.state_dict())


def test_all_of_an_enhancement_learns_once_its_gates_have_opened(
    lite: Networks, images: Images
) -> None:
    decoder = built(sam_of(lite), "enhanced")
    enhancement = decoder.sam.enhancement
    assert enhancement is not None
    parameters = dict(enhancement.named_parameters())
    gates = {name for name in parameters if name.endswith("gate")}

    def taught() -> set[str]:
        decoded = decoder(images[0][0], BOX, BOX_LABELS)
        loss = decoded.logits.square().mean() + decoded.iou.sum()
        gradients = torch.autograd.grad(loss, list(parameters.values()))
        for parameter, gradient in zip(parameters.values(), gradients, strict=True):
            parameter.data -= 1e-3 * gradient.sign()
        found = zip(parameters, gradients, strict=True)
        return {name for name, gradient in found if gradient.abs().max() > 0}

    assert taught() == gates
    # A softmax does not see what is added to all keys alike.
    key_biases = {name for name in parameters if name.endswith("k_proj.bias")}
    assert taught() | key_biases == set(parameters)


def test_enhanced_decoders_share_sam_and_have_an_enhancement_of_their_own(
    sam: PromptedSam,
) -> None:
    one, other = built(sam, "enhanced"), built(sam, "mixed")

    assert one.sam.mask_decoder is other.sam.mask_decoder is sam.mask_decoder
    assert one.sam.enhancement is not other.sam.enhancement
    assert sam.enhancement is None
    names = {name.partition(".")[0] for name in extract_learned_state(one)}
    assert names == {"enhancement"}
    assert {n.partition(".")[0] for n in extract_learned_state(other)} == {"enhancement", "wsi"}


@torch.inference_mode()
def test_mixed_features_are_the_mean_of_both_in_the_frame_of_each_mask(sam: PromptedSam) -> None:
    decoder = wsi(sam, aggregation="features", sam_logits="none")
    tokens = torch.randn(2, 2, 32)
    upscaled, image_features = torch.randn(2, 2, 256, 256, 32), torch.randn(2, 1, 256, 256, 32)
    updated = [
        UpdatedTokens(token, torch.empty(0), pixels)
        for token, pixels in zip(tokens, upscaled, strict=True)
    ]

    logits = decoder.fuse(updated, list(upscaled), list(image_features))

    hr, lr = (
        resolution.mask_features(pixels.permute(0, 3, 1, 2)) + own.permute(0, 3, 1, 2)
        for resolution, pixels, own in zip(
            decoder.resolutions, upscaled, image_features, strict=True
        )
    )
    lr_in_hr = F.interpolate(lr[..., 64:192, 64:192], scale_factor=2, mode="bilinear")
    expected_hr = torch.einsum("bc,bchw->bhw", tokens[0], (hr + lr_in_hr) / 2)
    assert (logits[:, 0] - expected_hr).abs().max() < TOLERANCE
    mixed = lr.clone()
    mixed[..., 64:192, 64:192] = (lr[..., 64:192, 64:192] + F.avg_pool2d(hr, 2)) / 2
    expected_lr = torch.einsum("bc,bchw->bhw", tokens[1], mixed)
    assert (logits[:, 1] - expected_lr).abs().max() < TOLERANCE


@torch.inference_mode()
def test_where_features_are_mixed_each_mask_has_the_token_of_its_own_resolution(
    sam: PromptedSam, images: Images
) -> None:
    decoder = wsi(sam, aggregation="features")
    updated = decoder.update(images[0], BOX, BOX_LABELS)

    hr_token, lr_token = decoder.aggregate([u.token for u in updated])

    assert torch.equal(hr_token, updated[0].token)
    assert torch.equal(lr_token, updated[1].token)
    assert not torch.equal(hr_token, lr_token)


@torch.inference_mode()
def test_hr_alone_needs_no_lr_patch_and_learns_nothing_for_it(
    sam: PromptedSam, images: Images
) -> None:
    decoder = wsi(sam, hr_only=True, aggregation="concat", iou_head=True)
    assert decoder.iou_head is not None
    nn.init.normal_(decoder.iou_head.mlp.layers[-1].weight)
    embedding, features = images[0][0], images[1][0]
    mask = torch.randn(1, 256, 256)

    decoded = decoder([embedding], [features], BOX, BOX_LABELS, [mask])

    updated = decoder.hr.update(sam, embedding + sam.dense(mask), sam.sparse(BOX, BOX_LABELS))
    own, own_iou = sam.predict_plain_mask(updated.all_tokens, updated.upscaled)
    fused = decoder.hr.logits(updated.token, updated.upscaled, features)
    assert decoded.logits.shape == (1, 1, 256, 256)
    assert torch.equal(decoded.logits[:, 0], fused + own)
    seen = torch.cat([updated.all_tokens[:, 0], updated.token], dim=1)
    assert torch.equal(decoded.iou, own_iou[:, None] + decoder.iou_head.mlp(seen))
    assert {name.split(".")[1] for name in extract_learned_state(decoder)} == {"hr", "iou_head"}
    assert not DecoderCard(architecture="wsi-sam", hr_only=True).reads_lr


@torch.inference_mode()
@pytest.mark.parametrize("masked", [False, True])
def test_sams_own_decoder_answers_on_each_patch_by_itself(
    sam: PromptedSam, images: Images, masked: bool
) -> None:
    masks = [torch.randn(1, 256, 256), torch.randn(1, 256, 256)] if masked else None

    both = built(sam, "pair")(images[0], BOX, BOX_LABELS, masks)

    hr_mask, lr_mask = ([masks[0]], [masks[1]]) if masks else (None, None)
    hr = SamDecoder(sam)(images[0][:1], BOX, BOX_LABELS, hr_mask)
    lr = SamDecoder(sam)(images[0][1:], 64 + BOX / 2, BOX_LABELS, lr_mask)
    assert torch.equal(both.logits, torch.cat([hr.logits, lr.logits], dim=1))
    assert torch.equal(both.iou, torch.cat([hr.iou, lr.iou], dim=1))


def test_only_sams_own_decoder_can_read_both_patches_by_themselves() -> None:
    assert DecoderCard(architecture="sam", both_patches=True).patches == 2
    with pytest.raises(ValueError, match="both_patches is of SAM's own decoder"):
        DecoderCard(architecture="wsi-sam", both_patches=True)


def variant_tensors(lite: Networks) -> Tensors:
    """Random decoders of all kinds with open gates, and the encoder with its last layer doubled."""
    tensors = {}
    for name in VARIANTS:
        for own, tensor in extract_learned_state(built(sam_of(lite), name)).items():
            opened = 0.1 * torch.randn(256) if own.endswith("gate") else tensor
            tensors[f"{name}.{own}"] = opened.numpy()
    encoder = {name: tensor.numpy() for name, tensor in encoder_state(lite.encoder).items()}
    encoder["encoder.neck.3.weight"] = 1.1 * encoder["encoder.neck.3.weight"]
    return tensors | encoder


@pytest.fixture(scope="module")
def variants_path(tmp_path_factory: pytest.TempPathFactory, lite: Networks) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("variants") / "variants.safetensors"
    described = card(VARIANTS, routed_to("mixed")).model_copy(update={"tunes_encoder": True})
    write_adapter(path, described, variant_tensors(lite))
    return path


def test_every_variant_is_built_of_the_tensors_of_its_adapter(
    variants_path: Path, lite: Networks, lite_state: dict[str, torch.Tensor]
) -> None:
    adapter = read_adapter(variants_path, PLAIN_BASE)

    model = build_networks(PLAIN_BASE, lite_state, adapter)

    for name, decoder in model.decoders.items():
        kept, given = extract_learned_state(decoder), adapter.tensors(name)
        assert kept.keys() == given.keys()
        assert all(np.array_equal(kept[n], tensor) for n, tensor in given.items())
    kept, base = encoder_state(model.encoder), encoder_state(lite.encoder)
    changed = {name for name in base if not torch.equal(kept[name], base[name])}
    assert changed == {"encoder.neck.3.weight"}
    assert not model.encoder.training


@pytest.fixture(scope="module")
def on_both(
    cache: Path, variants_path: Path, patches: tuple[ImageArray, ImageArray]
) -> list[tuple[Predictor, Embedding]]:
    """OpenVINO and PyTorch, with the same pair embedded."""
    predictors = [load_openvino(variants_path), load_torch(variants_path)]
    return [(p, p.backend.embed([patches[:2]])[0]) for p in predictors]


def clicks_with_masks() -> EncodedPrompt:
    rng = np.random.default_rng(0)
    coords = np.vstack([rng.uniform(10, 150, (3, 2)), [[0, 0]]]).astype(np.float32)
    hr_mask = (4 * rng.standard_normal((MASK_PX, MASK_PX))).astype(np.float32)
    labels = np.array([1, 0, 1, -1], dtype=np.int64)
    return EncodedPrompt(PromptKind.POINTS, coords, labels, hr_mask, project_mask_to_lr(hr_mask))


@pytest.mark.parametrize("decoder", VARIANTS)
@pytest.mark.parametrize("tokens", [encode_box(Box(40, 50, 170, 190)), clicks_with_masks()])
def test_openvino_answers_as_pytorch(
    on_both: list[tuple[Predictor, Embedding]], decoder: str, tokens: EncodedPrompt
) -> None:
    answers = [p.backend.decode(decoder, embedding, [tokens])[0] for p, embedding in on_both]

    assert [len(answer) for answer in answers] == [2 if VARIANTS[decoder].reads_lr else 1] * 2
    for ours, theirs in zip(*answers, strict=True):
        assert ours.patch == theirs.patch
        difference = np.abs(ours.mask_logits - theirs.mask_logits)
        assert difference.max() < LOGIT_TOLERANCE
        assert difference.mean() < MEAN_LOGIT_TOLERANCE
        assert abs(ours.predicted_iou - theirs.predicted_iou) < IOU_TOLERANCE
        assert np.abs(theirs.mask_logits).max() > 4 * LOGIT_TOLERANCE


def test_a_prompt_that_says_its_size_is_answered_on_the_hr_patch_alone(
    on_both: list[tuple[Predictor, Embedding]],
) -> None:
    for predictor, embedding in on_both:
        asked = clicks_with_masks()
        ((hr, lr),) = predictor.backend.decode("pair", embedding, [asked])
        ((alone,),) = predictor.backend.decode("pair", embedding, [replace(asked, fits_hr=True)])

        assert (hr.patch, lr.patch, alone.patch) == ("hr", "lr", "hr")
        assert np.array_equal(alone.mask_logits, hr.mask_logits)


def test_an_embedding_holds_features_of_the_patches_that_a_decoder_reads(
    on_both: list[tuple[Predictor, Embedding]],
) -> None:
    tokens, early, features = (4 * n for n in (4096 * 256, 160 * 4096, 32 * 256 * 256))

    for _, embedding in on_both:
        assert {name: len(f) for name, f in embedding.features.items()} == {"mixed": 2, "hr": 1}
        assert embedding.nbytes == 2 * (tokens + early) + 3 * features


def test_pytorch_answers_mixed_prompts_together_as_alone(
    on_both: list[tuple[Predictor, Embedding]],
) -> None:
    predictor, embedding = on_both[1]
    prompts = [encode_box(Box(40, 50, 170, 190)), encode_box(Box(60, 60, 90, 90))]

    together = predictor.backend.decode("mixed", embedding, prompts)

    for prompt, answer in zip(prompts, together, strict=True):
        (alone,) = predictor.backend.decode("mixed", embedding, [prompt])
        assert len(answer) == len(alone) == 2
        for ours, theirs in zip(answer, alone, strict=True):
            assert np.allclose(ours.mask_logits, theirs.mask_logits, atol=TOLERANCE)


def test_an_adapter_of_hr_alone_answers_without_lr_patches(
    tmp_path: Path, lite: Networks, patches: tuple[ImageArray, ImageArray]
) -> None:
    learned = extract_learned_state(built(sam_of(lite), "hr"))
    path = tmp_path / "hr.safetensors"
    described = card({"hr": VARIANTS["hr"]}, routed_to("hr"))
    write_adapter(path, described, {f"hr.{name}": t.numpy() for name, t in learned.items()})
    predictor = load_torch(path)

    (embedding,) = predictor.backend.embed([patches[:1]])
    ((answer,),) = predictor.predict(embedding, [clicks_with_masks()])

    assert predictor.patch_count == 1
    assert not predictor.answers_with_lr(PromptKind.POINTS, fits_hr=False)
    assert len(embedding.patches) == 1
    assert answer.patch == "hr"
    assert answer.mask_logits.shape == (MASK_PX, MASK_PX)


@pytest.mark.parametrize("patch", ["hr", "lr"])
def test_a_card_can_leave_the_answer_to_one_of_both_masks(
    tmp_path: Path, lite: Networks, patches: tuple[ImageArray, ImageArray], patch: str
) -> None:
    learned = extract_learned_state(built(sam_of(lite), "mixed"))
    path = tmp_path / "one.safetensors"
    described = card(
        {"mixed": VARIANTS["mixed"].model_copy(update={"answers": patch})}, routed_to("mixed")
    )
    write_adapter(path, described, {f"mixed.{name}": t.numpy() for name, t in learned.items()})
    predictor = load_torch(path)

    (embedding,) = predictor.backend.embed([patches[:2]])
    ((answer,),) = predictor.predict(embedding, [clicks_with_masks()])

    assert answer.patch == patch


def test_a_card_without_an_lr_patch_cannot_answer_with_it() -> None:
    with pytest.raises(ValueError, match="the mask of the LR patch cannot be the answer"):
        DecoderCard(architecture="wsi-sam", hr_only=True, answers="lr")
