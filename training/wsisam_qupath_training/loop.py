"""The training loop of one decoder: draw, answer, click, learn; validate, keep the best, resume."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import distributed
from torch.nn.parallel import DistributedDataParallel

from wsisam_qupath.errors import DeviceError

from .ahead import ahead
from .checkpoint import Checkpoint, read_checkpoint, write_checkpoint
from .draws import (
    Plan,
    PromptBatch,
    chosen_answers,
    clicked_again,
    draw_objects,
    draw_plan,
    first_prompts,
)
from .learner import Images, Learner, Loss, Wanted, decoder_tensors, encoder_tensors
from .settings import DecoderSettings
from .validation import validate, wanted_of
from .views import SeenTruth


class Views(Protocol):
    """Where views come from: the cache of a frozen encoder, or pixels for one that learns."""

    def __len__(self) -> int: ...

    def load(self, index: int) -> Loaded:
        """Read one view from the disk; called from a thread of its own."""

    def images(self, loaded: Loaded, learner: Learner, device: torch.device) -> Images:
        """Its features, on the device."""


@dataclass(frozen=True)
class Loaded:
    """One view, read: what is needed to make its features, and the objects in it."""

    content: Any
    truth: SeenTruth


@dataclass(frozen=True)
class Place:
    """Where a run computes, and which of several processes this is."""

    device: torch.device
    rank: int = 0
    world: int = 1

    def autocast(self) -> AbstractContextManager[object]:
        """bf16 where the device computes in it; elsewhere it would be slower, not only worse."""
        if self.device.type == "mps" or (self.device.type == "cpu" and not _has_bf16()):
            return nullcontext()
        return torch.autocast(self.device.type, torch.bfloat16)


@dataclass
class Clock:
    """Seconds that the loop waited for data, and all seconds of its steps."""

    waiting: float = 0.0
    working: float = 0.0

    @property
    def waiting_share(self) -> float:
        """Of all time."""
        return self.waiting / max(self.waiting + self.working, 1e-9)


@dataclass(frozen=True)
class Lesson:
    """What one step is about, drawn from its number alone."""

    step: int
    loaded: Loaded
    plan: Plan
    objects: NDArray[np.intp]
    prompts: PromptBatch
    windows_seed: int | None


@dataclass(frozen=True)
class Trained:
    """The end of a run, at its best validation.

    Attributes:
        state: running means by the learner's parameter names.
        decoder, encoder: what an adapter keeps of both; see :func:`.decoder_tensors`.
        best_step, best_dice: when that was.
        history: a row a validation.
        clock: what the loop waited for.
    """

    state: Mapping[str, torch.Tensor]
    decoder: Mapping[str, NDArray[np.float16]]
    encoder: Mapping[str, NDArray[np.float16]]
    best_step: int
    best_dice: float
    history: tuple[Mapping[str, float], ...]
    clock: Clock


OnStep = Callable[[int, Mapping[str, float]], None]


@dataclass
class Run:
    """One decoder's training.

    Attributes:
        learner, views, val_views: what learns from what.
        size_px: of the base's input.
        seed: of all draws.
        folder: where the checkpoint is kept.
        made_for: all that the run depends on, JSON.
        validate_every: steps.
    """

    learner: Learner
    views: Views
    val_views: Views
    size_px: int
    seed: int
    folder: Path
    made_for: str
    validate_every: int
    place: Place
    clock: Clock = field(default_factory=Clock)

    @property
    def settings(self) -> DecoderSettings:
        return self.learner.settings

    @property
    def checkpoint_path(self) -> Path:
        """The last state of the run."""
        return self.folder / "checkpoint.pt"

    def train(self, on_step: OnStep) -> Trained:
        """Train from the last checkpoint on, or from the beginning.

        Raises:
            DeviceError: the loss is not a number; the last good state is kept.
            AdapterError: the checkpoint is of another run.
            OutputError: a checkpoint cannot be written.
        """
        self.learner.to(self.place.device)
        optimiser = torch.optim.AdamW(self.learner.rates(), weight_decay=self.settings.weight_decay)
        state = read_checkpoint(self.checkpoint_path, self.made_for) or self._beginning(optimiser)
        self._restore(state, optimiser)
        if not state.finished:
            state = self._continue(state, optimiser, on_step)
        return Trained(
            state.best,
            decoder_tensors(state.best),
            encoder_tensors(self.learner, state.best),
            state.best_step,
            state.best_dice,
            state.history,
            self.clock,
        )

    def _beginning(self, optimiser: torch.optim.Optimizer) -> Checkpoint:
        learning = _copied(self.learner.learning())
        return Checkpoint(
            step=0,
            made_for=self.made_for,
            learning=learning,
            mean=_copied(learning),
            optimiser=optimiser.state_dict(),
            best=_copied(learning),
            best_step=0,
            best_dice=-1.0,
            history=(),
        )

    def _restore(self, state: Checkpoint, optimiser: torch.optim.Optimizer) -> None:
        with torch.no_grad():
            for name, parameter in self.learner.learning().items():
                parameter.copy_(state.learning[name])
        optimiser.load_state_dict(state.optimiser)

    def _continue(
        self, state: Checkpoint, optimiser: torch.optim.Optimizer, on_step: OnStep
    ) -> Checkpoint:
        module = self._wrapped()
        mean = {name: tensor.to(self.place.device) for name, tensor in state.mean.items()}
        base_rates = [group["lr"] for group in self.learner.rates()]
        recent: list[Mapping[str, float]] = []
        for lesson in self._lessons(state.step):
            for group, rate in zip(optimiser.param_groups, base_rates, strict=True):
                group["lr"] = rate * schedule(lesson.step, self.settings)
            recent.append(self._step(module, optimiser, lesson))
            _average(mean, self.learner.learning(), self.settings.ema, lesson.step)
            on_step(lesson.step + 1, recent[-1])
            done = lesson.step + 1
            if done % self.validate_every == 0 or done == self.settings.steps:
                state = self._validated(state, done, mean, optimiser, recent)
                recent = []
                on_step(done, {**state.history[-1], "waiting_share": self.clock.waiting_share})
                if state.finished:
                    break
        return state

    def _lessons(self, first: int) -> Iterator[Lesson]:
        for lesson, waited in ahead(self._lesson, range(first, self.settings.steps)):
            self.clock.waiting += waited
            yield lesson

    def _lesson(self, step: int) -> Lesson:
        rng = np.random.default_rng((self.seed, step, self.place.rank))
        loaded = self.views.load(int(rng.integers(len(self.views))))
        plan = draw_plan(self.settings.mix, rng)
        objects = draw_objects(loaded.truth, plan, self.settings.objects_per_step, rng)
        prompts = first_prompts(
            loaded.truth, objects.tolist(), plan, self.settings.mix, self.size_px, rng
        )
        is_windowed = rng.random() < self.settings.windowed_share
        windows_seed = int(rng.integers(2**31)) if is_windowed else None
        return Lesson(step, loaded, plan, objects, prompts, windows_seed)

    def _step(
        self, module: torch.nn.Module, optimiser: torch.optim.Optimizer, lesson: Lesson
    ) -> dict[str, float]:
        start = time.perf_counter()
        with self.place.autocast():
            loss = self._loss(module, lesson)
        optimiser.zero_grad(set_to_none=True)
        loss.total.backward()  # type: ignore[no-untyped-call]
        parameters = [p for group in optimiser.param_groups for p in group["params"]]
        norm = torch.nn.utils.clip_grad_norm_(parameters, self.settings.clip_norm)
        if not math.isfinite(float(loss.total.detach()) + float(norm)):
            kept = "No state was kept yet"
            if self.checkpoint_path.is_file():
                kept = f"The last good state is in {self.checkpoint_path}"
            raise DeviceError(
                f"The loss is not a number at step {lesson.step + 1}. {kept}; train with lower "
                "learning rates."
            )
        optimiser.step()
        self.clock.working += time.perf_counter() - start
        return {"loss": float(loss.total.detach()), **loss.parts}

    def _loss(self, module: torch.nn.Module, lesson: Lesson) -> Loss:
        images = self.views.images(lesson.loaded, self.learner, self.place.device)
        prompts = self._clicked(lesson, images)
        answered: Loss = module(images, prompts, self._wanted(lesson), lesson.windows_seed)
        return answered

    def _clicked(self, lesson: Lesson, images: Images) -> PromptBatch:
        """The prompts after the plan's further clicks, each where the last answer was wrong."""
        prompts, truth = lesson.prompts, lesson.loaded.truth
        rng = np.random.default_rng((self.seed, lesson.step, self.place.rank, 1))
        for _ in range(lesson.plan.clicks):
            with torch.no_grad():
                answered = self.learner.answer(images, prompts)
            prompts = clicked_again(
                prompts,
                chosen_answers(*(part.float().cpu().numpy() for part in answered)),
                truth,
                lesson.objects.tolist(),
                lesson.plan,
                self.settings.mix,
                self.size_px,
                rng,
            )
        return prompts

    def _wanted(self, lesson: Lesson) -> Wanted:
        return wanted_of(lesson.loaded.truth, lesson.objects, self.learner.patches, self.place)

    def _validated(
        self,
        state: Checkpoint,
        step: int,
        mean: Mapping[str, torch.Tensor],
        optimiser: torch.optim.Optimizer,
        recent: list[Mapping[str, float]],
    ) -> Checkpoint:
        """Measure the running means, and write the checkpoint."""
        learning = self.learner.learning()
        current = _copied(learning)
        _put(learning, mean)
        measured = validate(
            self.learner, self.val_views, self.settings.mix, self.size_px, self.place
        )
        _put(learning, current)
        losses = {f"train_{k}": float(np.mean([r[k] for r in recent])) for k in recent[0]}
        measured = self._agreed(measured)
        row = {"step": float(step), **losses, **measured}
        is_better = measured["dice"] > state.best_dice
        best_step = step if is_better else state.best_step
        stale = (step - best_step) // self.validate_every
        new = replace(
            state,
            step=step,
            learning=current,
            mean=_copied(mean),
            optimiser=optimiser.state_dict(),
            best=_copied(mean) if is_better else state.best,
            best_step=best_step,
            best_dice=measured["dice"] if is_better else state.best_dice,
            history=(*state.history, row),
            finished=step >= self.settings.steps or stale >= self.settings.patience,
        )
        if self.place.rank == 0:
            write_checkpoint(self.checkpoint_path, new)
        return new

    def _agreed(self, measured: dict[str, float]) -> dict[str, float]:
        """The first process's numbers: all must stop at the same step."""
        if self.place.world == 1:
            return measured
        shared = [measured]
        distributed.broadcast_object_list(shared)
        return shared[0]

    def _wrapped(self) -> torch.nn.Module:
        if self.place.world == 1:
            return self.learner
        assert distributed.is_initialized()
        return DistributedDataParallel(self.learner, find_unused_parameters=True)


def _has_bf16() -> bool:
    """Whether this CPU multiplies matrices in bf16."""
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def schedule(step: int, settings: DecoderSettings) -> float:
    """Factor of the learning rates: a linear warm-up, then half a cosine down to a hundredth.

    Every cycle begins anew.
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


def _copied(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().cpu().clone() for name, tensor in tensors.items()}


def _put(parameters: Mapping[str, torch.Tensor], values: Mapping[str, torch.Tensor]) -> None:
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(values[name])
