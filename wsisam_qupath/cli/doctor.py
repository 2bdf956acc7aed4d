"""The ``doctor`` command."""

from __future__ import annotations

import sys
from pathlib import Path

import click


@click.command()
@click.argument("project", required=False, type=click.Path(path_type=Path))
def doctor(project: Path | None) -> None:
    """Check what works on this computer, and say how to fix what does not.

    With a QuPath PROJECT, also check that the project opens.

    Exit codes: 0 everything that is needed works, 1 something that is needed does not.
    """
    from rich.console import Console

    from ..report.progress import stderr_console
    from .doctor_checks import exit_code, print_doctor, run_doctor

    checks = run_doctor(project, stderr_console())
    print_doctor(checks, Console())
    sys.exit(exit_code(checks))
