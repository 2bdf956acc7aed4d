"""The ``weights`` command: download the weights of a base."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from ..model.bases import find_base
from ..model.weights import locate_weights


def run_weights(name: str) -> Path:
    """Download what is missing, with a progress bar on a terminal; returns where it is.

    Raises:
        WsiSamError: an unknown base, no network, a wrong checksum.
    """
    base = find_base(name)
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn())
    with Progress(
        *columns, TransferSpeedColumn(), console=console, disable=not console.is_terminal
    ) as progress:
        task = progress.add_task(name, total=None)

        def show(done_bytes: int, total_bytes: int | None) -> None:
            progress.update(task, completed=done_bytes, total=total_bytes)

        return locate_weights(base, download=True, progress=show).path
