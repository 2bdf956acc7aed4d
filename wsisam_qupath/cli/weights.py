"""Options of ``weights``. Heavy imports stand inside of it, so that ``--help`` is quick."""

from __future__ import annotations

import click


@click.command()
@click.argument("base")
def weights(base: str) -> None:
    """Get the weights of BASE, verified, and print where they are."""
    from .weights_download import run_weights

    click.echo(run_weights(base))
