"""What the cache folder holds, and how it is cleared."""

from __future__ import annotations

import shutil
from pathlib import Path

from rich.console import Console
from rich.filesize import decimal
from rich.table import Table

from ..errors import OutputError
from ..files import cache_folder, measure_folder_bytes
from ..report.progress import show_progress, stderr_console

_WEIGHTS = "weights"

_CONTENTS = {
    _WEIGHTS: "downloaded weights",
    "openvino": "models prepared for this machine",
    "embeddings": "encoded patches of slides",
    "images": "tiled copies of large images",
    "overviews": "coarse copies of slides without a pyramid",
    "training": "encoded views to train on",
    "evaluations": "what stopped evaluations measured",
}
"""Folders in the cache, and what they hold."""


def run_cache(*, clear: bool) -> None:
    """Print what the cache holds on stdout; first delete it if asked to.

    Raises:
        OutputError: something cannot be deleted.
    """
    folder = cache_folder()
    freed = 0
    with show_progress(stderr_console(), "Looking at the cache") as progress:
        for name in _CONTENTS if clear else ():
            if name != _WEIGHTS:
                progress.update(what=f"Deleting {_CONTENTS[name]}")
                freed += _clear(folder / name)
        progress.update(what="Measuring the cache")
        sizes = {name: measure_folder_bytes(folder / name) for name in _CONTENTS}
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name, justify in (("Folder", "left"), ("Holds", "left"), ("Size", "right")):
        table.add_column(name, justify=justify, overflow="fold")  # type: ignore[arg-type]
    for name, what in _CONTENTS.items():
        table.add_row(name, what, decimal(sizes[name]))
    console = Console(highlight=False, emoji=False)
    console.print(table)
    console.print(f"All in {folder}.", markup=False, soft_wrap=True)
    if clear:
        console.print(f"{decimal(freed)} were freed.")


def _clear(folder: Path) -> int:
    """Delete a folder; returns how many bytes it held."""
    if not folder.is_dir():
        return 0
    size = measure_folder_bytes(folder)
    try:
        shutil.rmtree(folder)
    except OSError as exc:
        raise OutputError(
            f"{exc.filename or folder} cannot be deleted ({exc.strerror}): end the programs that "
            "use it, and check your permissions there."
        ) from exc
    return size
