"""The ``weights`` command: download the weights of a base."""

from __future__ import annotations

from pathlib import Path

from ..model.bases import find_base
from ..model.weights import locate_weights
from ..report.progress import show_progress, stderr_console


def run_weights(name: str) -> Path:
    """Download missing weights, show how much has come, and return where they are.

    Raises:
        WsiSamError: an unknown base, no network, a wrong checksum.
    """
    base = find_base(name)
    with show_progress(stderr_console(), f"Downloading {name}", unit="B") as progress:

        def show(done_bytes: int, total_bytes: int | None) -> None:
            progress.update(done=done_bytes, total=total_bytes)

        return locate_weights(base, download=True, progress=show).path
