"""The ``segment`` command."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from ..errors import OptionError
from ..options import FORMAT_ENDINGS, MOST_CANDIDATES, OutlineOptions
from .options import (
    SOME_FAILED,
    all_objects_option,
    model_options,
    mpp_option,
    numbers,
    outline_options,
    take_model,
    take_outline,
)


def _parse_shard(text: str) -> object:
    """Parse one of several parts of a table: "2/10"."""
    from ..project.slide_table.rows import Shard  # not for `--help`

    number, _, count = text.partition("/")
    is_number = text.isascii() and number.isdigit() and count.isdigit()
    if not is_number or not 1 <= int(number) <= int(count):
        raise click.BadParameter(f"{text!r} is not of the form I/N, with I from 1 to N")
    return Shard(int(number), int(count))


@click.command()
@click.argument("slide", required=False)
@click.argument("prompts", required=False, type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, allow_dash=True),
    help="File to write; with --table, a folder.  [default: standard output]",
)
@click.option(
    "--format",
    type=click.Choice(tuple(FORMAT_ENDINGS)),
    help="Format of the outlines.  [default: as the name of OUTPUT ends, .geojson, .geojson.gz or "
    ".parquet; with --table, geojson]",
)
@click.option(
    "--labels",
    is_flag=True,
    help="Also write a mask (OME-TIFF), NAME.labels.ome.tif beside the outlines: each pixel has "
    "the number of the outline that it lies in, counted from 1 in the order of the file.",
)
@click.option(
    "--box",
    "boxes",
    multiple=True,
    type=numbers("x0,y0,x1,y1"),
    metavar="X0,Y0,X1,Y1",
    help="Outline the object in this rectangle; may be given several times.",
)
@click.option(
    "--point",
    "points",
    multiple=True,
    type=numbers("x,y"),
    metavar="X,Y",
    help="Outline the object at this point; may be given several times.",
)
@click.option(
    "--negative",
    "negatives",
    multiple=True,
    type=numbers("x,y"),
    metavar="X,Y",
    help="A point outside of the object; may be given several times.",
)
@all_objects_option
@mpp_option
@outline_options
@click.option(
    "--candidates",
    type=click.IntRange(1, MOST_CANDIDATES),
    default=OutlineOptions.candidates,
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
    help="Continue a stopped run with the same slide, prompts, model and options.",
)
@click.option(
    "--table",
    type=click.Path(path_type=Path),
    help="Outline the slides of this CSV file, in place of SLIDE and PROMPTS: a row per slide, "
    "with columns slide, prompts and, where needed, name, mpp and options.",
)
@click.option(
    "--shard",
    type=_parse_shard,
    metavar="I/N",
    help="Do only the Ith of N equal parts of the table, for one of N jobs.",
)
@click.option(
    "--workers",
    type=click.IntRange(min=0),
    default=0,
    show_default="no extra process",
    metavar="N",
    help="With --table: number of worker processes, one per GPU if there are GPUs.",
)
@click.option(
    "--dask",
    metavar="ADDRESS",
    help="With --table: compute on a dask cluster; ADDRESS is that of its scheduler, e.g. "
    "tcp://node1:8786.",
)
@click.option(
    "--summarize",
    is_flag=True,
    help="With --table: outline nothing, and write summary.csv of what the jobs have done.",
)
@model_options
def segment(**given: Any) -> None:
    """Outline objects on a SLIDE and write them as GeoJSON for QuPath, or as a table.

    The prompts are rectangles, points and rough outlines: from PROMPTS, a GeoJSON file that QuPath
    exported, compressed with gzip or not, or from --box, --point and --negative. Coordinates are
    pixels of the slide at full resolution (level 0), as in QuPath.

    Until all is done, results are kept in OUTPUT.part: after a stop of any kind, the same command
    goes on where it was.

    With --table, each slide of the table gets NAME.geojson and NAME.status.json in the folder
    OUTPUT. What is done is left out, so any job can be run again, and several may share a table.
    Another format or labels are added to slides that are done without outlining them again.

    Exit codes: 0 done, 2 nothing was started, 3 some slides failed, 130 interrupted.
    """
    from .segment_run import SegmentRequest, run_segment

    model, options = take_model(given), take_outline(given)
    table = given.pop("table")
    shared = {name: given.pop(name) for name in ("shard", "workers", "dask", "summarize")}
    if table is None:
        _check_one(given["slide"], shared)
        run_segment(SegmentRequest(model=model, options=options, **given))
        return
    from .table_run import TableRequest, run_table

    _check_many(given)
    folder = given.pop("output")
    model = model.on_any_machine  # jobs of one table may run on several
    one = SegmentRequest(model=model, options=options, **{**given, "slide": ""})
    is_complete = run_table(TableRequest(table, folder, **shared, one=one))
    sys.exit(0 if is_complete else SOME_FAILED)


def _check_one(slide: str | None, of_tables: Mapping[str, object]) -> None:
    """Check the options of a run on a single slide.

    Args:
        of_tables: values of the options that only make sense for tables, by name.

    Raises:
        OptionError: there is no slide, or an option is about tables.
    """
    if slide is None:
        raise OptionError("slide", "there is nothing to outline: name a slide, or a table.")
    for name, value in of_tables.items():
        if value:
            raise OptionError(name, "it is about the slides of a table: name the table, too.")


def _check_many(given: dict[str, Any]) -> None:
    """Check the options of a run on a table of slides.

    Raises:
        OptionError: there is no folder for the results, or an option is about one slide.
    """
    if given["output"] is None or str(given["output"]) == "-":
        raise OptionError("output", "name the folder for the results of the table.")
    for name in ("slide", "prompts", "boxes", "points", "negatives", "overlay"):
        if given[name]:
            raise OptionError(name, "it is about one slide: with a table, leave it out.")
