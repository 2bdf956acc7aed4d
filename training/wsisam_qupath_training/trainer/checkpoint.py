"""The state of a training run on the disk: whole or not at all, and enough to go on exactly."""

from __future__ import annotations

import io
import pickle
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch

from wsisam_qupath.errors import AdapterError
from wsisam_qupath.files import write_atomically
from wsisam_qupath.files.formats import CHECKPOINT

_DAMAGED = (RuntimeError, EOFError, OSError, ValueError, TypeError, AttributeError, KeyError)
"""What reading a file raises that is no checkpoint, or that of another version."""


@dataclass(frozen=True)
class Checkpoint:
    """All that changes from step to step.

    Attributes:
        step: how many were done.
        made_for: what the run depends on, JSON; another one cannot go on from here.
        learning, mean: the parameters that learn, and their running means.
        optimizer: its state.
        best: running means at the best validation so far, and its step and Dice.
        history: rows of the log so far.
        finished: whether nothing is left to do.
    """

    step: int
    made_for: str
    learning: dict[str, torch.Tensor]
    mean: dict[str, torch.Tensor]
    optimizer: dict[str, Any]
    best: dict[str, torch.Tensor]
    best_step: int
    best_dice: float
    history: tuple[dict[str, float], ...]
    finished: bool = False


def write_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Over the last one, atomically.

    Raises:
        OutputError: it cannot be written.
    """
    buffer = io.BytesIO()
    torch.save({**CHECKPOINT.stated, **vars(checkpoint)}, buffer)
    write_atomically(path, buffer.getvalue())


def read_checkpoint(path: Path, made_for: str) -> Checkpoint | None:
    """The last state of a run, or None if it has not begun.

    Raises:
        AdapterError: the file is damaged, or is of a run with other settings.
        FormatError: a newer version wrote it.
    """
    if not path.is_file():
        return None
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        CHECKPOINT.check(path, state)
        found = Checkpoint(**{one.name: state[one.name] for one in fields(Checkpoint)})
    except (*_DAMAGED, pickle.UnpicklingError) as exc:
        raise AdapterError(
            f"{path} is no sound checkpoint of a training run by this version. Delete it to start "
            "over."
        ) from exc
    if found.made_for != made_for:
        raise AdapterError(
            f"{path} is of a run with other settings or data. Delete its folder to start over, or "
            "choose another folder for the run."
        )
    return found


def is_finished(path: Path, made_for: str) -> bool:
    """Whether a run is over.

    Raises:
        AdapterError: see :func:`read_checkpoint`.
    """
    found = read_checkpoint(path, made_for)
    return found is not None and found.finished
