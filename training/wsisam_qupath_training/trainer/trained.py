"""The result of a training: the best weights, mixed with the start's, and the mean of folds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

import numpy as np
import torch
from numpy.typing import NDArray

from .checkpoint import Checkpoint
from .trainable_decoder import TrainableDecoder, decoder_tensors, encoder_tensors


@dataclass
class Clock:
    """Seconds that the loop waited for data, and all seconds of its steps."""

    waiting: float = 0.0
    working: float = 0.0

    @property
    def waiting_share(self) -> float:
        """Share of all time that the loop waited for data."""
        return self.waiting / max(self.waiting + self.working, 1e-9)


@dataclass(frozen=True)
class TrainedDecoder:
    """The result of a run, at its best validation.

    Attributes:
        state: running means of the weights, by the learner's parameter names.
        decoder, encoder: tensors that an adapter keeps of both; see :func:`.decoder_tensors`.
        best_step, best_dice: step and Dice of the best validation.
        start_share: share of the starting weights in the result; see :class:`.DecoderSettings`.
        history: one row per validation.
        clock: how long the loop waited for data.
        folds: decoders of the folds of a cross-validation, of which this is the mean.
    """

    state: Mapping[str, torch.Tensor]
    decoder: Mapping[str, NDArray[np.float16]]
    encoder: Mapping[str, NDArray[np.float16]]
    best_step: int
    best_dice: float
    history: tuple[Mapping[str, float], ...]
    clock: Clock
    start_share: float
    folds: tuple[TrainedDecoder, ...] = ()


@dataclass(frozen=True)
class FinishedRun:
    """A trained decoder, and the weights that it started from.

    Attributes:
        start: starting values of the parameters that learn.
        end: the last checkpoint.
        share_dices: validation Dice by the share of the start; empty until it is measured, and
            where there is no choice.
    """

    trainable: TrainableDecoder
    start: Mapping[str, torch.Tensor]
    end: Checkpoint
    share_dices: Mapping[float, float]
    clock: Clock

    def mix(self, start_share: float) -> TrainedDecoder:
        """Mix the best weights with a share of the starting ones."""
        weights = mix_weights(self.start, self.end.best, start_share)
        return TrainedDecoder(
            weights,
            decoder_tensors(weights),
            encoder_tensors(self.trainable, weights),
            self.end.best_step,
            self.end.best_dice,
            self.end.history,
            self.clock,
            start_share,
        )


def choose_start_share(runs: Sequence[FinishedRun], shares: Sequence[float]) -> float:
    """Choose the share of the start with the best mean Dice; the last one if none was measured."""
    if not all(run.share_dices for run in runs):
        return shares[-1]
    return max(shares, key=lambda share: fmean(run.share_dices[share] for run in runs))


def average_folds(folds: Sequence[TrainedDecoder]) -> TrainedDecoder:
    """Average decoders that started from the same weights (Wortsman et al. 2022).

    Its history is the mean of theirs, and its best Dice the mean of their best ones, each on what
    it was not trained on.
    """
    weights = {
        name: torch.stack([fold.state[name] for fold in folds]).mean(dim=0)
        for name in folds[0].state
    }
    history = _average_histories([fold.history for fold in folds])
    best = max(history, key=lambda row: row["dice"])
    return replace(
        folds[0],
        state=weights,
        decoder=decoder_tensors(weights),
        best_step=int(best["step"]),
        best_dice=fmean(fold.best_dice for fold in folds),
        history=history,
        clock=Clock(
            sum(fold.clock.waiting for fold in folds), sum(fold.clock.working for fold in folds)
        ),
        folds=tuple(folds),
    )


def _average_histories(
    histories: Sequence[Sequence[Mapping[str, float]]],
) -> tuple[Mapping[str, float], ...]:
    """Average the rows of steps that all histories have."""
    by_step = [{row["step"]: row for row in history} for history in histories]
    steps = sorted(set.intersection(*(set(rows) for rows in by_step)))
    found = []
    for step in steps:
        rows = [one[step] for one in by_step]
        names = [name for name in rows[0] if all(name in row for row in rows)]
        found.append({name: fmean(row[name] for row in rows) for name in names})
    return tuple(found)


def copy_tensors(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Copy tensors to the CPU."""
    return {name: tensor.detach().cpu().clone() for name, tensor in tensors.items()}


def mix_weights(
    start: Mapping[str, torch.Tensor], trained: Mapping[str, torch.Tensor], start_share: float
) -> dict[str, torch.Tensor]:
    """Mix trained weights with a share of those that training started from."""
    return {name: tensor.lerp(start[name], start_share) for name, tensor in trained.items()}


def put_weights(parameters: Mapping[str, torch.Tensor], values: Mapping[str, torch.Tensor]) -> None:
    """Set parameters to these values."""
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(values[name])
