"""The ``view`` command."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from .options import model_options, take_model


@click.command()
@click.argument("place", metavar="SLIDE|FOLDER", type=click.Path(path_type=Path))
@click.option(
    "--mpp",
    type=float,
    help="Pixel size of the slides in µm, if their files state none or a wrong one.",
)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=0,
    show_default="any free one",
    help="Port to listen at; only this computer can reach it.",
)
@click.option(
    "--browser/--no-browser",
    "opens_browser",
    default=True,
    help="Open the page in the browser, or only print its address.",
)
@model_options
def view(**given: Any) -> None:
    """Show a SLIDE, or the slides of a FOLDER, in the browser and outline what is clicked.

    The page needs no QuPath and no network. Objects are saved as GeoJSON beside the slide, which
    QuPath imports. Stop it with Ctrl-C.
    """
    from ..server.viewer.command import ViewRequest, run_view

    run_view(ViewRequest(models=(take_model(given),), **given))
