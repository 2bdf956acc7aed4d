"""Narrow matrices that learn under the decoders of an adapter, and trainings that follow."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from rich.console import Console

from fixtures.models import PLAIN_BASE, card, routed_to
from fixtures.training_models import TUNED_SAM, WSI_SAM, make_run, nothing
from fixtures.training_runs import SHORT, export_of, shortened
from wsisam_qupath.errors import AdapterError
from wsisam_qupath.model.adapter import Adapter, read_adapter, write_adapter
from wsisam_qupath.model.build import Networks, build_networks, extract_learned_state
from wsisam_qupath.model.card import DecoderCard
from wsisam_qupath.model.shipped import find_shipped_adapter
from wsisam_qupath.options import ModelSpec
from wsisam_qupath.prompts import PromptKind
from wsisam_qupath.prompts.encoding import POSITIVE
from wsisam_qupath_training.run.command import run_train
from wsisam_qupath_training.run.request import TrainRequest
from wsisam_qupath_training.run.verdict import keep_start
from wsisam_qupath_training.sampling.prompt_sampling import PromptBatch
from wsisam_qupath_training.settings import DecoderSettings, one_decoder
from wsisam_qupath_training.trainer.kept_decoders import KeptDecoders, find_kind
from wsisam_qupath_training.trainer.sample_sources import CachedSamples
from wsisam_qupath_training.trainer.trainable_decoder import TrainableDecoder
from wsisam_qupath_training.trainer.trained import TrainedDecoder
from wsisam_qupath_training.trainer.write_adapter import copy_tensors_of, write_trained_adapter

State = dict[str, torch.Tensor]

ALONE = TUNED_SAM.model_copy(
    update={
        "scope": "adapter",
        "card": DecoderCard(architecture="sam"),
        "lora_rank": 2,
        "lora_rate": 0.02,
    }
)
"""Matrices that learn alone."""


def make_prompts(n_points: int, *, has_box: bool = False, has_mask: bool = False) -> PromptBatch:
    mask = np.zeros((1, 256, 256), dtype=np.float32) if has_mask else None
    corners = np.array([[[60, 60], [200, 190]]], dtype=np.float32) if has_box else None
    points = np.full((1, n_points, 2), 128, dtype=np.float32)
    return PromptBatch(points, np.full((1, n_points), POSITIVE), corners, mask, mask)


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Adapter:
    """The decoders of the shipped adapter, on the base's encoder."""
    path = find_shipped_adapter(PLAIN_BASE.name)
    assert path is not None
    shipped = read_adapter(path, PLAIN_BASE)
    plain = shipped.card.model_copy(update={"tunes_encoder": False, "lora_rank": 0})
    tensors: dict[str, NDArray[np.floating]] = {}
    for name in plain.decoders:
        tensors |= copy_tensors_of(shipped, name, name)
    own = tmp_path_factory.mktemp("start") / "start.safetensors"
    write_adapter(own, plain, tensors)
    return read_adapter(own, PLAIN_BASE)


def write(
    path: Path,
    settings: DecoderSettings,
    trained: TrainedDecoder,
    start: Adapter | None,
    state: State,
) -> Adapter:
    recipe = one_decoder(settings)
    written = {"all": trained}
    write_trained_adapter(
        path, recipe, PLAIN_BASE, (), written, start=start, base_state=state, licence=""
    )
    return read_adapter(path, PLAIN_BASE)


@pytest.fixture(scope="module")
def matched(
    tmp_path_factory: pytest.TempPathFactory,
    samples: CachedSamples,
    start: Adapter,
    lite_state: State,
) -> tuple[TrainableDecoder, Adapter]:
    """What was trained under the decoders of the start, and its adapter."""
    folder = tmp_path_factory.mktemp("matched")
    run = make_run(folder, ALONE, samples, lite_state, start=start)
    trained = run.train(nothing)
    run.trainable.load_state_dict(run.trainable.state_dict() | dict(trained.state))
    adapter = write(folder / "matched.safetensors", ALONE, trained, start, lite_state)
    return run.trainable, adapter


def assert_same_encoder(tuned: Adapter, start: Adapter) -> None:
    own, old = tuned.tensors("encoder"), start.tensors("encoder")
    assert own.keys() == old.keys()
    assert all(np.array_equal(own[name], old[name]) for name in old)


@pytest.mark.parametrize(
    ("prompts", "kind"),
    [
        (make_prompts(0, has_box=True), PromptKind.BOX),
        (make_prompts(0, has_mask=True), PromptKind.OUTLINE),
        (make_prompts(0, has_box=True, has_mask=True), PromptKind.OUTLINE),
        (make_prompts(1), PromptKind.POINT),
        (make_prompts(3), PromptKind.POINTS),
        (make_prompts(3, has_mask=True), PromptKind.POINTS),
        (make_prompts(1, has_box=True), PromptKind.BOX_POINTS),
        (make_prompts(2, has_box=True, has_mask=True), PromptKind.BOX_POINTS),
    ],
)
def test_prompts_go_to_the_decoder_that_answers_their_kind(
    start: Adapter, lite_state: State, prompts: PromptBatch, kind: PromptKind
) -> None:
    networks = build_networks(PLAIN_BASE, lite_state, start)
    route = start.card.routes[kind]

    chosen = KeptDecoders(networks, start.card.routes).choose(prompts)

    assert find_kind(prompts) is kind
    assert chosen is networks.decoders[route.last_decoder]


@pytest.mark.walk
def test_all_decoders_stay_as_they_were_to_the_bit(
    matched: tuple[TrainableDecoder, Adapter], start: Adapter
) -> None:
    trainable, adapter = matched

    assert adapter.card.decoders == start.card.decoders
    assert adapter.card.routes == start.card.routes
    assert adapter.card.lora_rank == 2
    for name in start.card.decoders:
        own, old = adapter.tensors(name), start.tensors(name)
        assert own.keys() == old.keys()
        assert all(np.array_equal(own[part], old[part]) for part in old)
    assert all(name.startswith("encoder.") for name in trainable.list_learning())


@pytest.mark.walk
@torch.no_grad()
def test_the_adapter_answers_as_what_was_trained(
    matched: tuple[TrainableDecoder, Adapter],
    samples: CachedSamples,
    lite: Networks,
    lite_state: State,
) -> None:
    trainable, adapter = matched
    features = samples.features(samples.load(0), trainable, torch.device("cpu"))
    loaded = build_networks(PLAIN_BASE, lite_state, adapter)
    (early,) = features.early
    tokens = loaded.encoder.continue_from(early)
    prompts = make_prompts(0, has_box=True)
    coords, labels = map(torch.from_numpy, (prompts.point_coords, prompts.point_labels))

    ours = trainable.predict(features, prompts).logits
    decoder = loaded.decoders[adapter.card.routes[PromptKind.BOX].decoder]
    theirs, of_base = (
        decoder([one], coords, labels).logits for one in (tokens, lite.encoder.continue_from(early))
    )

    learned = (ours - of_base).abs().mean()
    assert learned > 0.01
    assert (ours - theirs).abs().mean() < 0.05 * learned  # of float16


@pytest.mark.walk
@torch.no_grad()
@pytest.mark.parametrize("rank", [2, 5])
def test_the_next_training_goes_on_from_the_matrices_of_the_last(
    matched: tuple[TrainableDecoder, Adapter],
    samples: CachedSamples,
    lite_state: State,
    rank: int,
) -> None:
    _, adapter = matched
    settings = ALONE.model_copy(update={"lora_rank": rank})
    encoder = build_networks(PLAIN_BASE, lite_state, adapter).encoder

    trainable = TrainableDecoder(PLAIN_BASE, lite_state, settings, adapter)

    features = samples.features(samples.load(0), trainable, torch.device("cpu"))
    expected = encoder.continue_from(features.early[0])
    torch.testing.assert_close(features.tokens[0], expected, rtol=1e-3, atol=1e-4)


@pytest.mark.walk
def test_a_lower_rank_says_which_one_holds_the_matrices(
    matched: tuple[TrainableDecoder, Adapter], lite_state: State
) -> None:
    _, adapter = matched
    settings = ALONE.model_copy(update={"lora_rank": 1})

    with pytest.raises(
        AdapterError, match=r"of rank 2, which rank 1 cannot hold\. Choose a lora_rank of 2"
    ):
        TrainableDecoder(PLAIN_BASE, lite_state, settings, adapter)


@pytest.mark.walk
def test_a_decoder_that_learns_alone_keeps_the_image_encoder_of_its_start(
    matched: tuple[TrainableDecoder, Adapter],
    samples: CachedSamples,
    lite_state: State,
    tmp_path: Path,
) -> None:
    _, adapter = matched
    run = make_run(tmp_path / "run", TUNED_SAM, samples, lite_state, start=adapter)

    tuned = write(tmp_path / "a.safetensors", TUNED_SAM, run.train(nothing), adapter, lite_state)

    assert (tuned.card.tunes_encoder, tuned.card.lora_rank) == (True, 2)
    assert_same_encoder(tuned, adapter)
    keep_start(adapter, tuned, [])  # nothing became better
    assert_same_encoder(read_adapter(tuned.path, PLAIN_BASE), adapter)
    build_networks(PLAIN_BASE, lite_state, read_adapter(tuned.path, PLAIN_BASE))


@pytest.mark.walk
def test_without_an_adapter_they_learn_under_the_decoder_of_the_base(
    samples: CachedSamples, lite: Networks, lite_state: State, tmp_path: Path
) -> None:
    trained = make_run(tmp_path / "run", ALONE, samples, lite_state).train(nothing)

    adapter = write(tmp_path / "a.safetensors", ALONE, trained, None, lite_state)

    (decoder,) = build_networks(PLAIN_BASE, lite_state, adapter).decoders.values()
    (plain,) = lite.decoders.values()
    own, base = decoder.state_dict(), plain.state_dict()
    assert all(torch.equal(own[name], base[name]) for name in base)


def test_a_decoder_with_features_of_its_own_is_not_left_behind(
    lite: Networks, lite_state: State, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    settings = WSI_SAM.model_copy(update={"scope": "adapter"})
    learned = extract_learned_state(TrainableDecoder(PLAIN_BASE, lite_state, settings).decoder)
    path = tmp_path / "wsi.safetensors"
    described = card({"all": settings.card}, routed_to("all"))
    write_adapter(path, described, {f"all.{n}": t.numpy() for n, t in learned.items()})

    with pytest.raises(AdapterError, match=r"'all' of the adapter .* has features of its own"):
        TrainableDecoder(PLAIN_BASE, lite_state, ALONE, read_adapter(path, PLAIN_BASE))


@pytest.mark.walk
def test_an_adapter_with_matrices_is_trained_further_and_its_encoder_stays(
    start: Adapter, tmp_path: Path
) -> None:
    export, words = export_of(tmp_path), Console(file=io.StringIO(), width=200)
    short = SHORT | {"compared_objects": 2}
    alone = one_decoder(shortened(ALONE), **short)
    spec = ModelSpec(adapter=start.path, device="cpu")
    cache = tmp_path / "features"

    first = run_train(
        TrainRequest(export, tmp_path / "a.safetensors", recipe=alone, model=spec, cache=cache),
        words,
    )
    tuned = one_decoder(shortened(TUNED_SAM), **short)
    assert first is not None
    spec = ModelSpec(adapter=first.adapter, device="cpu")
    second = run_train(
        TrainRequest(export, tmp_path / "b.safetensors", recipe=tuned, model=spec, cache=cache),
        words,
    )

    assert second is not None
    a, b = (read_adapter(made.adapter, PLAIN_BASE) for made in (first, second))
    assert a.encoder_sha256 == b.encoder_sha256
    assert a.encoder_sha256 is not None
    kept = {folder.name for folder in cache.iterdir()}
    assert a.encoder_sha256[:24] in kept
    assert len(kept) == 3  # both parts of the base's features, and those of the other encoder
    assert isinstance(words.file, io.StringIO)
    assert words.file.getvalue().count("on 3 objects to validate on:") == 2
