"""The ``create`` command."""

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
    help="Slides to add: a folder (without subfolders), a pattern such as `*.svs`, or a file; may "
    "be given several times.",
)
@click.option(
    "--annotations",
    type=click.Path(path_type=Path),
    metavar="DIR|FILE",
    help="Annotations to add: a folder of GeoJSON files with the names of the slides, or an MS "
    "COCO file such as CATCH.json, or SlideRunner's CATCH.sqlite.",
)
@click.option(
    "--image-type",
    default="brightfield-h-e",
    metavar="NAME",
    help="QuPath image type of the slides: brightfield-h-e, brightfield-h-dab, brightfield-other, "
    "fluorescence, other, or unset (QuPath asks when a slide is opened).",
)
@click.option(
    "--resume/--no-resume",
    default=True,
    help="Continue a stopped run with the same slides, annotations and image type.",
)
def create(**given: Any) -> None:
    """Create a QuPath PROJECT from slides and their annotations.

    Until it is complete it lies in a hidden folder beside PROJECT: after a stop of any kind, the
    same command goes on where it was.

    Exit codes: 0 done, 2 no project was created, 3 some slides or annotations are missing.
    """
    from ..project.create.command import CreateRequest, run_create

    created = run_create(CreateRequest(**given))
    sys.exit(0 if created.is_complete else SOME_FAILED)
