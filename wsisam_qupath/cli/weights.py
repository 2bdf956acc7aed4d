"""The ``weights`` command."""

from __future__ import annotations

import click


@click.command()
@click.argument("base")
def weights(base: str) -> None:
    """Download the weights of the base model BASE, and print where they are and their license.

    Their checksum is verified. Nothing is downloaded if they are there already.
    """
    from ..model.bases import find_base
    from .weights_download import run_weights

    click.echo(run_weights(base))
    click.echo(f"License of these weights: {find_base(base).licence}", err=True)
