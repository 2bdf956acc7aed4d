"""The command line: ``wsisam-qupath segment | serve | demo | weights | doctor``, and more.

Projects and training have their commands in other modules.

Results go to stdout, words to stderr. Exit codes: 0 done, 1 doctor found that the main job cannot
run, 2 a reason that the user can cure, 3 some images of a project failed and the others are done,
130 interrupted. Heavy imports stand inside the commands, so that ``--help`` answers at once.
"""

from __future__ import annotations

import io
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import click

from wsisam_qupath_training.cli import train_command
from wsisam_qupath_training.evaluate.cli import evaluate_command

from . import project_cli
from .errors import WsiSamError
from .options import Numbers, Remap, model_options, outline_options
from .printing import printable

_CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


def _print_version(context: click.Context, _option: click.Parameter, wanted: bool) -> None:
    """Not click's own, which fails in a source tree that was never installed."""
    if wanted:
        from .version import VERSION  # noqa: PLC0415 - reads the installed packages

        click.echo(f"wsisam-qupath {VERSION}")
        context.exit()


@click.group(context_settings=_CONTEXT, invoke_without_command=True)
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
    wsisam-qupath demo        run the main job on real tissue that ships with a package
    wsisam-qupath serve       outline what is clicked in QuPath
    wsisam-qupath batch       outline all prompts of a QuPath project
    wsisam-qupath doctor      what works on this machine, and how to mend what does not
    """  # noqa: D301 - click reads the backspace
    try:
        Path.cwd()
    except FileNotFoundError as exc:  # on which every relative path would fail in its own way
        raise click.ClickException(
            "The folder that you are in was deleted. Change to another one."
        ) from exc
    if context.invoked_subcommand is None:
        click.echo(context.get_help(), err=True)
        sys.exit(2)


@cli.command()
@click.argument("slide")
@click.argument("prompts", required=False, type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, allow_dash=True),
    help="GeoJSON to write; stdout without it.",
)
@click.option("--box", "boxes", multiple=True, type=Numbers("x0,y0,x1,y1"), help="A rectangle.")
@click.option("--point", "points", multiple=True, type=Numbers("x,y"), help="A point inside.")
@click.option(
    "--negative", "negatives", multiple=True, type=Numbers("x,y"), help="A point outside."
)
@click.option("--mpp", type=float, help="µm per pixel, for files that state none or a wrong one.")
@outline_options
@click.option("--overlay", type=click.Path(path_type=Path), help="PNG with prompts and outlines.")
@model_options
def segment(**given: Any) -> None:
    """Outline the prompts of a GeoJSON file, or of --box, --point and --negative, on SLIDE.

    Coordinates are level-0 pixels, as QuPath exports them.
    """
    from .segment_command import SegmentRequest, run_segment  # noqa: PLC0415

    run_segment(SegmentRequest(**given))


@cli.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen at.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8473, show_default=True, help="0: any free."
)
@click.option(
    "--name", "names", multiple=True, metavar="NAME", help="Another name that clients call it by."
)
@click.option(
    "--token-file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Where URL and token are kept for clients on this machine, or a file with a token.",
)
@click.option(
    "--slides",
    multiple=True,
    type=click.Path(path_type=Path, file_okay=False),
    help="A folder whose slides may be read. Without it, on 127.0.0.1, all that you can open.",
)
@click.option(
    "--map",
    "maps",
    multiple=True,
    type=Remap(),
    metavar="CLIENT=SERVER",
    help="What is below CLIENT for QuPath is below SERVER here.",
)
@click.option("--tls-cert", type=click.Path(path_type=Path, dir_okay=False), help="PEM, for TLS.")
@click.option("--tls-key", type=click.Path(path_type=Path, dir_okay=False), help="PEM, its key.")
@click.option(
    "--max-body-mib", type=click.IntRange(1, 2048), default=64, show_default=True, metavar="MIB"
)
@click.option("--max-prompts", type=click.IntRange(1), default=5000, show_default=True)
@click.option(
    "--max-requests",
    type=click.IntRange(1, 1000),
    default=32,
    show_default=True,
    help="In hand at a time; more are asked to come again.",
)
@click.option(
    "--max-seconds", type=click.FloatRange(0.1), default=300, show_default=True, help="A request."
)
@model_options
def serve(**given: Any) -> None:
    """Answer QuPath over HTTP: a rectangle or a click in, the outline out.

    The address and the token are printed, and kept where the script in QuPath finds them.
    """
    from .server.command import ServeRequest, run_serve  # noqa: PLC0415

    run_serve(ServeRequest(**given))


@cli.command()
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default="demo-output",
    show_default=True,
    help="Folder for the slide, the prompts, the result and the picture.",
)
@model_options
def demo(out: Path, **model: Any) -> None:
    """Run the main job on real tissue: GeoJSON prompts in, GeoJSON outlines and a picture out."""
    from .demo import run_demo  # noqa: PLC0415

    run_demo(out, **model)


@cli.command()
@click.argument("base")
def weights(base: str) -> None:
    """Get the weights of BASE, verified, and print where they are."""
    from .weights_command import run_weights  # noqa: PLC0415

    click.echo(run_weights(base))


@cli.command()
@click.argument("project", required=False, type=click.Path(path_type=Path))
def doctor(project: Path | None) -> None:
    """Show what works on this machine, and the cure of what does not.

    With a QuPath PROJECT, whether it opens.
    """
    from rich.console import Console  # noqa: PLC0415

    from .doctor import exit_code, print_doctor, run_doctor  # noqa: PLC0415

    with Console(stderr=True).status("Looking around"):
        checks = run_doctor(project)
    print_doctor(checks, Console())
    sys.exit(exit_code(checks))


for _command in (*project_cli.COMMANDS, train_command, evaluate_command):
    cli.add_command(_command)


def main() -> None:
    """Run the command line; every cure is one or two lines, never a traceback."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # Not every terminal and pipe takes a µ, or the name of every file.
            stream.reconfigure(errors="backslashreplace")
    try:
        with _interrupts_kept():
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
        _fail(printable(str(exc)))


@contextmanager
def _interrupts_kept() -> Iterator[None]:
    """Let a Ctrl-C out as KeyboardInterrupt, whatever error a library makes of it in its midst."""
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
    # Who presses Ctrl-C twice would disturb the end of the first.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    click.echo("Interrupted. No result is half written.", err=True)
    sys.exit(130)


def _fail(message: str) -> NoReturn:
    click.echo(f"wsisam-qupath: {message}", err=True)
    sys.exit(2)
