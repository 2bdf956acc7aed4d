"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])

SOME_FAILED = 3
"""Exit code where some images failed and the others are done."""


class Numbers(click.ParamType):  # type: ignore[type-arg]
    """A comma-separated tuple of finite numbers: "10,20"."""

    def __init__(self, names: str) -> None:
        self.name = names
        self._count = names.count(",") + 1

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[float, ...]:
        import math

        try:
            numbers = tuple(float(part) for part in str(value).split(","))
        except ValueError:
            numbers = ()
        if len(numbers) != self._count or not all(map(math.isfinite, numbers)):
            self.fail(f"{value!r} is not of the form {self.name}, in level-0 pixels", param, ctx)
        return numbers


def model_options(command: F) -> F:
    """The options that choose a model; every command that runs one takes them."""
    return _decorate(
        command,
        click.option(
            "--base",
            default="lite-medsam",
            show_default=True,
            metavar="NAME",
            help="lite-medsam, mobile-sam, sam-vit-b, sam-vit-l, sam-vit-h or medsam.",
        ),
        click.option(
            "--adapter",
            default="default",
            show_default=True,
            metavar="PATH|default|none",
            help="WSI-SAM adapter (.safetensors) made for the base; default is the one that comes "
            "with this program, if there is one for the base.",
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


class Remap(click.ParamType):  # type: ignore[type-arg]
    """Two beginnings of paths: "OLD=NEW"."""

    name = "old=new"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, str]:
        old, equals, new = str(value).partition("=")
        if not (equals and old and new):
            self.fail(f"{value!r} is not of the form OLD=NEW", param, ctx)
        return old, new


def outline_options(command: F) -> F:
    """The options that decide how prompts become outlines."""
    return _decorate(
        command,
        click.option(
            "--points",
            "points_as",
            type=click.Choice(["together", "each"]),
            default="together",
            show_default=True,
            help="Whether the points of one feature mark one object, or each its own.",
        ),
        click.option(
            "--object-size", type=float, metavar="UM", help="Size of what points mark, µm."
        ),
        click.option(
            "--simplify",
            type=float,
            default=0.25,
            show_default=True,
            metavar="UM",
            help="How far a simplified outline may stray, µm.",
        ),
        click.option(
            "--min-area",
            type=float,
            default=10.0,
            show_default=True,
            metavar="UM2",
            help="Drop smaller parts and fill smaller holes, µm².",
        ),
        click.option(
            "--as",
            "object_type",
            type=click.Choice(["detection", "annotation"]),
            default="detection",
            show_default=True,
            help="What the results are in QuPath.",
        ),
    )


def remap_option(command: F) -> F:
    """For slides that are not where the project says."""
    return _decorate(
        command,
        click.option(
            "--remap",
            multiple=True,
            type=Remap(),
            metavar="OLD=NEW",
            help="Slides below OLD are below NEW now. The project itself keeps its paths.",
        ),
    )


def _decorate(command: F, *options: Callable[[F], F]) -> F:
    """In the order in which --help shows them."""
    for option in reversed(options):
        command = option(command)
    return command
