"""The ``weights`` command."""

from __future__ import annotations

import click


@click.command()
@click.argument("base")
def weights(base: str) -> None:
    """Download the weights of the base model BASE, and print where they are.

    Their checksum is verified. Nothing is downloaded if they are there already.
    """
    from .weights_download import run_weights

    click.echo(run_weights(base))
