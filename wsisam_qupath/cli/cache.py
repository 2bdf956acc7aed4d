"""The ``cache`` command."""

from __future__ import annotations

import click


@click.command()
@click.option(
    "--clear",
    is_flag=True,
    help="Delete everything that this program can make again; downloaded weights stay.",
)
def cache(clear: bool) -> None:
    """Show what the cache folder holds, and how much room it takes.

    Prepared models that were not used for a month go by themselves, and so do copies of images
    beyond 20 GB.
    """
    from .cache_contents import run_cache

    run_cache(clear=clear)
