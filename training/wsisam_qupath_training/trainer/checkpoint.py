"""Checkpoints of a training run: written atomically, and enough to continue exactly."""

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
"""Errors of reading a file that is no checkpoint, or one of another version."""


@dataclass(frozen=True)
class Checkpoint:
    """The whole state of a training run.

    Attributes:
        step: number of steps that were done.
        made_for: JSON of everything that the run depends on; another run cannot continue from here.
        learning, mean: the parameters that learn, and their running means.
        optimizer: state of the optimizer.
        best: running means at the best validation so far, with its step and Dice.
        history: rows of the log so far.
        finished: whether the run is over.
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
    """Replace the last checkpoint, atomically.

    Raises:
        OutputError: it cannot be written.
    """
    buffer = io.BytesIO()
    torch.save({**CHECKPOINT.stated, **vars(checkpoint)}, buffer)
    write_atomically(path, buffer.getvalue())


def read_checkpoint(path: Path, made_for: str) -> Checkpoint | None:
    """Read the last checkpoint of a run; None if it has not begun.

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
