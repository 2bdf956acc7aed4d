"""The loop: what learns, that a killed run ends as an undisturbed one, and what stops it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fixtures.models import PLAIN_BASE, sam_of
from fixtures.training_models import (
    ONLY_POINTS,
    TUNED_SAM,
    WSI_SAM,
    Killed,
    killed_at,
    losses_of,
    make_cache,
    make_run,
    nothing,
)
from wsisam_qupath.errors import AdapterError, DeviceError, FormatError
from wsisam_qupath.model.build import Networks
from wsisam_qupath.model.card import SamLogits
from wsisam_qupath.prompts import PromptKind
from wsisam_qupath_training.sampling.prefetch import prefetch
from wsisam_qupath_training.sampling.prompt_sampling import Plan, draw_first_prompts
from wsisam_qupath_training.settings import DecoderSettings
from wsisam_qupath_training.trainer.checkpoint import read_checkpoint
from wsisam_qupath_training.trainer.sample_sources import CachedSamples, LoadedSample
from wsisam_qupath_training.trainer.targets import make_targets
from wsisam_qupath_training.trainer.trainable_decoder import SampleFeatures, TrainableDecoder
from wsisam_qupath_training.trainer.trained import TrainedDecoder, choose_start_share
from wsisam_qupath_training.trainer.trainer import Run, schedule
from wsisam_qupath_training.trainer.validation import validate

pytestmark = [pytest.mark.slow, pytest.mark.walk]

State = dict[str, torch.Tensor]
CLICKED = TUNED_SAM.model_copy(update={"mix": ONLY_POINTS})


@pytest.fixture(scope="module")
def undisturbed(
    tmp_path_factory: pytest.TempPathFactory, samples: CachedSamples, lite_state: State
) -> tuple[Run, TrainedDecoder]:
    """Four steps of points with further clicks."""
    run = make_run(tmp_path_factory.mktemp("whole"), CLICKED, samples, lite_state)
    return run, run.train(nothing)


def assert_same(ours: Mapping[str, torch.Tensor], theirs: Mapping[str, torch.Tensor]) -> None:
    assert ours.keys() == theirs.keys()
    assert [name for name in ours if not torch.equal(ours[name], theirs[name])] == []


def test_a_run_that_was_killed_ends_to_the_bit_as_an_undisturbed_one(
    undisturbed: tuple[Run, TrainedDecoder],
    samples: CachedSamples,
    lite_state: State,
    tmp_path: Path,
) -> None:
    whole_run, whole = undisturbed

    with pytest.raises(Killed):
        make_run(tmp_path, CLICKED, samples, lite_state).train(killed_at(3))
    stopped = read_checkpoint(tmp_path / "checkpoint.pt", "tiny")
    run = make_run(tmp_path, CLICKED, samples, lite_state)
    resumed = run.train(nothing)

    assert stopped is not None
    assert (stopped.step, stopped.finished) == (2, False)
    assert_same(resumed.state, whole.state)
    assert_same(run.trainable.state_dict(), whole_run.trainable.state_dict())
    assert resumed.history == whole.history
    ends = [read_checkpoint(one.checkpoint_path, "tiny") for one in (run, whole_run)]
    ours, theirs = (end.optimizer["state"] for end in ends if end is not None)
    for number, state in theirs.items():
        assert_same(ours[number], state)


def test_a_finished_run_trains_no_more(
    undisturbed: tuple[Run, TrainedDecoder], samples: CachedSamples, lite_state: State
) -> None:
    finished, trained = undisturbed

    again = make_run(finished.folder, CLICKED, samples, lite_state).train(killed_at(1))

    assert_same(again.state, trained.state)
    assert again.history == trained.history


@pytest.mark.walk
def test_what_was_learned_is_mixed_with_the_start_as_far_as_that_helps(
    undisturbed: tuple[Run, TrainedDecoder],
    samples: CachedSamples,
    lite_state: State,
    tmp_path: Path,
) -> None:
    shares = (0.0, 0.5, 1.0)
    settings = CLICKED.model_copy(update={"start_shares": shares})
    run = make_run(tmp_path, settings, samples, lite_state)
    start = {name: p.detach().clone() for name, p in run.trainable.list_learning().items()}

    measured_run = run.measure_shares(run.finish(nothing))
    trained = measured_run.mix(choose_start_share([measured_run], shares))

    _, whole = undisturbed  # the same run without a start to go back to
    share = trained.start_share
    assert share in shares
    for name, tensor in whole.state.items():
        assert torch.allclose(trained.state[name], tensor.lerp(start[name], share), atol=1e-7)
    dices = {}
    for other in shares:
        with torch.no_grad():
            for name, parameter in run.trainable.list_learning().items():
                parameter.copy_(whole.state[name].lerp(start[name], other))
        measured = validate(run.trainable, samples, settings.mix, run.size_px, run.context)
        dices[other] = measured["dice"]
    assert measured_run.share_dices == dices
    assert dices[share] == max(dices.values())


def test_without_others_to_validate_on_the_last_share_is_taken(
    samples: CachedSamples, lite_state: State, tmp_path: Path
) -> None:
    settings = CLICKED.model_copy(update={"start_shares": (0.0, 0.75)})
    run = make_run(tmp_path, settings, samples, lite_state)
    run.can_compare = False

    assert run.train(nothing).start_share == 0.75


@pytest.mark.walk
def test_a_run_goes_on_after_steps_with_a_loss_that_others_do_not_have(
    samples: CachedSamples, lite_state: State, tmp_path: Path
) -> None:
    # SAM's own loss is one of windowed steps alone.
    mixed = WSI_SAM.model_copy(
        update={
            "card": WSI_SAM.card.model_copy(update={"sam_logits": SamLogits.BOTH}),
            "sam_weight": 0.5,
            "windowed_share": 0.5,
            "scope": "decoder",
        }
    )
    run = make_run(tmp_path, mixed, samples, lite_state)
    windowed = [step.windows_seed is not None for step in run._draw_steps(0)]

    trained = run.train(nothing)

    assert set(windowed) == {True, False}
    assert any("train_sam" in row for row in trained.history)
    assert all(math.isfinite(value) for row in trained.history for value in row.values())


def test_the_log_of_a_run_has_a_row_a_validation(undisturbed: tuple[Run, TrainedDecoder]) -> None:
    _, trained = undisturbed

    assert [row["step"] for row in trained.history] == [2.0, 4.0]
    kinds = {"1_points", "3_points", "10_points"}
    assert all(kinds <= set(row) for row in trained.history)
    assert all(0 <= row["dice"] <= 100 for row in trained.history)
    assert trained.best_dice == max(row["dice"] for row in trained.history)


def test_a_run_with_other_settings_does_not_go_on(
    undisturbed: tuple[Run, TrainedDecoder], samples: CachedSamples, lite_state: State
) -> None:
    folder = undisturbed[0].folder

    with pytest.raises(AdapterError, match="of a run with other settings or data"):
        make_run(folder, CLICKED, samples, lite_state, made_for="other").train(nothing)


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04"])
def test_a_damaged_checkpoint_is_told(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "checkpoint.pt"
    path.write_bytes(content)

    with pytest.raises(AdapterError, match="is no sound checkpoint"):
        read_checkpoint(path, "tiny")


def test_a_checkpoint_of_a_newer_version_is_refused_and_left_alone(
    undisturbed: tuple[Run, TrainedDecoder],
) -> None:
    content = torch.load(undisturbed[0].checkpoint_path, weights_only=True)
    newer = undisturbed[0].folder / "newer.pt"
    torch.save({**content, "format": 2}, newer)
    before = newer.read_bytes()

    with pytest.raises(FormatError, match="is the state of a training in format 2"):
        read_checkpoint(newer, "tiny")

    assert newer.read_bytes() == before


def test_further_keys_of_a_checkpoint_are_ignored(undisturbed: tuple[Run, TrainedDecoder]) -> None:
    content = torch.load(undisturbed[0].checkpoint_path, weights_only=True)
    longer = undisturbed[0].folder / "longer.pt"
    torch.save({**content, "weather": "fine"}, longer)

    found = read_checkpoint(longer, "tiny")

    assert found is not None
    assert found.step == content["step"]


def test_a_validation_tells_how_long_the_device_waited(
    samples: CachedSamples, lite_state: State, tmp_path: Path
) -> None:
    rows: list[Mapping[str, float]] = []
    run = make_run(tmp_path, CLICKED, samples, lite_state)

    run.train(lambda _, row: rows.append(row))

    shares = [row["waiting_share"] for row in rows if "dice" in row]
    assert len(shares) == 2
    assert all(0 < share < 1 for share in shares)
    assert shares[-1] == run.clock.waiting_share


def test_scope_adapter_leaves_all_of_sam_as_it_was(
    samples: CachedSamples, lite_state: State, lite: Networks, tmp_path: Path
) -> None:
    run = make_run(tmp_path, WSI_SAM.model_copy(update={"steps": 2}), samples, lite_state)
    before = {name: p.detach().clone() for name, p in run.trainable.named_parameters()}

    trained = run.train(nothing)

    assert_same(run.trainable.decoder.sam.state_dict(), sam_of(lite).state_dict())
    assert run.trainable.encoder is None
    assert not any(name.startswith("decoder.sam.") for name in trained.state)
    after = dict(run.trainable.named_parameters())
    still = {name for name in trained.state if torch.equal(before[name], after[name])}
    assert still == set()


def test_scope_decoder_leaves_what_no_answer_needs_as_it_was(
    undisturbed: tuple[Run, TrainedDecoder], lite: Networks
) -> None:
    run, trained = undisturbed

    sam, base = run.trainable.decoder.sam.state_dict(), sam_of(lite).state_dict()
    learned = {name.removeprefix("decoder.sam.") for name in trained.state}
    frozen = set(base) - learned
    assert frozen == {
        "prompt_encoder.pe_layer.positional_encoding_gaussian_matrix",
        *(
            name
            for name in base
            if ".output_hypernetworks_mlps." in name and "_mlps.0." not in name
        ),
    }
    assert_same({n: sam[n] for n in frozen}, {n: base[n] for n in frozen})
    assert not torch.equal(
        sam["mask_decoder.mask_tokens.weight"], base["mask_decoder.mask_tokens.weight"]
    )


def test_scope_mask_decoder_also_leaves_what_embeds_prompts(
    samples: CachedSamples, lite_state: State, tmp_path: Path
) -> None:
    settings = TUNED_SAM.model_copy(update={"scope": "mask-decoder"})

    learning = make_run(tmp_path, settings, samples, lite_state).trainable.list_learning()

    assert learning
    assert all(name.startswith("decoder.sam.mask_decoder.") for name in learning)


@pytest.mark.walk
def test_views_of_nested_objects_are_not_validated_with_fewer_points_than_they_say(
    lite_state: State, tmp_path: Path
) -> None:
    cache = make_cache(tmp_path / "views", 1)
    nested = CachedSamples(cache, least_points=[3] * len(cache))
    run = make_run(tmp_path, CLICKED, nested, lite_state)

    measured = validate(run.trainable, nested, CLICKED.mix, run.size_px, run.context)

    assert {name for name in measured if "points" in name} == {"3_points", "10_points"}


@pytest.mark.walk
@pytest.mark.parametrize(("share", "answering"), [(0.0, "lr"), (1.0, "hr")])
def test_the_mask_that_learns_is_the_one_that_is_measured(
    samples: CachedSamples, lite_state: State, tmp_path: Path, share: float, answering: str
) -> None:
    run = make_run(tmp_path, WSI_SAM.model_copy(update={"hr_share": share}), samples, lite_state)
    truth = samples.load(0).truth
    prompts = draw_first_prompts(
        truth, [0], Plan(PromptKind.BOX), WSI_SAM.mix, 256, np.random.default_rng(0)
    )
    features = samples.features(samples.load(0), run.trainable, torch.device("cpu"))

    loss = run.trainable(features, prompts, make_targets(truth, [0], 2, torch.device("cpu")))
    loss.total.backward()
    iou = run.trainable.predict(features, prompts).iou[0]

    assert iou.isfinite().tolist() == [answering == "hr", answering == "lr"]
    resolution = run.trainable.get_submodule(f"decoder.{answering}")
    taught = [p.grad is not None and bool(p.grad.any()) for p in resolution.parameters()]
    assert all(taught)


class Poisoned:
    """Views whose features are no numbers from some step on."""

    def __init__(self, samples: CachedSamples, good: int) -> None:
        self._samples = samples
        self._good = good

    def __len__(self) -> int:
        return len(self._samples)

    def load(self, index: int) -> LoadedSample:
        return self._samples.load(index)

    def features(
        self, loaded: LoadedSample, trainable: TrainableDecoder, device: torch.device
    ) -> SampleFeatures:
        features = self._samples.features(loaded, trainable, device)
        self._good -= 1
        if self._good >= 0:
            return features
        return SampleFeatures(*(tuple(t * math.nan for t in part) for part in features))


def test_a_loss_that_is_not_a_number_stops_with_the_last_good_state_kept(
    samples: CachedSamples, lite_state: State, tmp_path: Path
) -> None:
    run = make_run(tmp_path, TUNED_SAM, samples, lite_state)
    run.samples = Poisoned(samples, good=2)

    with pytest.raises(DeviceError, match=r"The loss is not a number at step 3\. .*checkpoint\.pt"):
        run.train(nothing)

    kept = read_checkpoint(run.checkpoint_path, "tiny")
    assert kept is not None
    assert kept.step == 2
    assert all(torch.isfinite(tensor).all() for tensor in kept.learning.values())
    assert_same(dict(run.trainable.list_learning()), kept.learning)


@pytest.mark.walk
def test_training_stops_where_validation_gets_no_better(
    samples: CachedSamples, lite_state: State, tmp_path: Path
) -> None:
    rates = dict.fromkeys(("decoder_rate", "prompt_rate", "wsi_rate"), 1e-30)
    settings = TUNED_SAM.model_copy(update={"steps": 9, "patience": 2, **rates})

    trained = make_run(tmp_path, settings, samples, lite_state, validate_every=1).train(nothing)

    assert [row["step"] for row in trained.history] == [1.0, 2.0, 3.0]
    assert trained.best_step == 1


@pytest.mark.walk
@pytest.mark.parametrize("settings", [TUNED_SAM, WSI_SAM], ids=["sam", "wsi-sam"])
def test_the_loss_goes_down(
    settings: DecoderSettings, samples: CachedSamples, lite_state: State, tmp_path: Path
) -> None:
    longer = settings.model_copy(update={"steps": 10, "decoder_rate": 1e-3})
    run = make_run(tmp_path, longer, samples, lite_state, validate_every=10)

    _, losses = losses_of(run)

    assert len(losses) == 10
    assert np.mean(losses[-3:]) < 0.9 * np.mean(losses[:3])


def test_the_rate_warms_up_and_then_falls_along_a_cosine() -> None:
    settings = DecoderSettings(steps=1000, warm_up_steps=100)

    factors = [schedule(step, settings) for step in range(1000)]

    assert factors[0] == pytest.approx(0.01, rel=1e-3)
    assert max(factors) == factors[99]
    assert factors[500] == pytest.approx(0.01 + 0.99 / 2)
    assert factors[-1] == pytest.approx(0.01, rel=0.01)


def test_every_cycle_of_the_rate_is_like_the_first() -> None:
    once = DecoderSettings(steps=50, warm_up_steps=10)
    twice = DecoderSettings(steps=100, warm_up_steps=10, cycles=2)

    first, second = ([schedule(step, s) for step in range(s.steps)] for s in (once, twice))

    assert second == [*first, *first]


def test_each_part_learns_at_its_own_rate(lite_state: State) -> None:
    settings = WSI_SAM.model_copy(
        update={"scope": "decoder", "wsi_rate": 0.1, "decoder_rate": 0.2, "prompt_rate": 0.3}
    )
    trainable = TrainableDecoder(PLAIN_BASE, lite_state, settings)

    rates: dict[int, Any] = {
        id(parameter): group["lr"] for group in trainable.rates() for parameter in group["params"]
    }

    named = {name: rates[id(parameter)] for name, parameter in trainable.list_learning().items()}
    assert named["decoder.hr.token.weight"] == 0.1
    assert named["decoder.sam.mask_decoder.mask_tokens.weight"] == 0.2
    assert named["decoder.sam.prompt_encoder.no_mask_embed.weight"] == 0.3
    assert len(rates) == len(named)


def test_what_is_made_ahead_comes_in_order_and_its_error_where_it_happened() -> None:
    def make(key: int) -> int:
        if key == 3:
            raise ValueError(key)
        return 10 * key

    found = []
    with pytest.raises(ValueError, match="3"):
        for made, waited in prefetch(make, range(9)):
            found.append(made)
            assert waited >= 0

    assert found == [0, 10, 20]
