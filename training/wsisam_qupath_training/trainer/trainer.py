"""The training loop of one decoder: draw, answer, click, learn; validate, keep the best, resume."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import distributed
from torch.nn.parallel import DistributedDataParallel

from wsisam_qupath.errors import DeviceError

from ..sampling.prefetch import prefetch
from ..sampling.prompt_sampling import (
    Plan,
    PromptBatch,
    add_clicks,
    choose_masks,
    draw_first_prompts,
    draw_objects,
    draw_plan,
)
from ..settings import DecoderSettings
from .checkpoint import Checkpoint, read_checkpoint, write_checkpoint
from .distributed import DistributedContext
from .sample_sources import LoadedSample, SampleSource
from .targets import TargetMasks, make_targets
from .trainable_decoder import (
    Loss,
    SampleFeatures,
    TrainableDecoder,
)
from .trained import (
    Clock,
    FinishedRun,
    TrainedDecoder,
    choose_start_share,
    copy_tensors,
    mix_weights,
    put_weights,
)
from .validation import validate

_MEASURED_STEPS = 4
"""Number of steps that are timed, after the first one, which takes longer."""


@dataclass(frozen=True)
class TrainStep:
    """The plan of one step, drawn from its number alone."""

    step: int
    loaded: LoadedSample
    plan: Plan
    objects: NDArray[np.intp]
    prompts: PromptBatch
    windows_seed: int | None


OnStep = Callable[[int, Mapping[str, float]], None]


def _tell_nobody() -> None:
    """Nobody follows."""


@dataclass
class Run:
    """The training of one decoder.

    Attributes:
        trainable, samples, val_views: the decoder, the views to train on, and those to validate on.
        size_px: side of the base's input, px.
        seed: random seed of all draws.
        folder: folder of the checkpoint.
        made_for: JSON of everything that the run depends on.
        can_compare: whether the validation views are of other patients than the training views.
        validate_every: number of steps between two validations.
    """

    trainable: TrainableDecoder
    samples: SampleSource
    val_views: SampleSource
    size_px: int
    seed: int
    folder: Path
    made_for: str
    validate_every: int
    context: DistributedContext
    can_compare: bool = True
    clock: Clock = field(default_factory=Clock)

    @property
    def settings(self) -> DecoderSettings:
        return self.trainable.settings

    @property
    def checkpoint_path(self) -> Path:
        """Path of the last checkpoint."""
        return self.folder / "checkpoint.pt"

    def train(self, on_step: OnStep) -> TrainedDecoder:
        """Train, and mix the result with the starting weights; see :meth:`finish`."""
        run = self.measure_shares(self.finish(on_step))
        return run.mix(choose_start_share([run], self.settings.start_shares))

    def finish(self, on_step: OnStep) -> FinishedRun:
        """Train from the last checkpoint on, or from the beginning.

        Raises:
            DeviceError: the loss is not a number; the last good state is kept.
            AdapterError: the checkpoint is of another run.
            OutputError: a checkpoint cannot be written.
        """
        self.trainable.to(self.context.device)
        optimizer = torch.optim.AdamW(
            self.trainable.rates(), weight_decay=self.settings.weight_decay
        )
        start = copy_tensors(self.trainable.list_learning())
        state = read_checkpoint(self.checkpoint_path, self.made_for) or self._begin(optimizer)
        self._restore(state, optimizer)
        if not state.finished:
            state = self._continue(state, optimizer, on_step)
        return FinishedRun(self.trainable, start, state, {}, self.clock)

    def measure_shares(
        self, run: FinishedRun, on_measured: Callable[[], None] = _tell_nobody
    ) -> FinishedRun:
        """Measure the Dice of each share of the start on the validation views.

        Args:
            run: of this training.
            on_measured: called after each share.

        Returns:
            The same run with these Dice values; without them where there is no choice.
        """
        shares = self.settings.measured_shares
        if not shares or not self.can_compare:
            return run
        dices = {0.0: run.end.best_dice}  # the same weights on the same views
        learning = self.trainable.list_learning()
        for share in shares:
            put_weights(learning, mix_weights(run.start, run.end.best, share))
            measured = validate(
                self.trainable, self.val_views, self.settings.mix, self.size_px, self.context
            )
            dices[share] = self._agree(measured)["dice"]
            on_measured()
        return replace(run, share_dices=dices)

    def measure_seconds(self) -> tuple[float, float]:
        """Measure the seconds of a step and of the validation of a view; keep nothing learned."""
        self.trainable.to(self.context.device)
        optimizer = torch.optim.AdamW(self.trainable.rates())
        started = [time.perf_counter()]
        for step in range(1 + _MEASURED_STEPS):
            self._step(self.trainable, optimizer, self._draw_step(step))
            started.append(time.perf_counter())
        validate(self.trainable, self.val_views, self.settings.mix, self.size_px, self.context)
        validated = time.perf_counter() - started[-1]
        return (started[-1] - started[1]) / _MEASURED_STEPS, validated / len(self.val_views)

    def _begin(self, optimizer: torch.optim.Optimizer) -> Checkpoint:
        learning = copy_tensors(self.trainable.list_learning())
        return Checkpoint(
            step=0,
            made_for=self.made_for,
            learning=learning,
            mean=copy_tensors(learning),
            optimizer=optimizer.state_dict(),
            best=copy_tensors(learning),
            best_step=0,
            best_dice=-1.0,
            history=(),
        )

    def _restore(self, state: Checkpoint, optimizer: torch.optim.Optimizer) -> None:
        with torch.no_grad():
            for name, parameter in self.trainable.list_learning().items():
                parameter.copy_(state.learning[name])
        optimizer.load_state_dict(state.optimizer)

    def _continue(
        self, state: Checkpoint, optimizer: torch.optim.Optimizer, on_step: OnStep
    ) -> Checkpoint:
        module = self._wrap()
        mean = {name: tensor.to(self.context.device) for name, tensor in state.mean.items()}
        base_rates = [group["lr"] for group in self.trainable.rates()]
        recent: list[Mapping[str, float]] = []
        for train_step in self._draw_steps(state.step):
            for group, rate in zip(optimizer.param_groups, base_rates, strict=True):
                group["lr"] = rate * schedule(train_step.step, self.settings)
            recent.append(self._step(module, optimizer, train_step))
            _average(mean, self.trainable.list_learning(), self.settings.ema, train_step.step)
            on_step(train_step.step + 1, recent[-1])
            done = train_step.step + 1
            if done % self.validate_every == 0 or done == self.settings.steps:
                state = self._validate(state, done, mean, optimizer, recent)
                recent = []
                on_step(done, {**state.history[-1], "waiting_share": self.clock.waiting_share})
                if state.finished:
                    break
        return state

    def _draw_steps(self, first: int) -> Iterator[TrainStep]:
        for train_step, waited in prefetch(self._draw_step, range(first, self.settings.steps)):
            self.clock.waiting += waited
            yield train_step

    def _draw_step(self, step: int) -> TrainStep:
        rng = np.random.default_rng((self.seed, step, self.context.rank))
        loaded = self.samples.load(int(rng.integers(len(self.samples))))
        mix = self.settings.mix
        plan = draw_plan(mix, rng, loaded.least_points)
        objects = draw_objects(loaded.truth, plan, mix, self.settings.objects_per_step, rng)
        prompts = draw_first_prompts(loaded.truth, objects.tolist(), plan, mix, self.size_px, rng)
        is_windowed = rng.random() < self.settings.windowed_share
        windows_seed = int(rng.integers(2**31)) if is_windowed else None
        return TrainStep(step, loaded, plan, objects, prompts, windows_seed)

    def _step(
        self, module: torch.nn.Module, optimizer: torch.optim.Optimizer, train_step: TrainStep
    ) -> dict[str, float]:
        start = time.perf_counter()
        with self.context.autocast():
            loss = self._loss(module, train_step)
        optimizer.zero_grad(set_to_none=True)
        loss.total.backward()  # type: ignore[no-untyped-call]
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        norm = torch.nn.utils.clip_grad_norm_(parameters, self.settings.clip_norm)
        if not math.isfinite(float(loss.total.detach()) + float(norm)):
            kept = "No state was kept yet"
            if self.checkpoint_path.is_file():
                kept = f"The last good state is in {self.checkpoint_path}"
            raise DeviceError(
                f"The loss is not a number at step {train_step.step + 1}. {kept}; train with lower "
                "learning rates."
            )
        optimizer.step()
        self.clock.working += time.perf_counter() - start
        return {"loss": float(loss.total.detach()), **loss.parts}

    def _loss(self, module: torch.nn.Module, train_step: TrainStep) -> Loss:
        features = self.samples.features(train_step.loaded, self.trainable, self.context.device)
        prompts = self._add_clicks(train_step, features)
        loss: Loss = module(
            features, prompts, self._load_targets(train_step), train_step.windows_seed
        )
        return loss

    def _add_clicks(self, train_step: TrainStep, features: SampleFeatures) -> PromptBatch:
        """Add the plan's further clicks, each where the last answer was wrong."""
        prompts, truth = train_step.prompts, train_step.loaded.truth
        rng = np.random.default_rng((self.seed, train_step.step, self.context.rank, 1))
        for _ in range(train_step.plan.clicks):
            with torch.no_grad():
                predicted = self.trainable.predict(features, prompts)
            prompts = add_clicks(
                prompts,
                choose_masks(*(part.float().cpu().numpy() for part in predicted)),
                truth,
                train_step.objects.tolist(),
                train_step.plan,
                self.settings.mix,
                self.size_px,
                rng,
            )
        return prompts

    def _load_targets(self, train_step: TrainStep) -> TargetMasks:
        return make_targets(
            train_step.loaded.truth,
            train_step.objects,
            self.trainable.patch_count,
            self.context.device,
        )

    def _validate(
        self,
        state: Checkpoint,
        step: int,
        mean: Mapping[str, torch.Tensor],
        optimizer: torch.optim.Optimizer,
        recent: list[Mapping[str, float]],
    ) -> Checkpoint:
        """Validate the running means, and write the checkpoint."""
        learning = self.trainable.list_learning()
        current = copy_tensors(learning)
        put_weights(learning, mean)
        measured = validate(
            self.trainable, self.val_views, self.settings.mix, self.size_px, self.context
        )
        put_weights(learning, current)
        names = dict.fromkeys(name for row in recent for name in row)  # not all rows have all
        losses = {f"train_{n}": float(np.mean([r[n] for r in recent if n in r])) for n in names}
        measured = self._agree(measured)
        row = {"step": float(step), **losses, **measured}
        is_better = measured["dice"] > state.best_dice
        best_step = step if is_better else state.best_step
        stale = (step - best_step) // self.validate_every
        new = replace(
            state,
            step=step,
            learning=current,
            mean=copy_tensors(mean),
            optimizer=optimizer.state_dict(),
            best=copy_tensors(mean) if is_better else state.best,
            best_step=best_step,
            best_dice=measured["dice"] if is_better else state.best_dice,
            history=(*state.history, row),
            finished=step >= self.settings.steps or stale >= self.settings.patience,
        )
        if self.context.rank == 0:
            write_checkpoint(self.checkpoint_path, new)
        return new

    def _agree(self, measured: dict[str, float]) -> dict[str, float]:
        """Share the first process's numbers, since all must stop at the same step."""
        if self.context.world == 1:
            return measured
        shared = [measured]
        distributed.broadcast_object_list(shared)
        return shared[0]

    def _wrap(self) -> torch.nn.Module:
        if self.context.world == 1:
            return self.trainable
        assert distributed.is_initialized()
        return DistributedDataParallel(self.trainable, find_unused_parameters=True)


def schedule(step: int, settings: DecoderSettings) -> float:
    """Factor of the learning rates: a linear warm-up, then half a cosine down to a hundredth.

    Every cycle begins again.
    """
    length = settings.steps / settings.cycles
    done = step % length
    warm = min(1.0, (done + 1) / max(1, settings.warm_up_steps))
    return warm * (0.01 + 0.99 * (1 + math.cos(math.pi * done / length)) / 2)


def _average(
    mean: dict[str, torch.Tensor], learning: Mapping[str, torch.Tensor], decay: float, step: int
) -> None:
    # Shorter at the beginning, so that the first random weights are soon forgotten.
    share = min(decay, (1 + step) / (10 + step))
    with torch.no_grad():
        for name, tensor in learning.items():
            mean[name].lerp_(tensor.detach(), 1 - share)
