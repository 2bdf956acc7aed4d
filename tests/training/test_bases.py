"""Every base trains through the same code, and what it learned answers in an adapter."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from fixtures.evaluate_models import make_image
from fixtures.models import PLAIN_BASE
from fixtures.training_models import (
    PLAIN_VIEWS,
    TUNED_SAM,
    losses_of,
    make_cache,
    make_run,
    nothing,
    sampled,
)
from wsisam_qupath.geometry import Box
from wsisam_qupath.inference.backends import ImageArray
from wsisam_qupath.inference.backends.torch_backend import TorchBackend
from wsisam_qupath.inference.predictor import Predictor
from wsisam_qupath.model.adapter import Adapter, read_adapter
from wsisam_qupath.model.bases import Base, find_base
from wsisam_qupath.model.build import (
    Networks,
    build_encoder,
    build_networks,
    build_prompted_sam,
    encoder_state,
)
from wsisam_qupath.prompts.encoding import MASK_PX, encode_box
from wsisam_qupath_training.settings import DecoderSettings, one_decoder
from wsisam_qupath_training.trainer.sample_sources import CachedSamples, PixelSamples
from wsisam_qupath_training.trainer.trained import TrainedDecoder
from wsisam_qupath_training.trainer.write_adapter import write_trained_adapter

pytestmark = [pytest.mark.slow, pytest.mark.walk]

State = Mapping[str, torch.Tensor]

SMALL_VIT = replace(find_base("sam-vit-b"), name="small-vit", early_channels=48, sha256="0" * 64)
"""SAM with an image encoder of two narrow blocks."""


@pytest.fixture
def small_vit_state(monkeypatch: pytest.MonkeyPatch) -> State:
    monkeypatch.setattr("wsisam_qupath.model.build._VITS", {"vit-b": (48, 2, 2, (1,))})
    torch.manual_seed(1)
    encoder = build_encoder(SMALL_VIT).state_dict()
    named = {f"image_encoder.{n.removeprefix('vit.')}": tensor for n, tensor in encoder.items()}
    return named | dict(build_prompted_sam(SMALL_VIT).state_dict())


@pytest.fixture
def mobile_sam_state() -> State:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it imports timm by the old names
        from mobile_sam import sam_model_registry
    torch.manual_seed(1)
    state: State = sam_model_registry["vit_t"]().state_dict()
    return state


@pytest.fixture(params=["mobile-sam", "small-vit"])
def random_base(request: pytest.FixtureRequest) -> Iterator[tuple[Base, State]]:
    base = SMALL_VIT if request.param == "small-vit" else find_base("mobile-sam")
    yield base, request.getfixturevalue(f"{request.param.replace('-', '_')}_state")


def adapted(
    path: Path, settings: DecoderSettings, base: Base, trained: TrainedDecoder, state: State
) -> tuple[Adapter, Networks]:
    """The adapter that is written, and its model."""
    recipe = one_decoder(settings)
    made = write_trained_adapter(
        path, recipe, base, (), {"all": trained}, start=None, base_state=state, licence="none"
    )
    adapter = read_adapter(made.adapter, base)
    return adapter, build_networks(base, state, adapter)


def test_a_base_of_random_weights_learns_and_its_adapter_answers(
    random_base: tuple[Base, State], tissue: ImageArray, tmp_path: Path
) -> None:
    base, state = random_base
    settings = TUNED_SAM.model_copy(update={"steps": 8, "decoder_rate": 1e-3})
    samples = CachedSamples(make_cache(tmp_path / "views", 1, base=base))
    run = make_run(tmp_path / "run", settings, samples, state, base=base, validate_every=8)

    trained, losses = losses_of(run)
    adapter, model = adapted(tmp_path / "mine.safetensors", settings, base, trained, state)
    predictor = Predictor(TorchBackend(model, "cpu"), base, adapter)
    (embedding,) = predictor.backend.embed([[np.tile(tissue, (2, 2, 1))]])
    ((answer,),) = predictor.predict(embedding, [encode_box(Box(100, 200, 700, 800))])

    assert np.mean(losses[-2:]) < np.mean(losses[:2])
    assert answer.mask_logits.shape == (MASK_PX, MASK_PX)
    assert np.isfinite(answer.mask_logits).all()
    name = "mask_decoder.mask_tokens.weight"
    learned = trained.state[f"decoder.sam.{name}"].half().float().numpy()
    assert np.array_equal(adapter.tensors("all")[name], learned)


def test_a_tuned_encoder_comes_whole_with_its_adapter(
    lite: Networks, lite_state: State, tmp_path: Path
) -> None:
    settings = TUNED_SAM.model_copy(update={"scope": "encoder+decoder", "steps": 1})
    image = make_image(tmp_path)
    with sampled(image, 1) as (slide, samples):
        pixels = PixelSamples([image], [slide], samples, PLAIN_VIEWS)
        run = make_run(tmp_path / "run", settings, pixels, lite_state, validate_every=1)
        trained = run.train(nothing)

    _, model = adapted(tmp_path / "mine.safetensors", settings, PLAIN_BASE, trained, lite_state)

    ours, theirs = encoder_state(model.encoder), encoder_state(lite.encoder)
    statistics = {name for name in theirs if "running_" in name}
    assert statistics
    for name in statistics:
        assert torch.equal(ours[name], theirs[name].half().float()), name
    override_recipe = {n for n in theirs if not torch.equal(ours[n], theirs[n].half().float())}
    assert override_recipe
    (decoder,) = model.decoders.values()
    (plain,) = lite.decoders.values()
    for name, tensor in plain.sam.prompt_encoder.state_dict().items():
        assert torch.equal(decoder.sam.prompt_encoder.state_dict()[name], tensor), name
