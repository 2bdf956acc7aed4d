"""Options of ``segment``. Heavy imports stand inside of it, so that ``--help`` is quick."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from .options import Numbers, model_options, outline_options


@click.command()
@click.argument("slide")
@click.argument("prompts", required=False, type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, allow_dash=True),
    help="GeoJSON to write; stdout without it.",
)
@click.option("--box", "boxes", multiple=True, type=Numbers("x0,y0,x1,y1"), help="A rectangle.")
@click.option("--point", "points", multiple=True, type=Numbers("x,y"), help="A point inside.")
@click.option(
    "--negative", "negatives", multiple=True, type=Numbers("x,y"), help="A point outside."
)
@click.option("--mpp", type=float, help="µm per pixel, for files that state none or a wrong one.")
@outline_options
@click.option("--overlay", type=click.Path(path_type=Path), help="PNG with prompts and outlines.")
@model_options
def segment(**given: Any) -> None:
    """Outline the prompts of a GeoJSON file, or of --box, --point and --negative, on SLIDE.

    Coordinates are level-0 pixels, as QuPath exports them.
    """
    from .segment_run import SegmentRequest, run_segment

    run_segment(SegmentRequest(**given))
