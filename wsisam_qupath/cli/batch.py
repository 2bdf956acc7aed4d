"""Options of ``batch``. Heavy imports stand inside of it, so that ``--help`` is quick."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from .options import SOME_FAILED, model_options, outline_options, remap_option


@click.command()
@click.argument("project", type=click.Path(path_type=Path))
@click.option(
    "--images",
    multiple=True,
    metavar="GLOB|ID",
    help="Images by name, pattern or QuPath's id; may be given again.  [default: all]",
)
@click.option(
    "--prompts",
    multiple=True,
    metavar="CLASS",
    help="Annotations of this class are the prompts, rough outlines too; may be given again.  "
    "[default: rectangles and points of any class]",
)
@click.option(
    "--only",
    type=click.Choice(["rectangles", "points", "outlines"]),
    help="One kind of prompt.",
)
@click.option("--class", "class_name", metavar="NAME", help="Class of all results.")
@click.option("--keep", is_flag=True, help="Leave earlier results beside the new ones.")
@click.option("--redo", is_flag=True, help="Answer again what was answered before.")
@click.option("--dry-run", is_flag=True, help="Print what would be done, and change nothing.")
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Stop after N prompts.")
@click.option("--mpp", type=float, help="µm per pixel of slides that state none.")
@remap_option
@click.option(
    "--report",
    type=click.Path(path_type=Path),
    help="A row a prompt: .html with pictures, .csv or .json.",
)
@click.option(
    "--export",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder for the outlines as GeoJSON, a file an image.",
)
@click.option(
    "--no-write", "write", flag_value=False, default=True, help="Leave the project as it is."
)
@click.option(
    "--workers",
    type=click.IntRange(min=0),
    default=0,
    metavar="N",
    help="Processes that share the work, or one a GPU.  [default: this one alone]",
)
@click.option("--dask", metavar="ADDRESS", help="Scheduler of a dask cluster that does the work.")
@outline_options
@model_options
def batch(**given: Any) -> None:
    """Outline the prompts of a QuPath PROJECT, and write the outlines into it.

    Rectangles and points are prompts. Each image is written whole or not at all, after a copy of
    what was there; a run that was stopped goes on where it was. Close the project in QuPath first.

    Exit codes: 0 done, 2 nothing could start, 3 some images failed, 130 interrupted.
    """
    from ..project.batch.command import run_batch
    from ..project.batch.request import BatchRequest

    sys.exit(0 if run_batch(BatchRequest(**given)) else SOME_FAILED)
