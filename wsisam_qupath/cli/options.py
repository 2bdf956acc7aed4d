"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

import click

from ..model.bases import BASES
from ..options import DEFAULT_BASE, ModelSpec, OutlineOptions

F = TypeVar("F", bound=Callable[..., Any])

SOME_FAILED = 3
"""Exit code when some images failed and the others are done."""


class Numbers(click.ParamType):  # type: ignore[type-arg]
    """A tuple of finite numbers, separated by commas: "10,20"."""

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


class ShardOf(click.ParamType):  # type: ignore[type-arg]
    """One of several parts of a table: "2/10"."""

    name = "I/N"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> object:
        from ..project.slide_table.rows import Shard  # not for `--help`

        if isinstance(value, Shard):
            return value
        number, _, count = str(value).partition("/")
        is_number = number.isascii() and count.isascii() and number.isdigit() and count.isdigit()
        if not is_number or not 1 <= int(number) <= int(count):
            self.fail(f"{value!r} is not of the form I/N, with I from 1 to N", param, ctx)
        return Shard(int(number), int(count))


class Adapter(click.ParamType):  # type: ignore[type-arg]
    """An adapter: "default", "none" or a file."""

    name = "path|default|none"

    def convert(
        self,
        value: Any,
        param: click.Parameter | None,  # noqa: ARG002
        ctx: click.Context | None,  # noqa: ARG002
    ) -> Path | str:
        return value if isinstance(value, Path) or value in {"default", "none"} else Path(value)


def model_options(command: F) -> F:
    """Add the options that choose a model; :func:`take_model` collects them."""
    return _add_model_options(command, "", several=False)


def models_options(command: F) -> F:
    """Add the options that choose one or several models; :func:`take_models` collects them."""
    more = " May be given several times: clients then choose, and the first is used otherwise."
    return _add_model_options(command, more, several=True)


def _add_model_options(command: F, more: str, *, several: bool) -> F:
    return _decorate(
        command,
        click.option(
            "--base",
            default=DEFAULT_BASE,
            show_default=True,
            metavar="NAME",
            help=f"Base model: {', '.join(BASES)}.",
        ),
        click.option(
            "--adapter",
            type=Adapter(),
            multiple=several,
            default=["default"] if several else "default",
            show_default=True,
            metavar="PATH|default|none",
            help="WSI-SAM adapter (.safetensors) trained for the base model. 'default' is the one "
            "that ships with this program, if there is one for the base; 'none' is the base alone."
            + more,
        ),
        click.option(
            "--weights",
            type=click.Path(path_type=Path),
            metavar="PATH",
            help="File with the weights of the base model, instead of the installed or downloaded "
            "one.",
        ),
        click.option(
            "--device",
            default="auto",
            show_default=True,
            metavar="NAME",
            help="Device to compute on: auto, cpu, cuda, cuda:1 … or mps.",
        ),
        click.option(
            "--backend",
            default="auto",
            show_default=True,
            metavar="NAME",
            help="Library that runs the model: auto, torch or openvino.",
        ),
        click.option(
            "--precision",
            default=ModelSpec.precision,
            show_default=True,
            metavar="NAME",
            help="Numbers that the encoder computes with: auto, int8, bf16 or f32. 'auto' is int8 "
            "on a CPU that multiplies it faster (VNNI or AMX, on Linux), else bf16, which is f32 "
            "where the device has no bf16.",
        ),
        click.option(
            "--embeddings-gb",
            type=click.FloatRange(0),
            default=ModelSpec.embeddings_gb,
            show_default=True,
            metavar="GB",
            envvar="WSISAM_QUPATH_EMBEDDINGS_GB",
            show_envvar=True,
            help="Keep what the model sees of each patch in the cache folder, at most this many "
            "GB: the same place of a slide, also with another adapter, is then answered without "
            "encoding it again.",
        ),
    )


def take_model(given: dict[str, Any]) -> ModelSpec:
    """Take the options that :func:`model_options` added out of a command's options."""
    values = _take(given, ModelSpec)
    if values["adapter"] == "none":
        values["adapter"] = None
    return ModelSpec(**values)


def take_models(given: dict[str, Any]) -> tuple[ModelSpec, ...]:
    """Take the options that :func:`models_options` added out of a command's options."""
    adapters, shared = given.pop("adapter"), _take(given, ModelSpec)
    chosen = [take_model({**shared, "adapter": adapter}) for adapter in dict.fromkeys(adapters)]
    return tuple(chosen)


def take_outline(given: dict[str, Any]) -> OutlineOptions:
    """Take the options that :func:`outline_options` added out of a command's options."""
    return OutlineOptions(**_take(given, OutlineOptions))


def _take(given: dict[str, Any], kind: type[ModelSpec] | type[OutlineOptions]) -> dict[str, Any]:
    return {one.name: given.pop(one.name) for one in fields(kind) if one.name in given}


class Remap(click.ParamType):  # type: ignore[type-arg]
    """A path prefix and its replacement: "OLD=NEW"."""

    name = "old=new"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, str]:
        old, equals, new = str(value).partition("=")
        if not (equals and old and new):
            self.fail(f"{value!r} is not of the form OLD=NEW", param, ctx)
        return old, new


def outline_options(command: F) -> F:
    """Add the options that decide how prompts become outlines; see :func:`take_outline`."""
    points = click.option(
        "--points",
        "points_as",
        type=click.Choice(["together", "each"]),
        default=OutlineOptions.points_as,
        show_default=True,
        help="Whether several points of one QuPath object mark one object together, or one "
        "object each.",
    )
    return points(result_options(command))


def result_options(command: F) -> F:
    """Add the options for outlines that do not depend on how an object is marked."""
    return _decorate(
        command,
        click.option(
            "--object-size",
            "object_size_um",
            type=float,
            metavar="UM",
            help="Approximate size in µm of the objects that points mark.",
        ),
        click.option(
            "--simplify",
            "simplify_um",
            type=float,
            default=OutlineOptions.simplify_um,
            show_default=True,
            metavar="UM",
            help="Simplify outlines; they move by at most this many µm.",
        ),
        click.option(
            "--min-area",
            "min_area_um2",
            type=float,
            default=OutlineOptions.min_area_um2,
            show_default=True,
            metavar="UM2",
            help="Drop parts and fill holes that are smaller than this, in µm².",
        ),
        click.option(
            "--as",
            "object_type",
            type=click.Choice(["detection", "annotation"]),
            default=OutlineOptions.object_type,
            show_default=True,
            help="Type of the resulting QuPath objects.",
        ),
    )


def mpp_option(command: F) -> F:
    """Add the option for the pixel size of the one slide that a command reads."""
    return _decorate(
        command,
        click.option(
            "--mpp",
            type=float,
            help="Pixel size of the slide in µm, if the file states none or a wrong one.",
        ),
    )


def all_objects_option(command: F) -> F:
    """Add the option that takes more than what a person drew as prompts."""
    return _decorate(
        command,
        click.option(
            "--all-objects",
            is_flag=True,
            help="Also take the cells, detections, tiles and TMA cores of PROMPTS as prompts.",
        ),
    )


def remap_option(command: F) -> F:
    """Add the option for slides that were moved since the project was made."""
    return _decorate(
        command,
        click.option(
            "--remap",
            multiple=True,
            type=Remap(),
            metavar="OLD=NEW",
            help="Map an old folder of slides to the one where they are now; may be given several "
            "times. The project keeps its paths.",
        ),
    )


def _decorate(command: F, *options: Callable[[F], F]) -> F:
    """Add options in the order in which --help shows them."""
    for option in reversed(options):
        command = option(command)
    return command
