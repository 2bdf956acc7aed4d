"""The ``restore`` command."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from .options import SOME_FAILED


class _State(click.ParamType):  # type: ignore[type-arg]
    """The number of a state, or the word original."""

    name = "state"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> str | int:
        if value == "original":
            return "original"
        try:
            return int(value)
        except ValueError:
            self.fail(f"{value} is neither a number nor the word original.", param, ctx)


@click.command()
@click.argument("project", type=click.Path(path_type=Path))
@click.option(
    "--images",
    "images",
    multiple=True,
    metavar="GLOB|ID",
    help="Only images with this name (* and ? match any text) or QuPath id; may be given several "
    "times.  [default: all]",
)
@click.option(
    "--to",
    type=_State(),
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
