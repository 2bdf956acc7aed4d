"""The ``segment`` command."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ..options import MOST_CANDIDATES, OutlineOptions
from .options import Numbers, model_options, outline_options, take_model, take_outline


@click.command()
@click.argument("slide")
@click.argument("prompts", required=False, type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, allow_dash=True),
    help="GeoJSON file to write.  [default: standard output]",
)
@click.option(
    "--box",
    "boxes",
    multiple=True,
    type=Numbers("x0,y0,x1,y1"),
    help="Outline the object in this rectangle; may be given several times.",
)
@click.option(
    "--point",
    "points",
    multiple=True,
    type=Numbers("x,y"),
    help="Outline the object at this point; may be given several times.",
)
@click.option(
    "--negative",
    "negatives",
    multiple=True,
    type=Numbers("x,y"),
    help="A point outside of the object; may be given several times.",
)
@click.option(
    "--all-objects",
    is_flag=True,
    help="Also take the cells, detections, tiles and TMA cores of PROMPTS as prompts.",
)
@click.option(
    "--mpp",
    type=float,
    help="Pixel size of the slide in µm, if the file states none or a wrong one.",
)
@outline_options
@click.option(
    "--candidates",
    type=click.IntRange(1, MOST_CANDIDATES),
    default=OutlineOptions.candidates,
    show_default=True,
    help="Largest number of outlines for points, which may mean a nucleus, a gland or a region; "
    "the measurement 'Rank' is 1 for the likeliest.",
)
@click.option(
    "--overlay",
    type=click.Path(path_type=Path),
    help="Write a picture (PNG) of the tissue with prompts and outlines.",
)
@click.option(
    "--resume/--no-resume",
    default=True,
    show_default=True,
    help="Go on with what a run with the same slide, prompts, model and options had done when it "
    "was stopped.",
)
@model_options
def segment(**given: Any) -> None:
    """Outline objects on a SLIDE and write them as GeoJSON for QuPath.

    The prompts are rectangles, points and rough outlines: from PROMPTS, a GeoJSON file that QuPath
    exported, or from --box, --point and --negative. Coordinates are pixels of the slide at full
    resolution (level 0), as in QuPath.

    Until all is done, results are kept in OUTPUT.part: after a stop of any kind, the same command
    goes on where it was.
    """
    from .segment_run import SegmentRequest, run_segment

    model, options = take_model(given), take_outline(given)
    run_segment(SegmentRequest(model=model, options=options, **given))
