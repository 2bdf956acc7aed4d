"""Training of narrow matrices beside an image encoder's layers, from kept early features."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from safetensors import safe_open

from fixtures.models import PLAIN_BASE
from fixtures.training_models import (
    ONLY_POINTS,
    TUNED_SAM,
    Killed,
    killed_at,
    make_run,
    nothing,
)
from wsisam_qupath.cli.main import cli
from wsisam_qupath.errors import OptionError
from wsisam_qupath.model.adapter import read_adapter
from wsisam_qupath.model.build import Networks, build_networks
from wsisam_qupath.model.low_rank import is_low_rank
from wsisam_qupath.model.shipped import find_shipped_adapter
from wsisam_qupath_training.recipes import (
    fit_recipe,
    keep_scale,
    make_single_decoder_recipe,
    override_decoders,
)
from wsisam_qupath_training.settings import DecoderSettings, Recipe, one_decoder
from wsisam_qupath_training.trainer.sample_sources import CachedSamples
from wsisam_qupath_training.trainer.trained import TrainedDecoder
from wsisam_qupath_training.trainer.trainer import Run
from wsisam_qupath_training.trainer.write_adapter import write_trained_adapter

State = dict[str, torch.Tensor]

LORA = TUNED_SAM.model_copy(update={"mix": ONLY_POINTS, "lora_rank": 2, "lora_rate": 0.02})
"""Points with further clicks, and matrices that learn fast enough to be told from the base."""


@pytest.fixture(scope="module")
def undisturbed(
    tmp_path_factory: pytest.TempPathFactory, samples: CachedSamples, lite_state: State
) -> tuple[Run, TrainedDecoder]:
    run = make_run(tmp_path_factory.mktemp("whole"), LORA, samples, lite_state)
    return run, run.train(nothing)


def name_odd(ours: Mapping[str, torch.Tensor], theirs: Mapping[str, torch.Tensor]) -> set[str]:
    assert ours.keys() == theirs.keys()
    return {name for name in ours if not torch.equal(ours[name], theirs[name])}


@pytest.mark.walk
def test_the_matrices_learn_and_the_encoder_stays_as_it_was(
    undisturbed: tuple[Run, TrainedDecoder], lite: Networks
) -> None:
    run, trained = undisturbed

    learned = {name for name in trained.state if name.startswith("encoder.")}
    assert len(learned) == 64
    assert all(is_low_rank(name) for name in learned)
    assert all(trained.state[name].any() for name in learned)
    assert run.trainable.encoder is not None
    whole = run.trainable.encoder.encoder.state_dict()
    frozen = {name: tensor for name, tensor in whole.items() if not is_low_rank(name)}
    assert name_odd(frozen, lite.encoder.encoder.state_dict()) == set()
    rates = {id(p): group["lr"] for group in run.trainable.rates() for p in group["params"]}
    own = {rates[id(p)] for n, p in run.trainable.list_learning().items() if n in learned}
    assert own == {0.02}


@pytest.mark.walk
def test_an_adapter_has_the_matrices_alone_and_answers_as_what_was_trained(
    undisturbed: tuple[Run, TrainedDecoder],
    samples: CachedSamples,
    lite: Networks,
    lite_state: State,
    tmp_path: Path,
) -> None:
    run, trained = undisturbed
    trainable = run.trainable
    path = write_trained_adapter(
        tmp_path / "mine.safetensors",
        one_decoder(LORA),
        PLAIN_BASE,
        (),
        {"all": trained},
        start=None,
        base_state=lite_state,
        licence="none",
    ).adapter
    trainable.load_state_dict(trainable.state_dict() | dict(trained.state))

    adapter = read_adapter(path, PLAIN_BASE)
    loaded = build_networks(PLAIN_BASE, lite_state, adapter)

    assert (adapter.card.tunes_encoder, adapter.card.lora_rank) == (True, 2)
    with safe_open(path, "numpy") as file:
        kept = [n for n in file.keys() if n.startswith("encoder.")]  # noqa: SIM118 - no mapping
        assert all(is_low_rank(name) for name in kept)
        n_bytes = sum(file.get_tensor(name).nbytes for name in kept)
    assert 16 / 2 * n_bytes < 2_000_000  # of rank 16
    with torch.no_grad():
        features = samples.features(samples.load(0), trainable, torch.device("cpu"))
        (early,) = features.early
        ours, base = (one.encoder.continue_from(early) for one in (loaded, lite))
    learned = (features.tokens[0] - base).abs().max()
    assert learned > 0.01 * base.abs().max()
    assert (features.tokens[0] - ours).abs().max() < 0.01 * learned  # of float16


@pytest.mark.walk
def test_a_run_that_was_killed_ends_to_the_bit_as_an_undisturbed_one(
    undisturbed: tuple[Run, TrainedDecoder],
    samples: CachedSamples,
    lite_state: State,
    tmp_path: Path,
) -> None:
    with pytest.raises(Killed):
        make_run(tmp_path, LORA, samples, lite_state).train(killed_at(3))
    resumed = make_run(tmp_path, LORA, samples, lite_state).train(nothing)

    _, whole = undisturbed
    assert name_odd(resumed.state, whole.state) == set()
    assert resumed.history == whole.history


@pytest.mark.walk
def test_a_step_goes_through_the_encoder_once_whatever_its_clicks(
    samples: CachedSamples, lite_state: State, tmp_path: Path
) -> None:
    run = make_run(tmp_path, LORA.model_copy(update={"steps": 2}), samples, lite_state)
    assert run.trainable.encoder is not None
    passes: list[int] = []
    neck = run.trainable.encoder.encoder.get_submodule("neck")
    neck.register_forward_hook(lambda *_: passes.append(1))
    steps = [run._draw_step(number) for number in range(8)]

    optimizer = torch.optim.AdamW(run.trainable.rates())
    clicked = next(step for step in steps if step.plan.clicks > 1)
    run._step(run.trainable, optimizer, clicked)

    assert len(passes) == 1


@pytest.mark.parametrize("scope", ["encoder+decoder", "whole"])
def test_a_scope_that_tunes_the_whole_encoder_leaves_no_room_for_them(scope: str) -> None:
    with pytest.raises(OptionError, match=r"lora_rank: .*tunes the whole image encoder"):
        override_decoders(one_decoder(TUNED_SAM.model_copy(update={"scope": scope})), lora_rank=8)


@pytest.mark.parametrize("rank", [-1, 129])
def test_a_rank_that_cannot_be_is_refused(rank: int) -> None:
    with pytest.raises(ValueError, match="lora_rank"):
        DecoderSettings(scope="decoder", lora_rank=rank)


def test_a_blend_with_the_base_does_not_go_with_another_encoder() -> None:
    with pytest.raises(OptionError, match=r"lora_rank: .*the blend boxes mixes in the base's"):
        override_decoders(Recipe(), lora_rank=8)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--lora", "0"], "0 is not in the range 1<=x<=128"),
        (["--lora", "-4"], "-4 is not in the range 1<=x<=128"),
        (
            ["--lora", "8", "--scope", "whole"],
            "(decoders.all: scope whole tunes the whole image encoder: leave out lora_rank,",
        ),
        (
            ["--lora", "8", "--recipe", "routed.toml"],
            "--lora: does not fit the recipe (a tuned image encoder goes with one decoder: leave",
        ),
        (
            ["--lora", "8", "--recipe", "several.toml"],
            "than the base's: leave the blend out of the recipe",
        ),
    ],
)
def test_options_that_do_not_go_together_say_so_in_a_sentence(
    tmp_path: Path, options: list[str], message: str
) -> None:
    done = CliRunner().invoke(cli, ["train", str(tmp_path), "-o", "a.safetensors", *options])

    assert done.exit_code != 0
    assert message in done.output
    assert "Traceback" not in done.output


@pytest.mark.slow
def test_without_a_recipe_and_an_adapter_one_decoder_learns_with_them() -> None:
    plain = fit_recipe(None, 100)

    recipe = fit_recipe(None, 100, lora_rank=8)

    assert not recipe.blends
    (name,) = recipe.decoders
    assert {route.decoder for route in recipe.routes.values()} == {name}
    expected = plain.decoders["points"].model_copy(update={"lora_rank": 8})
    assert recipe.decoders[name] == expected
    same = {"views", "val_views", "validate_every", "hr_mpp", "compared_objects", "sampling"}
    assert recipe.model_dump(include=same) == plain.model_dump(include=same)


@pytest.mark.slow
def test_without_a_recipe_they_learn_alone_under_the_decoders_of_the_adapter() -> None:
    shipped = find_shipped_adapter(PLAIN_BASE.name)
    assert shipped is not None
    start = read_adapter(shipped, PLAIN_BASE)
    plain = fit_recipe(start, 100)

    recipe = fit_recipe(start, 100, lora_rank=8)

    assert recipe.keeps_decoders
    (settings,), (usual,) = recipe.decoders.values(), plain.decoders.values()
    assert (settings.scope, settings.lora_rank) == ("adapter", 8)
    assert (settings.steps, settings.start_shares) == (usual.steps, usual.start_shares)


@pytest.mark.slow
def test_decoders_that_stay_keep_their_scale_whatever_the_recipe_says() -> None:
    shipped = find_shipped_adapter(PLAIN_BASE.name)
    assert shipped is not None
    start = read_adapter(shipped, PLAIN_BASE)
    coarse = replace(start, card=start.card.model_copy(update={"hr_mpp": 2.0}))
    learning = fit_recipe(start, 100)
    staying = fit_recipe(start, 100, lora_rank=8)

    assert keep_scale(staying, coarse) == staying.model_copy(update={"hr_mpp": 2.0})
    assert keep_scale(staying, None) == staying
    assert keep_scale(learning, coarse) == learning


def test_with_a_scope_it_is_one_decoder_with_them() -> None:
    recipe = make_single_decoder_recipe(scope="mask-decoder", architecture="sam", lora_rank=4)

    (settings,) = recipe.decoders.values()
    assert (settings.scope, settings.lora_rank) == ("mask-decoder", 4)
    assert settings.brings_encoder
    assert not settings.tunes_encoder
