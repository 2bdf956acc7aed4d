"""The command line, with one module per command, imported when it is needed.

Results go to stdout, messages to stderr. Exit codes: 0 done, 1 doctor found that something needed
does not work, 2 an error that the user can fix, 3 some images of a project failed and the others
are done, 130 or 143 interrupted by Ctrl-C or SIGTERM. Heavy imports stand inside the commands, so
that ``--help`` is quick.
"""

from __future__ import annotations

import io
import json
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import copy_context
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import click

from .. import __version__
from ..errors import OptionError, WsiSamError, escape
from ..options import PROGRESS_STYLE

_COMMANDS = {
    **{
        name: f"wsisam_qupath.cli.{name}:{name}"
        for name in (
            "batch",
            "cache",
            "create",
            "demo",
            "doctor",
            "export",
            "find",
            "prepare",
            "restore",
            "segment",
            "serve",
            "setup",
            "view",
            "weights",
        )
    },
    "evaluate": "wsisam_qupath_training.cli.evaluate:evaluate_command",
    "train": "wsisam_qupath_training.cli.train:train_command",
}
"""Module and name of each command. By name: training stands above this package."""

_CONTEXT = {
    "help_option_names": ["-h", "--help"],
    "max_content_width": 100,
    "show_default": True,
}


def _choose_progress(
    _context: click.Context, option: click.Parameter, value: bool | str | None
) -> None:
    """Choose how a command reports its progress."""
    if value:
        PROGRESS_STYLE.set("quiet" if option.name == "quiet" else "json")


_PROGRESS_OPTIONS = (
    click.Option(
        ["--quiet"],
        is_flag=True,
        expose_value=False,
        callback=_choose_progress,
        help="Show no progress; results, warnings and errors are still printed.",
    ),
    click.Option(
        ["--progress"],
        type=click.Choice(["json"]),
        expose_value=False,
        callback=_choose_progress,
        help="Print progress and messages for programs: one JSON object per line, on stderr.",
    ),
)
"""Options that every command has."""


class _LazyGroup(click.Group):
    """A group that imports a command when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return sorted(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in _COMMANDS:
            return None
        module, _, name = _COMMANDS[cmd_name].partition(":")
        command: click.Command = getattr(import_module(module), name)
        known = {one.name for one in command.params}
        command.params += [one for one in _PROGRESS_OPTIONS if one.name not in known]
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command that the arguments name, or suggest the nearest one."""
        name = args[0]
        if name not in _COMMANDS and not ctx.resilient_parsing and not name.startswith("-"):
            near = get_close_matches(name, _COMMANDS)
            suggestion = f" Did you mean {near[0]!r}?" if near else ""
            ctx.fail(f"No such command {name!r}.{suggestion}")
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; an error about an option names it as on the command line."""
        try:
            return super().invoke(ctx)
        except OptionError as exc:
            command = self.get_command(ctx, ctx.invoked_subcommand or "")
            flags = {one.name: _spell(one) for one in command.params} if command else {}
            name = flags.get(exc.option, exc.option)
            raise _RefusedOptionError(escape(name), escape(exc.problem)) from exc


class _RefusedOptionError(click.ClickException):
    """An option was refused, with its name as on the command line."""

    def __init__(self, name: str, problem: str) -> None:
        super().__init__(f"{name}: {problem}")
        self.problem = problem


def _spell(parameter: click.Parameter) -> str:
    """Spell a parameter as on the command line: "--mpp", "PROJECT"."""
    longest = max(parameter.opts, key=len)
    return longest if isinstance(parameter, click.Option) else longest.upper()


def _print_version(context: click.Context, _option: click.Parameter, wanted: bool) -> None:
    """Print the version. Click's own option fails in a source tree that was never installed."""
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
    copy_context().run(_run)


def _run() -> None:
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # Not every terminal and pipe takes a µ, or the name of every file.
            stream.reconfigure(errors="backslashreplace")
    try:
        with _keep_interrupts():
            # A reader of stdout that goes away (`| head`) is click's business: it exits with 1.
            cli.main(standalone_mode=False)
    except _StoppedError as exc:
        _end_interrupted(exc.number)
    except (KeyboardInterrupt, click.Abort):
        _end_interrupted(signal.SIGINT)
    except click.UsageError as exc:
        command = exc.ctx.command_path if exc.ctx else "wsisam-qupath"
        _fail(f"{exc.format_message()}\nSee `{command} --help`.")
    except _RefusedOptionError as exc:
        _fail(exc.format_message(), exc.problem)
    except click.ClickException as exc:
        _fail(exc.format_message())
    except WsiSamError as exc:
        _fail(escape(str(exc)))


@contextmanager
def _keep_interrupts() -> Iterator[None]:
    """Raise _Stopped after Ctrl-C or SIGTERM, whatever error a library turned it into."""
    numbers: list[int] = []

    def stop(number: int, _frame: FrameType | None) -> None:
        numbers.append(number)
        raise KeyboardInterrupt

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number, handler in before.items():
        # Else it is ignored, as behind a shell's `&`.
        if handler in (signal.default_int_handler, signal.SIG_DFL):
            signal.signal(number, stop)
    try:
        yield
    except (Exception, KeyboardInterrupt) as exc:
        if numbers:
            raise _StoppedError(numbers[0]) from exc
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _StoppedError(Exception):
    """A signal told this process to stop.

    Attributes:
        number: number of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def _end_interrupted(number: int) -> NoReturn:
    # A second signal would disturb the cleanup after the first.
    for one in (signal.SIGINT, signal.SIGTERM):
        signal.signal(one, signal.SIG_IGN)
    _say("interrupted", "Interrupted. No file was left half-written.")
    sys.exit(128 + number)


def _fail(message: str, reason: str | None = None) -> NoReturn:
    """End with a message; ``reason`` is what it says without the name of an option."""
    _say("error", f"wsisam-qupath: {message}", reason=message if reason is None else reason)
    sys.exit(2)


def _say(event: str, message: str, **more: str) -> None:
    """Print the last message, for people or for programs."""
    if PROGRESS_STYLE.get() == "json":
        message = json.dumps({"event": event, "message": message, **more})
    click.echo(message, err=True)
