"""The ``find`` command."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ..options import MIN_SCORE
from .options import model_options, mpp_option, result_options, take_model, take_outline


@click.command()
@click.argument("slide")
@click.argument("examples", required=False, type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(path_type=Path),
    help="GeoJSON file to write.",
)
@click.option(
    "--within",
    type=click.Path(path_type=Path),
    help="GeoJSON file with areas: find only objects in them.  [default: the whole slide]",
)
@click.option(
    "--negatives",
    type=click.Path(path_type=Path),
    help="GeoJSON file with objects that are not wanted, such as earlier wrong finds: neither "
    "they are found again, nor what looks more like them than like the EXAMPLES.",
)
@click.option(
    "--everything",
    is_flag=True,
    help="Find all objects of about the size --object-size, without examples.",
)
@click.option(
    "--min-score",
    type=click.FloatRange(0, 1),
    default=MIN_SCORE,
    help="Lowest predicted IoU of a found object; lower finds more, and more wrong ones.",
)
@click.option(
    "--most",
    type=click.IntRange(min=1),
    metavar="N",
    help="Keep only the N objects with the highest predicted IoU.",
)
@mpp_option
@result_options
@click.option(
    "--class",
    "class_name",
    metavar="NAME",
    help="QuPath class of the found objects.  [default: that of the first example]",
)
@click.option(
    "--overlay",
    type=click.Path(path_type=Path),
    help="Write a picture (PNG) of the tissue with examples and found objects.",
)
@click.option(
    "--resume/--no-resume",
    default=True,
    help="Continue a stopped run with the same slide, examples, model and options.",
)
@model_options
def find(**given: Any) -> None:
    """Find all objects on a SLIDE that look like some EXAMPLES, and write them as GeoJSON.

    EXAMPLES is a GeoJSON file that QuPath exported, with one to ten objects: outlines, or
    rectangles or points, which are outlined first. Objects of a class that ends in '*' are not
    wanted, as with --negatives. The examples themselves are not written.

    Until all is done, what was found is kept in OUTPUT.part: after a stop of any kind, the same
    command goes on where it was.
    """
    from .find_run import FindRequest, run_find

    model, options = take_model(given), take_outline(given)
    run_find(FindRequest(model=model, options=options, **given))
