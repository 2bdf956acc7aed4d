"""The ``serve`` command."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from .options import models_options, parse_remap, take_models


@click.command()
@click.option("--host", default="127.0.0.1", help="Address to listen at.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8473,
    help="Port to listen at; 0 is any free one.",
)
@click.option(
    "--name",
    "names",
    multiple=True,
    metavar="NAME",
    help="DNS name that clients use for this server, if it is not the address; may be given "
    "several times.",
)
@click.option(
    "--token-file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="File with a token of your own, or with a line for each client: its name and its token. "
    "Or one to which address and token are written for QuPath on this computer.  [default: a file "
    "in ~/.wsisam-qupath/servers]",
)
@click.option(
    "--slides",
    multiple=True,
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder with slides and projects that clients may use; may be given several times.  "
    "[default: every file that you can open if the address is 127.0.0.1, otherwise none]",
)
@click.option(
    "--map",
    "maps",
    multiple=True,
    type=parse_remap,
    metavar="CLIENT=SERVER",
    help="Map a path prefix used by the client to the one on this server; may be given several "
    "times.",
)
@click.option(
    "--tls-cert",
    type=click.Path(path_type=Path, dir_okay=False),
    help="TLS certificate (PEM); connections are then encrypted.",
)
@click.option(
    "--tls-key",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Private key of the TLS certificate (PEM, without password).",
)
@click.option(
    "--max-body-mib",
    type=click.IntRange(1, 2048),
    default=64,
    metavar="MIB",
    help="Maximum size of a request, MiB.",
)
@click.option(
    "--max-prompts",
    type=click.IntRange(1),
    default=5000,
    metavar="N",
    help="Maximum number of prompts in a request.",
)
@click.option(
    "--max-requests",
    type=click.IntRange(1, 1000),
    default=32,
    help="Maximum number of concurrent requests; further ones get HTTP 503.",
)
@click.option(
    "--max-memory-mib",
    type=click.IntRange(16),
    default=768,
    metavar="MIB",
    help="Maximum memory of all requests together, MiB, besides the model and its caches.",
)
@click.option(
    "--max-seconds",
    type=click.FloatRange(0.1),
    default=300,
    metavar="S",
    help="Maximum time for a request, seconds.",
)
@click.option(
    "--stop-with-input",
    is_flag=True,
    help="Stop when the standard input ends, as it does when the program that started this ends.",
)
@click.option(
    "--samapi",
    is_flag=True,
    help="Also answer the SAM extension for QuPath in place of its own server, samapi, to programs "
    "on this computer and without a token.",
)
@click.option(
    "--samapi-open",
    is_flag=True,
    help="Let everyone who reaches this server use --samapi, also from other computers.",
)
@models_options
def serve(**given: Any) -> None:
    """Start the server that outlines what is clicked in QuPath.

    It prints its address and an access token, and writes both to a file where the script in QuPath
    finds them. Stop it with Ctrl-C.
    """
    from ..server.command import ServeRequest, run_serve

    run_serve(ServeRequest(models=take_models(given), **given))
