"""The command line: ``wsisam-qupath segment | demo | weights | doctor``.

Results go to stdout, words to stderr. Exit codes: 0 done, 1 doctor found that the main job cannot
run, 2 a reason that the user can cure, 130 interrupted. Heavy imports stand inside the commands,
so that ``--help`` answers at once.
"""

from __future__ import annotations

import io
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn, TypeVar

import click

from .errors import WsiSamError
from .printing import printable

F = TypeVar("F", bound=Callable[..., Any])

_CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


class _Numbers(click.ParamType):  # type: ignore[type-arg]
    """A comma-separated tuple of finite numbers: "10,20"."""

    def __init__(self, names: str) -> None:
        self.name = names
        self._count = names.count(",") + 1

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[float, ...]:
        import math  # noqa: PLC0415

        try:
            numbers = tuple(float(part) for part in str(value).split(","))
        except ValueError:
            numbers = ()
        if len(numbers) != self._count or not all(map(math.isfinite, numbers)):
            self.fail(f"{value!r} is not of the form {self.name}, in level-0 pixels", param, ctx)
        return numbers


def model_options(command: F) -> F:
    """The options that choose a model; every command that runs one takes them."""
    for option in reversed(
        (
            click.option(
                "--base",
                default="lite-medsam",
                show_default=True,
                metavar="NAME",
                help="lite-medsam, mobile-sam, sam-vit-b, sam-vit-l, sam-vit-h or medsam.",
            ),
            click.option(
                "--adapter",
                default="none",
                show_default=True,
                metavar="PATH|none",
                help="WSI-SAM adapter (.safetensors) made for the base.",
            ),
            click.option(
                "--weights",
                type=click.Path(path_type=Path),
                metavar="PATH",
                help="A copy of the base's weights, where they are not downloaded.",
            ),
            click.option(
                "--device",
                default="auto",
                show_default=True,
                metavar="NAME",
                help="auto, cpu, cuda, cuda:1 … or mps.",
            ),
            click.option(
                "--backend",
                default="auto",
                show_default=True,
                metavar="NAME",
                help="auto, torch or openvino.",
            ),
        )
    ):
        command = option(command)
    return command


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
@click.option("--box", "boxes", multiple=True, type=_Numbers("x0,y0,x1,y1"), help="A rectangle.")
@click.option("--point", "points", multiple=True, type=_Numbers("x,y"), help="A point inside.")
@click.option(
    "--negative", "negatives", multiple=True, type=_Numbers("x,y"), help="A point outside."
)
@click.option(
    "--points",
    "points_as",
    type=click.Choice(["together", "each"]),
    default="together",
    show_default=True,
    help="Whether the points of one feature mark one object, or each its own.",
)
@click.option("--mpp", type=float, help="µm per pixel, for files that state none or a wrong one.")
@click.option("--object-size", type=float, metavar="UM", help="Size of what points mark, µm.")
@click.option(
    "--simplify",
    type=float,
    default=0.25,
    show_default=True,
    metavar="UM",
    help="How far a simplified outline may stray, µm.",
)
@click.option(
    "--min-area",
    type=float,
    default=10.0,
    show_default=True,
    metavar="UM2",
    help="Drop smaller parts and fill smaller holes, µm².",
)
@click.option(
    "--as",
    "object_type",
    type=click.Choice(["detection", "annotation"]),
    default="detection",
    show_default=True,
    help="What the results are in QuPath.",
)
@click.option("--overlay", type=click.Path(path_type=Path), help="PNG with prompts and outlines.")
@model_options
def segment(**given: Any) -> None:
    """Outline the prompts of a GeoJSON file, or of --box, --point and --negative, on SLIDE.

    Coordinates are level-0 pixels, as QuPath exports them.
    """
    from .segment_command import SegmentRequest, run_segment  # noqa: PLC0415

    run_segment(SegmentRequest(**given))


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
def doctor() -> None:
    """Show what works on this machine, and the cure of what does not."""
    from rich.console import Console  # noqa: PLC0415

    from .doctor import exit_code, print_doctor, run_doctor  # noqa: PLC0415

    with Console(stderr=True).status("Looking around"):
        checks = run_doctor()
    print_doctor(checks, Console())
    sys.exit(exit_code(checks))


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
