"""The command line, with one module per command, imported when it is needed.

Results go to stdout, messages to stderr. Exit codes: 0 done, 1 doctor found that something needed
does not work, 2 an error that the user can fix, 3 some images of a project failed and the others
are done, 130 interrupted. Heavy imports stand inside the commands, so that ``--help`` is quick.
"""

from __future__ import annotations

import io
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import click

from .. import __version__
from ..errors import OptionError, WsiSamError, escape

_COMMANDS = {
    **{
        name: f"wsisam_qupath.cli.{name}:{name}"
        for name in (
            "batch",
            "create",
            "demo",
            "doctor",
            "export",
            "restore",
            "segment",
            "serve",
            "setup",
            "weights",
        )
    },
    "evaluate": "wsisam_qupath_training.cli.evaluate:evaluate_command",
    "train": "wsisam_qupath_training.cli.train:train_command",
}
"""Module and name of each command. By name: training stands above this package."""

_CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


class _LazyGroup(click.Group):
    """A group that imports a command when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return sorted(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in _COMMANDS:
            return None
        module, _, name = _COMMANDS[cmd_name].partition(":")
        command: click.Command = getattr(import_module(module), name)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command that the arguments begin with, or suggest the nearest."""
        name = args[0]
        if name not in _COMMANDS and not ctx.resilient_parsing and not name.startswith("-"):
            near = get_close_matches(name, _COMMANDS)
            suggestion = f" Did you mean {near[0]!r}?" if near else ""
            ctx.fail(f"No such command {name!r}.{suggestion}")
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; an option that cannot be used is called by its flag."""
        try:
            return super().invoke(ctx)
        except OptionError as exc:
            command = self.get_command(ctx, ctx.invoked_subcommand or "")
            flags = {one.name: _spell(one) for one in command.params} if command else {}
            name = flags.get(exc.option, exc.option)
            raise click.ClickException(escape(f"{name}: {exc.problem}")) from exc


def _spell(parameter: click.Parameter) -> str:
    """How a parameter is written on the command line: "--mpp", "PROJECT"."""
    longest = max(parameter.opts, key=len)
    return longest if isinstance(parameter, click.Option) else longest.upper()


def _print_version(context: click.Context, _option: click.Parameter, wanted: bool) -> None:
    """Not click's own, which fails in a source tree that was never installed."""
    if wanted:
        click.echo(f"wsisam-qupath {__version__}")
        context.exit()


@click.group(cls=_LazyGroup, context_settings=_CONTEXT, invoke_without_command=True)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_version,
    help="Show the version and exit.",
)
@click.pass_context
def cli(context: click.Context) -> None:
    """Outline tissue on whole-slide images from rectangles, points and rough outlines.

    \b
    wsisam-qupath demo        try the program on an example slide
    wsisam-qupath serve       outline what is clicked in QuPath
    wsisam-qupath batch       outline all prompts of a QuPath project
    wsisam-qupath doctor      check what works on this computer
    """  # noqa: D301 - click reads the backspace
    try:
        Path.cwd()
    except FileNotFoundError as exc:  # every relative path would fail, each in another way
        raise click.ClickException(
            "The current folder was deleted. Change to another one."
        ) from exc
    if context.invoked_subcommand is None:
        click.echo(context.get_help(), err=True)
        sys.exit(2)


def main() -> None:
    """Run the command line; what a user can fix ends in a message, never in a traceback."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # Not every terminal and pipe takes a µ, or the name of every file.
            stream.reconfigure(errors="backslashreplace")
    try:
        with _keep_interrupts():
            # A reader of stdout that goes away (`| head`) is click's business: it exits with 1.
            cli.main(standalone_mode=False)
    except (KeyboardInterrupt, click.Abort):
        _end_interrupted()
    except click.UsageError as exc:
        command = exc.ctx.command_path if exc.ctx else "wsisam-qupath"
        _fail(f"{exc.format_message()}\nSee `{command} --help`.")
    except click.ClickException as exc:
        _fail(exc.format_message())
    except WsiSamError as exc:
        _fail(escape(str(exc)))


@contextmanager
def _keep_interrupts() -> Iterator[None]:
    """Raise KeyboardInterrupt after Ctrl-C, whatever error a library turned it into."""
    interrupts: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        interrupts.append(number)
        signal.default_int_handler(number, frame)

    before = signal.getsignal(signal.SIGINT)
    if before is signal.default_int_handler:  # else it is ignored, as behind a shell's `&`
        signal.signal(signal.SIGINT, note)
    try:
        yield
    except Exception as exc:
        if interrupts:
            raise KeyboardInterrupt from exc
        raise
    finally:
        signal.signal(signal.SIGINT, before)


def _end_interrupted() -> NoReturn:
    # A second Ctrl-C would disturb the cleanup after the first.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    click.echo("Interrupted. No file was left half-written.", err=True)
    sys.exit(130)


def _fail(message: str) -> NoReturn:
    click.echo(f"wsisam-qupath: {message}", err=True)
    sys.exit(2)
