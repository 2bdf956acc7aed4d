"""What is not the paper's first choice: enhanced decoders, mixed features, HR alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from models import PLAIN_BASE, Tensors, card, load_openvino, load_torch, routed_to, sam_of
from wsisam_qupath.backends import Embedding, ImageArray
from wsisam_qupath.geometry import Box
from wsisam_qupath.model.adapter import read_adapter, write_adapter
from wsisam_qupath.model.build import (
    Model,
    build_decoder,
    build_model,
    encoder_state,
    learned_state,
)
from wsisam_qupath.model.card import DecoderCard
from wsisam_qupath.model.decoders import (
    PromptedSam,
    ResolutionDecoder,
    SamDecoder,
    TokenAnswer,
    WsiSamDecoder,
)
from wsisam_qupath.predictor import Predictor
from wsisam_qupath.prompts import PromptKind
from wsisam_qupath.tokens import MASK_PX, Tokens, box_tokens, lr_mask_of

TOLERANCE = 1e-4
LOGIT_TOLERANCE, MEAN_LOGIT_TOLERANCE, IOU_TOLERANCE = 2.0, 0.5, 0.03
"""What bf16 may change, see test_backends.py."""

BOX = torch.tensor([[[41.0, 51.5], [200.25, 180.125]]])
BOX_LABELS = torch.tensor([[2, 3]])

VARIANTS = {
    "enhanced": DecoderCard(architecture="sam", enhanced=True),
    "mixed": DecoderCard(architecture="wsi-sam", enhanced=True, aggregation="features"),
    "hr": DecoderCard(architecture="wsi-sam", hr_only=True, iou_head=True),
}


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture
def sam(lite: Model) -> PromptedSam:
    return sam_of(lite)


@pytest.fixture
def images() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """HR and LR embedding, 1 x 4096 x 256, and HR features, 1 x 32 x 256 x 256."""
    return torch.randn(1, 4096, 256), torch.randn(1, 4096, 256), torch.randn(1, 32, 256, 256)


def built(sam: PromptedSam, name: str) -> SamDecoder | WsiSamDecoder:
    return build_decoder(PLAIN_BASE, sam, VARIANTS[name]).eval()


def wsi(sam: PromptedSam, **settings: Any) -> WsiSamDecoder:
    decoder = build_decoder(PLAIN_BASE, sam, DecoderCard(architecture="wsi-sam", **settings)).eval()
    assert isinstance(decoder, WsiSamDecoder)
    return decoder


@torch.inference_mode()
def test_an_untrained_enhancement_leaves_sams_own_logits_to_the_bit(
    sam: PromptedSam, images: tuple[torch.Tensor, torch.Tensor, torch.Tensor]
) -> None:
    mask = torch.randn(1, 256, 256)

    enhanced = built(sam, "enhanced")(images[0], BOX, BOX_LABELS, mask)

    own = SamDecoder(sam)(images[0], BOX, BOX_LABELS, mask)
    assert torch.equal(enhanced.hr_logits, own.hr_logits)
    assert torch.equal(enhanced.iou, own.iou)


@torch.inference_mode()
def test_an_untrained_enhancement_leaves_wsi_sams_logits_to_the_bit(
    sam: PromptedSam, images: tuple[torch.Tensor, torch.Tensor, torch.Tensor]
) -> None:
    decoder = wsi(sam, enhanced=True)
    enhanced = decoder(*images, BOX, BOX_LABELS)

    decoder.sam = sam

    assert torch.equal(enhanced.hr_logits, decoder(*images, BOX, BOX_LABELS).hr_logits)


def test_all_of_an_enhancement_learns_once_its_gates_have_opened(
    lite: Model, images: tuple[torch.Tensor, torch.Tensor, torch.Tensor]
) -> None:
    decoder = built(sam_of(lite), "enhanced")
    enhancement = decoder.sam.enhancement
    assert enhancement is not None
    parameters = dict(enhancement.named_parameters())
    gates = {name for name in parameters if name.endswith("gate")}

    def taught() -> set[str]:
        decoded = decoder(images[0], BOX, BOX_LABELS)
        loss = decoded.hr_logits.square().mean() + decoded.iou.sum()
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
    names = {name.partition(".")[0] for name in learned_state(one)}
    assert names == {"enhancement"}
    assert {n.partition(".")[0] for n in learned_state(other)} == {"enhancement", "wsi"}


@torch.inference_mode()
def test_mixed_features_are_the_mean_of_both_in_the_frame_of_each_mask(sam: PromptedSam) -> None:
    decoder = wsi(sam, aggregation="features", add_sam_logits=False)
    token, lr_token = torch.randn(2, 2, 32)
    hr_upscaled, lr_upscaled = torch.randn(2, 2, 32, 256, 256)
    hr_image, lr_image = torch.randn(2, 1, 32, 256, 256)
    updated = torch.randn(2, 8, 256)
    answer = TokenAnswer(token, updated, hr_upscaled, lr_upscaled, lr_token)

    hr_logits = decoder._decoded(answer, hr_image, lr_image).hr_logits
    lr_logits = decoder.lr_logits(answer, lr_image, hr_image)

    assert isinstance(decoder.lr, ResolutionDecoder)
    hr = decoder.hr.mask_features(hr_upscaled) + hr_image
    lr = decoder.lr.mask_features(lr_upscaled) + lr_image
    lr_in_hr = F.interpolate(lr[..., 64:192, 64:192], scale_factor=2, mode="bilinear")
    expected_hr = torch.einsum("bc,bchw->bhw", token, (hr + lr_in_hr) / 2)
    assert (hr_logits - expected_hr).abs().max() < TOLERANCE
    mixed = lr.clone()
    mixed[..., 64:192, 64:192] = (lr[..., 64:192, 64:192] + F.avg_pool2d(hr, 2)) / 2
    expected_lr = torch.einsum("bc,bchw->bhw", lr_token, mixed)
    assert (lr_logits - expected_lr).abs().max() < TOLERANCE


@torch.inference_mode()
def test_where_features_are_mixed_each_mask_has_the_token_of_its_own_resolution(
    sam: PromptedSam, images: tuple[torch.Tensor, torch.Tensor, torch.Tensor]
) -> None:
    decoder = wsi(sam, aggregation="features")

    answer = decoder.tokens(images[0], images[1], BOX, BOX_LABELS)

    decoder.aggregation = type(decoder.aggregation).MEAN
    mean = decoder.tokens(images[0], images[1], BOX, BOX_LABELS).token
    assert answer.lr_token is not None
    assert torch.equal((answer.token + answer.lr_token) / 2, mean)
    assert not torch.equal(answer.token, answer.lr_token)


@torch.inference_mode()
def test_hr_alone_needs_no_lr_patch_and_learns_nothing_for_it(
    sam: PromptedSam, images: tuple[torch.Tensor, torch.Tensor, torch.Tensor]
) -> None:
    decoder = wsi(sam, hr_only=True, aggregation="concat", iou_head=True)
    mask = torch.randn(1, 256, 256)

    hr_logits, lr_logits, iou = decoder.training_forward(
        images[0], None, images[2], None, BOX, BOX_LABELS, mask
    )

    source = images[0] + sam.dense(mask)
    token, updated, upscaled = decoder.hr.update(sam, source, sam.sparse(BOX, BOX_LABELS))
    own = sam.own_answer(updated, upscaled).hr_logits
    assert torch.equal(hr_logits, decoder.hr.logits(token, upscaled, images[2]) + own)
    assert lr_logits is None
    assert decoder.iou_head is not None
    assert torch.equal(iou, decoder.iou_head(token)[:, 0])
    assert {name.split(".")[1] for name in learned_state(decoder)} == {"hr", "iou_head"}
    assert not DecoderCard(architecture="wsi-sam", hr_only=True).reads_lr


def variant_tensors(lite: Model) -> Tensors:
    """Random decoders of all kinds with open gates, and the encoder with its last layer doubled."""
    tensors = {}
    for name in VARIANTS:
        for own, tensor in learned_state(built(sam_of(lite), name)).items():
            opened = 0.1 * torch.randn(256) if own.endswith("gate") else tensor
            tensors[f"{name}.{own}"] = opened.numpy()
    encoder = {name: tensor.numpy() for name, tensor in encoder_state(lite.encoder).items()}
    encoder["encoder.neck.3.weight"] = 1.1 * encoder["encoder.neck.3.weight"]
    return tensors | encoder


@pytest.fixture(scope="module")
def variants_path(tmp_path_factory: pytest.TempPathFactory, lite: Model) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("variants") / "variants.safetensors"
    described = card(VARIANTS, routed_to("mixed")).model_copy(update={"tunes_encoder": True})
    write_adapter(path, described, variant_tensors(lite))
    return path


def test_every_variant_is_built_of_the_tensors_of_its_adapter(
    variants_path: Path, lite: Model, lite_state: dict[str, torch.Tensor]
) -> None:
    adapter = read_adapter(variants_path, PLAIN_BASE)

    model = build_model(PLAIN_BASE, lite_state, adapter)

    for name, decoder in model.decoders.items():
        kept, given = learned_state(decoder), adapter.tensors(name)
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
    return [(p, p.embed([patches[0]], [patches[1]])[0]) for p in predictors]


def clicks_with_masks() -> Tokens:
    rng = np.random.default_rng(0)
    coords = np.vstack([rng.uniform(10, 150, (3, 2)), [[0, 0]]]).astype(np.float32)
    hr_mask = (4 * rng.standard_normal((MASK_PX, MASK_PX))).astype(np.float32)
    labels = np.array([1, 0, 1, -1], dtype=np.int64)
    return Tokens(PromptKind.POINTS, coords, labels, hr_mask, lr_mask_of(hr_mask))


@pytest.mark.parametrize("decoder", VARIANTS)
@pytest.mark.parametrize("tokens", [box_tokens(Box(40, 50, 170, 190)), clicks_with_masks()])
def test_openvino_answers_as_pytorch(
    on_both: list[tuple[Predictor, Embedding]], decoder: str, tokens: Tokens
) -> None:
    ours, theirs = (p.backend.decode(decoder, embedding, [tokens])[0] for p, embedding in on_both)

    difference = np.abs(ours.mask_logits - theirs.mask_logits)
    assert difference.max() < LOGIT_TOLERANCE
    assert difference.mean() < MEAN_LOGIT_TOLERANCE
    assert abs(ours.predicted_iou - theirs.predicted_iou) < IOU_TOLERANCE
    assert np.abs(theirs.mask_logits).max() > 4 * LOGIT_TOLERANCE


def test_an_embedding_holds_lr_features_where_a_decoder_mixes_them(
    on_both: list[tuple[Predictor, Embedding]],
) -> None:
    tokens, features = 4096 * 256 * 4, 32 * 256 * 256 * 4

    for _, embedding in on_both:
        assert {name: len(f) for name, f in embedding.features.items()} == {"mixed": 2, "hr": 1}
        assert embedding.nbytes == 2 * tokens + 3 * features


def test_pytorch_answers_mixed_prompts_together_as_alone(
    on_both: list[tuple[Predictor, Embedding]],
) -> None:
    predictor, embedding = on_both[1]
    prompts = [box_tokens(Box(40, 50, 170, 190)), box_tokens(Box(60, 60, 90, 90))]

    together = predictor.backend.decode("mixed", embedding, prompts)

    for prompt, answer in zip(prompts, together, strict=True):
        (alone,) = predictor.backend.decode("mixed", embedding, [prompt])
        assert np.allclose(answer.mask_logits, alone.mask_logits, atol=TOLERANCE)


def test_an_adapter_of_hr_alone_answers_without_lr_patches(
    tmp_path: Path, lite: Model, patches: tuple[ImageArray, ImageArray]
) -> None:
    learned = learned_state(built(sam_of(lite), "hr"))
    path = tmp_path / "hr.safetensors"
    described = card({"hr": VARIANTS["hr"]}, routed_to("hr"))
    write_adapter(path, described, {f"hr.{name}": t.numpy() for name, t in learned.items()})
    predictor = load_torch(path)

    (embedding,) = predictor.embed([patches[0]], [])
    (answer,) = predictor.predict(embedding, [clicks_with_masks()])

    assert not predictor.reads_lr
    assert not predictor.answers_with_lr(PromptKind.POINTS)
    assert embedding.lr is None
    assert answer.mask_logits.shape == (MASK_PX, MASK_PX)
