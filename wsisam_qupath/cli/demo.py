"""The ``demo`` command."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from .options import model_options, take_model


@click.command()
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default="demo-output",
    help="Folder for the example slide, prompts, outlines and picture.",
)
@model_options
def demo(out: Path, **model: Any) -> None:
    """Outline objects on an example slide, and show what the program writes.

    Writes the slide, prompts and outlines as GeoJSON, and a picture. If QuPath is installed, also
    a QuPath project with the outlines and a report.
    """
    from .demo_run import run_demo

    run_demo(out, take_model(model))
