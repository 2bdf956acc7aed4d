"""The ``restore`` command."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from .options import SOME_FAILED, images_option


def _parse_state(text: str) -> str | int:
    try:
        return "original" if text == "original" else int(text)
    except ValueError:
        raise click.BadParameter(f"{text} is neither a number nor the word original.") from None


@click.command()
@click.argument("project", type=click.Path(path_type=Path))
@images_option
@click.option(
    "--to",
    type=_parse_state,
    metavar="original|NUMBER",
    help="State to restore: the first one, or one of the list.  [default: the one before the last "
    "command]",
)
@click.option(
    "--list", "list_only", is_flag=True, help="Print the states of each image; change nothing."
)
def restore(project: Path, images: tuple[str, ...], to: Any, list_only: bool) -> None:
    """Restore images of a QuPath PROJECT to an earlier state.

    Without --to, each image returns to its state before the last command that changed it; given
    again, one command further back. What is replaced becomes a state of its own, so every
    restoration can be taken back with --to NUMBER. Close the project in QuPath first.

    Exit codes: 0 done, 2 nothing was started, 3 some images failed.
    """
    from ..project.restore import print_states, run_restore

    if list_only:
        print_states(project, images)
        return
    sys.exit(0 if run_restore(project, images, "previous" if to is None else to) else SOME_FAILED)
