"""The command line's part that works on QuPath projects: ``batch | create | export | setup``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from .options import model_options, outline_options, remap_option

SOME_FAILED = 3
"""Exit code where some images failed and the others are done."""


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
    from .batch.command import run_batch  # noqa: PLC0415
    from .batch.request import BatchRequest  # noqa: PLC0415

    sys.exit(0 if run_batch(BatchRequest(**given)) else SOME_FAILED)


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
    from .create.command import CreateRequest, run_create  # noqa: PLC0415

    created = run_create(CreateRequest(**given))
    sys.exit(0 if created.is_complete else SOME_FAILED)


@click.command()
@click.argument("project", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@remap_option
@click.option("--mpp", type=float, help="µm per pixel of slides that state none.")
def export(**given: Any) -> None:
    """Write the annotations of a QuPath PROJECT to the folder OUT, to train from.

    Areas are objects; those of class Region* are completely annotated. Rectangles, points, other
    classes that end in * and detections are left out.

    Exit codes: 0 done, 2 nothing was written, 3 some images failed.
    """
    from .export.command import ExportRequest, run_export  # noqa: PLC0415

    exported = run_export(ExportRequest(**given))
    sys.exit(0 if exported.is_complete else SOME_FAILED)


@click.command()
@click.option(
    "--weights",
    multiple=True,
    metavar="BASE",
    help="Fetch the weights of this base; may be given again.",
)
@click.option("--install/--no-install", default=True, help="Download QuPath where there is none.")
@click.option(
    "--qupath-dir",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder to install QuPath in.",
)
@click.option(
    "--user-dir",
    type=click.Path(path_type=Path, file_okay=False),
    help="QuPath's user folder, in place of the one that its preferences name.",
)
@click.option(
    "--startup-script",
    is_flag=True,
    help="Have QuPath put Extensions > WSI-SAM into its menu whenever it starts.",
)
@click.option("--dry-run", is_flag=True, help="Say what would be done, and change nothing.")
def setup(**given: Any) -> None:
    """Find or install QuPath, and put the scripts into its menu."""
    from rich.console import Console  # noqa: PLC0415

    from .setup_command import SetupRequest, exit_code, print_steps, run_setup  # noqa: PLC0415

    steps = run_setup(SetupRequest(**given))
    print_steps(steps, Console(highlight=False))
    sys.exit(exit_code(steps))


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
    from .restore_command import run_restore  # noqa: PLC0415

    sys.exit(0 if run_restore(project, images) else SOME_FAILED)


COMMANDS = (batch, create, export, restore, setup)
