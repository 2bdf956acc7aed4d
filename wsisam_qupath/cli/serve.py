"""Options of ``serve``. Heavy imports stand inside of it, so that ``--help`` is quick."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from .options import Remap, model_options


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen at.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8473, show_default=True, help="0: any free."
)
@click.option(
    "--name", "names", multiple=True, metavar="NAME", help="Another name that clients call it by."
)
@click.option(
    "--token-file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Where URL and token are kept for clients on this machine, or a file with a token.",
)
@click.option(
    "--slides",
    multiple=True,
    type=click.Path(path_type=Path, file_okay=False),
    help="A folder whose slides may be read. Without it, on 127.0.0.1, all that you can open.",
)
@click.option(
    "--map",
    "maps",
    multiple=True,
    type=Remap(),
    metavar="CLIENT=SERVER",
    help="What is below CLIENT for QuPath is below SERVER here.",
)
@click.option("--tls-cert", type=click.Path(path_type=Path, dir_okay=False), help="PEM, for TLS.")
@click.option("--tls-key", type=click.Path(path_type=Path, dir_okay=False), help="PEM, its key.")
@click.option(
    "--max-body-mib", type=click.IntRange(1, 2048), default=64, show_default=True, metavar="MIB"
)
@click.option("--max-prompts", type=click.IntRange(1), default=5000, show_default=True)
@click.option(
    "--max-requests",
    type=click.IntRange(1, 1000),
    default=32,
    show_default=True,
    help="In hand at a time; more are asked to come again.",
)
@click.option(
    "--max-seconds", type=click.FloatRange(0.1), default=300, show_default=True, help="A request."
)
@model_options
def serve(**given: Any) -> None:
    """Answer QuPath over HTTP: a rectangle or a click in, the outline out.

    The address and the token are printed, and kept where the script in QuPath finds them.
    """
    from ..server.command import ServeRequest, run_serve

    run_serve(ServeRequest(**given))
