"""Training that starts from an adapter: its first answers are nearly those of the adapter."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from fixtures.models import PLAIN_BASE, card, routed_to, sam_of
from fixtures.training_models import TUNED_SAM, WSI_SAM
from wsisam_qupath.errors import AdapterError
from wsisam_qupath.inference.backends import ImageArray
from wsisam_qupath.model.adapter import Adapter, read_adapter, write_adapter
from wsisam_qupath.model.build import (
    Networks,
    build_decoder,
    build_networks,
    encoder_state,
    extract_learned_state,
)
from wsisam_qupath.model.card import DecoderCard, SamLogits
from wsisam_qupath.model.decoders import Decoded, SamDecoder
from wsisam_qupath.prompts.encoding import NEGATIVE, POSITIVE
from wsisam_qupath_training.sampling.prompt_sampling import PromptBatch
from wsisam_qupath_training.settings import DecoderSettings
from wsisam_qupath_training.trainer.trainable_decoder import SampleFeatures, TrainableDecoder

State = dict[str, torch.Tensor]
TOKEN = "mask_decoder.mask_tokens.weight"
NECK = "encoder.neck.0.weight"

BOTH = WSI_SAM.model_copy(
    update={"card": WSI_SAM.card.model_copy(update={"sam_logits": SamLogits.BOTH})}
)
"""SAM's own logits are added on both patches."""


@pytest.fixture(scope="module")
def tuned_sam(tmp_path_factory: pytest.TempPathFactory, lite: Networks) -> Adapter:
    """SAM's decoder with other mask tokens."""
    path = tmp_path_factory.mktemp("tuned") / "tuned.safetensors"
    changed = 1.25 * sam_of(lite).state_dict()[TOKEN].numpy()
    plain = DecoderCard(architecture="sam")
    write_adapter(path, card({"all": plain}, routed_to("all")), {f"all.{TOKEN}": changed})
    return read_adapter(path, PLAIN_BASE)


def write_untrained_adapter(path: Path, lite: Networks, settings: DecoderSettings) -> Adapter:
    """A decoder of random numbers, as the settings describe it."""
    torch.manual_seed(9)
    learned = extract_learned_state(build_decoder(PLAIN_BASE, sam_of(lite), settings.card))
    described = card({"all": settings.card}, routed_to("all"))
    write_adapter(path, described, {f"all.{n}": t.numpy() for n, t in learned.items()})
    return read_adapter(path, PLAIN_BASE)


def make_trainable(
    state: State, settings: DecoderSettings, adapter: Adapter | None = None
) -> TrainableDecoder:
    torch.manual_seed(0)
    return TrainableDecoder(PLAIN_BASE, state, settings, adapter)


CLICKS = PromptBatch(
    np.array([[[90, 100], [150, 140]], [[60, 200], [200, 60]]], dtype=np.float32),
    np.array([[POSITIVE, POSITIVE], [POSITIVE, NEGATIVE]], dtype=np.int64),
)


@torch.no_grad()
def encode_tissue(lite: Networks, patches: tuple[ImageArray, ImageArray]) -> SampleFeatures:
    encoded = [lite.encoder(torch.from_numpy(patch)[None]) for patch in patches]
    tokens, early = zip(*encoded, strict=True)
    return SampleFeatures(tokens, early)


def ask_adapter_on_each_patch(
    state: State, adapter: Adapter, features: SampleFeatures, prompts: PromptBatch
) -> Decoded:
    """The adapter's own answers on the HR patch, and on the LR patch as if it were an HR patch."""
    decoder = build_networks(PLAIN_BASE, state, adapter).decoders["all"]
    assert isinstance(decoder, SamDecoder)
    hr_coords = torch.from_numpy(prompts.point_coords)
    labels = torch.from_numpy(prompts.point_labels)
    own = [
        decoder(tokens, coords, labels)
        for tokens, coords in zip(features.tokens, (hr_coords, hr_coords / 2 + 64), strict=True)
    ]
    return Decoded(*(torch.cat(parts, dim=1) for parts in zip(*own, strict=True)))


def measure_distance(ours: Decoded, theirs: Decoded) -> torch.Tensor:
    """Mean difference of the mask logits, B x R."""
    return (ours.logits - theirs.logits).abs().mean(dim=(2, 3))


@torch.no_grad()
def test_the_first_answers_are_nearly_those_of_the_adapter_on_both_patches(
    tuned_sam: Adapter,
    lite: Networks,
    lite_state: State,
    patches: tuple[ImageArray, ImageArray],
) -> None:
    features = encode_tissue(lite, patches)
    own = ask_adapter_on_each_patch(lite_state, tuned_sam, features, CLICKS)

    started = make_trainable(lite_state, BOTH, tuned_sam).predict(features, CLICKS)
    bare = make_trainable(lite_state, BOTH).predict(features, CLICKS)

    assert started.logits.shape == own.logits.shape == (2, 2, 256, 256)
    distance = measure_distance(started, own)
    assert (distance < 0.3 * measure_distance(bare, own)).all()
    assert (distance > 0).all()  # else WSI-SAM's parts would have nothing to learn from
    assert (started.iou - own.iou).abs().max() < 0.1


@torch.no_grad()
def test_a_decoder_of_the_same_kind_starts_exactly_where_the_adapter_is(
    lite: Networks, lite_state: State, tmp_path: Path
) -> None:
    adapter = write_untrained_adapter(tmp_path / "wsi.safetensors", lite, BOTH)

    trainable = make_trainable(lite_state, BOTH, adapter)

    other = build_networks(PLAIN_BASE, lite_state, adapter).decoders["all"].state_dict()
    own = trainable.decoder.state_dict()
    assert own.keys() == other.keys()
    assert [name for name in own if not torch.equal(own[name], other[name])] == []


def test_what_learns_is_what_learns_without_an_adapter(
    tuned_sam: Adapter, lite_state: State
) -> None:
    started, bare = (make_trainable(lite_state, BOTH, one) for one in (tuned_sam, None))

    assert started.list_learning().keys() == bare.list_learning().keys()


def test_an_adapter_whose_decoder_is_another_network_is_refused(
    lite: Networks, lite_state: State, tmp_path: Path
) -> None:
    adapter = write_untrained_adapter(tmp_path / "wsi.safetensors", lite, BOTH)

    with pytest.raises(
        AdapterError, match=r"wsi\.safetensors has a tensor '.*' that does not fit .* bare base\."
    ):
        make_trainable(lite_state, TUNED_SAM, adapter)


def test_a_tensor_of_another_shape_is_refused(
    lite: Networks, lite_state: State, tmp_path: Path
) -> None:
    hr_only = WSI_SAM.model_copy(update={"card": WSI_SAM.card.model_copy(update={"hr_only": True})})
    adapter = write_untrained_adapter(tmp_path / "hr.safetensors", lite, hr_only)

    with pytest.raises(AdapterError, match=r"has a tensor 'iou_head\..*' that does not fit"):
        make_trainable(lite_state, WSI_SAM, adapter)


def write_whole_encoder(path: Path, lite: Networks) -> Adapter:
    """SAM's decoder on an encoder whose neck is not the base's."""
    plain = card({"all": DecoderCard(architecture="sam")}, routed_to("all"))
    tensors = {name: tensor.numpy() for name, tensor in encoder_state(lite.encoder).items()}
    tensors[NECK] = 1.25 * tensors[NECK]
    write_adapter(path, plain.model_copy(update={"tunes_encoder": True}), tensors)
    return read_adapter(path, PLAIN_BASE)


def test_an_image_encoder_that_learns_begins_as_that_of_the_adapter(
    lite: Networks, lite_state: State, tmp_path: Path
) -> None:
    adapter = write_whole_encoder(tmp_path / "encoder.safetensors", lite)
    whole = TUNED_SAM.model_copy(update={"scope": "whole"})

    encoder = make_trainable(lite_state, whole, adapter).encoder

    assert encoder is not None
    own, base = (encoder_state(one)[NECK] for one in (encoder, lite.encoder))
    assert torch.equal(own, 1.25 * base)


def test_beside_a_whole_image_encoder_of_an_adapter_no_narrow_matrices_can_be_kept(
    lite: Networks, lite_state: State, tmp_path: Path
) -> None:
    adapter = write_whole_encoder(tmp_path / "encoder.safetensors", lite)

    with pytest.raises(AdapterError, match=r"encoder\.safetensors has a whole image .*lora_rank"):
        make_trainable(lite_state, TUNED_SAM.model_copy(update={"lora_rank": 2}), adapter)
