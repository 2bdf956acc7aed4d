"""Options of ``restore``. Heavy imports stand inside of it, so that ``--help`` is quick."""

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
    help="Images by name, pattern or QuPath's id; may be given again.  [default: all]",
)
def restore(project: Path, images: tuple[str, ...]) -> None:
    """Give the images of a QuPath PROJECT their newest backup; again, to take that back.

    Exit codes: 0 done, 2 nothing could start, 3 some images failed.
    """
    from ..project.restore import run_restore

    sys.exit(0 if run_restore(project, images) else SOME_FAILED)
