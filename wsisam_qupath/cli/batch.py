"""The ``batch`` command."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from ..options import MIN_SCORE
from .options import (
    SOME_FAILED,
    images_option,
    model_options,
    outline_options,
    remap_option,
    stated_mpp_option,
    take_model,
    take_outline,
)

_ADVICE = {
    "remap": "Where slides were moved, add --remap OLD=NEW.",
    "mpp": "For slides that state no pixel size, add --mpp, for example --mpp 0.25 for 40x scans.",
}
"""What to add to the command, by the option that helps with a failed image."""


class _Batch(click.Command):
    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read --redo without a value as --redo=all, whatever follows it."""
        words = ("all", "outdated")
        following = [*args[1:], ""]
        args = [
            "--redo=all" if one == "--redo" and after not in words else one
            for one, after in zip(args, following, strict=True)
        ]
        return super().parse_args(ctx, args)


@click.command(cls=_Batch)
@click.argument("project", type=click.Path(path_type=Path))
@images_option
@click.option(
    "--prompts",
    multiple=True,
    metavar="CLASS",
    help="Use all annotations of this class as prompts, including rough outlines; may be given "
    "several times.  [default: rectangles and points of any class]",
)
@click.option(
    "--only",
    type=click.Choice(["rectangles", "points", "outlines"]),
    help="Use only prompts of this kind.",
)
@click.option(
    "--class",
    "class_name",
    metavar="NAME",
    help="QuPath class of all results.  [default: the class of each prompt]",
)
@click.option(
    "--find",
    metavar="CLASS",
    help="Find more objects like the annotations of this class, which are the examples in each "
    "image, instead of outlining prompts.",
)
@click.option(
    "--min-score",
    type=click.FloatRange(0, 1),
    default=MIN_SCORE,
    help="Lowest predicted IoU of an object that --find finds.",
)
@click.option("--keep", is_flag=True, help="Keep earlier results beside the new ones.")
@click.option(
    "--redo",
    type=click.Choice(["all", "outdated"]),
    is_flag=False,
    flag_value="all",
    help="Outline prompts again that already have a result: all of them, or those with a result of "
    "an older version of this program or of another precision, which answered otherwise.  "
    "[default without a value: all]",
)
@click.option(
    "--dry-run",
    is_flag=True,
    help="Print what would be done, with an estimate of the time; change nothing.",
)
@click.option(
    "--limit", type=click.IntRange(min=1), metavar="N", help="Stop after this many prompts."
)
@stated_mpp_option
@remap_option
@click.option(
    "--report",
    type=click.Path(path_type=Path),
    help="Write a report with one row per prompt: .html with pictures, .csv or .json.",
)
@click.option(
    "--export",
    type=click.Path(path_type=Path, file_okay=False),
    help="Also write the outlines to this folder, one GeoJSON file per image.",
)
@click.option(
    "--no-write",
    "write",
    flag_value=False,
    default=True,
    show_default=False,
    help="Do not change the project; only export or report.",
)
@click.option(
    "--workers",
    type=click.IntRange(min=0),
    default=0,
    show_default="no extra process",
    metavar="N",
    help="Number of worker processes, one per GPU if there are GPUs.",
)
@click.option(
    "--dask",
    metavar="ADDRESS",
    help="Compute on a dask cluster; ADDRESS is that of its scheduler, e.g. tcp://node1:8786.",
)
@click.option(
    "--to-table",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="CSV",
    help="Change nothing, and write the prompts that need a result for `segment --table`, which "
    "needs no QuPath: this CSV file, and a folder of GeoJSON files beside it.",
)
@click.option(
    "--from",
    "from_folder",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="FOLDER",
    help="Outline nothing, but write into the project what `segment --table` left in this folder, "
    "with the same model and options.",
)
@outline_options
@model_options
def batch(**given: Any) -> None:
    """Outline all prompts of a QuPath PROJECT and write the outlines into it.

    Rectangle and point annotations are the prompts. Close the project in QuPath first. Each image
    is backed up, then saved completely or not at all. A run that was interrupted continues where
    it stopped when the command is given again.

    Exit codes: 0 done, 2 nothing was started, 3 some images failed, 130 interrupted.
    """
    from ..project.batch.command import run_batch
    from ..project.batch.request import BatchRequest
    from ..report.display import outdated_notice

    keep_rows = given["report"] is not None
    request = BatchRequest(
        model=take_model(given), options=take_outline(given), keep_rows=keep_rows, **given
    )
    outcome = run_batch(request)
    if notice := outdated_notice(outcome.images):
        click.echo(f"{notice} To renew them, add --redo outdated.", err=True)
    for option, advice in _ADVICE.items():
        if any(one.helped_by == option for one in outcome.images):
            click.echo(advice, err=True)
    sys.exit(0 if outcome.is_complete else SOME_FAILED)
