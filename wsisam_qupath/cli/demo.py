"""Options of ``demo``. Heavy imports stand inside of it, so that ``--help`` is quick."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from .options import model_options


@click.command()
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default="demo-output",
    show_default=True,
    help="Folder for the slide, the prompts, the result and the picture.",
)
@model_options
def demo(out: Path, **model: Any) -> None:
    """Run the main job on real tissue: GeoJSON prompts in, GeoJSON outlines and a picture out."""
    from .demo_run import run_demo

    run_demo(out, **model)
