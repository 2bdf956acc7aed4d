"""Options of ``setup``. Heavy imports stand inside of it, so that ``--help`` is quick."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click


@click.command()
@click.option(
    "--weights",
    multiple=True,
    metavar="BASE",
    help="Fetch the weights of this base; may be given again.",
)
@click.option("--install/--no-install", default=True, help="Download QuPath where there is none.")
@click.option(
    "--qupath-dir",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder to install QuPath in.",
)
@click.option(
    "--user-dir",
    type=click.Path(path_type=Path, file_okay=False),
    help="QuPath's user folder, in place of the one that its preferences name.",
)
@click.option(
    "--startup-script",
    is_flag=True,
    help="Have QuPath put Extensions > WSI-SAM into its menu whenever it starts.",
)
@click.option("--dry-run", is_flag=True, help="Say what would be done, and change nothing.")
def setup(**given: Any) -> None:
    """Find or install QuPath, and put the scripts into its menu."""
    from rich.console import Console

    from .setup_steps import SetupRequest, exit_code, print_steps, run_setup

    steps = run_setup(SetupRequest(**given))
    print_steps(steps, Console(highlight=False))
    sys.exit(exit_code(steps))
