"""The ``restore`` command."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from .options import SOME_FAILED


@click.command()
@click.argument("project", type=click.Path(path_type=Path))
@click.option(
    "--images",
    multiple=True,
    metavar="GLOB|ID",
    help="Only images with this name (* and ? match any text) or QuPath id; may be given several "
    "times.  [default: all]",
)
def restore(project: Path, images: tuple[str, ...]) -> None:
    """Restore the images of a QuPath PROJECT to their state before the last batch.

    Give the command again to undo the restoration.

    Exit codes: 0 done, 2 nothing was started, 3 some images failed.
    """
    from ..project.restore import run_restore

    sys.exit(0 if run_restore(project, images) else SOME_FAILED)
