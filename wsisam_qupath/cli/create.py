"""Options of ``create``. Heavy imports stand inside of it, so that ``--help`` is quick."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from .options import SOME_FAILED


@click.command()
@click.argument("project", type=click.Path(path_type=Path))
@click.option(
    "--images",
    multiple=True,
    required=True,
    metavar="DIR|GLOB|FILE",
    help="Slides: a folder (not those below it), a pattern or a file; may be given again.",
)
@click.option(
    "--annotations",
    type=click.Path(path_type=Path),
    metavar="DIR|FILE",
    help="GeoJSON files named as the slides, or CATCH.json (MS COCO).",
)
@click.option(
    "--image-type",
    default="unset",
    show_default=True,
    metavar="NAME",
    help="unset (QuPath asks), brightfield-h-e, brightfield-h-dab, brightfield-other, fluorescence "
    "or other.",
)
def create(**given: Any) -> None:
    """Make a QuPath PROJECT of a folder of slides, with annotations.

    Exit codes: 0 done, 2 nothing was made, 3 some slides or annotations are missing.
    """
    from ..project.create.command import CreateRequest, run_create

    created = run_create(CreateRequest(**given))
    sys.exit(0 if created.is_complete else SOME_FAILED)
