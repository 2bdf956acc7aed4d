"""Options of ``doctor``. Heavy imports stand inside of it, so that ``--help`` is quick."""

from __future__ import annotations

import sys
from pathlib import Path

import click


@click.command()
@click.argument("project", required=False, type=click.Path(path_type=Path))
def doctor(project: Path | None) -> None:
    """Show what works on this machine, and the cure of what does not.

    With a QuPath PROJECT, whether it opens.
    """
    from rich.console import Console

    from .doctor_checks import exit_code, print_doctor, run_doctor

    with Console(stderr=True).status("Looking around"):
        checks = run_doctor(project)
    print_doctor(checks, Console())
    sys.exit(exit_code(checks))
