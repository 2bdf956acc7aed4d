"""TensorBoard logs of a training run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

from torch.utils.tensorboard import SummaryWriter


class TrainingLog:
    """The curves of one decoder, which ``tensorboard --logdir`` shows.

    Args:
        folder: folder of the event files.
        is_on: whether this process logs: only one of several does.
    """

    def __init__(self, folder: Path, *, is_on: bool = True) -> None:
        self._writer = SummaryWriter(str(folder)) if is_on else None

    def add(self, step: int, row: Mapping[str, float]) -> None:
        """Add the numbers of one step, or of one validation."""
        if self._writer is None:
            return
        group = "validation" if "dice" in row else "training"
        for name, value in row.items():
            self._writer.add_scalar(f"{group}/{name}", value, step)

    def __enter__(self) -> TrainingLog:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._writer is not None:
            self._writer.close()
