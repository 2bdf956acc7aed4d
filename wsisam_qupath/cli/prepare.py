"""The ``prepare`` command."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from .options import all_objects_option, model_options, mpp_option, take_model


@click.command()
@click.argument("slide")
@click.argument("prompts", required=False, type=click.Path(path_type=Path))
@click.option(
    "--within",
    type=click.Path(path_type=Path),
    help="Without PROMPTS: GeoJSON file with areas; only the tissue in them.  [default: the whole "
    "slide]",
)
@click.option(
    "--object-size",
    "object_size_um",
    type=float,
    metavar="UM",
    help="Approximate size in µm of the objects that will be outlined.",
)
@all_objects_option
@mpp_option
@model_options
def prepare(**given: Any) -> None:
    """Encode a SLIDE ahead of time, so that outlining objects on it later is quick.

    The encoded patches are kept on the disk, within --embeddings-gb, for all commands that are
    given this option. With PROMPTS, a GeoJSON file that QuPath exported, they are the patches that
    outlining these prompts needs; without, they are those of the tissue that `find` looks at.

    After a stop of any kind, the same command goes on where it was.
    """
    from .prepare_run import PrepareRequest, run_prepare

    run_prepare(PrepareRequest(model=take_model(given), **given))
