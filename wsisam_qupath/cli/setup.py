"""The ``setup`` command."""

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
    help="Also download the weights of this base model; may be given several times.",
)
@click.option(
    "--install/--no-install",
    default=True,
    help="Download QuPath if it is not installed.",
)
@click.option(
    "--qupath-dir",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder to install QuPath in.  [default: one where this program finds it]",
)
@click.option(
    "--user-dir",
    type=click.Path(path_type=Path, file_okay=False),
    help="QuPath's user folder.  [default: the one in QuPath's preferences]",
)
@click.option(
    "--startup-script",
    is_flag=True,
    help="Make QuPath add Extensions > WSI-SAM to its menu at every start.",
)
@click.option("--dry-run", is_flag=True, help="Print what would be done; change nothing.")
def setup(**given: Any) -> None:
    """Install QuPath if it is missing, and add the scripts to its menu."""
    from rich.console import Console

    from .setup_steps import SetupRequest, exit_code, print_steps, run_setup

    steps = run_setup(SetupRequest(**given))
    print_steps(steps, Console(highlight=False))
    sys.exit(exit_code(steps))
