"""Options that several commands share."""

from __future__ import annotations

import math
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


def numbers(form: str) -> Callable[[str], tuple[float, ...]]:
    """Make a parser of finite numbers in a form such as "x,y"."""

    def parse(text: str) -> tuple[float, ...]:
        try:
            found = tuple(float(part) for part in text.split(","))
        except ValueError:
            found = ()
        if len(found) != form.count(",") + 1 or not all(map(math.isfinite, found)):
            raise click.BadParameter(f"{text!r} is not of the form {form}, in level-0 pixels")
        return found

    return parse


def parse_adapter(text: str) -> Path | str:
    """Parse the choice of an adapter: "default", "none" or a file."""
    return text if text in {"default", "none"} else Path(text)


def parse_remap(text: str) -> tuple[str, str]:
    """Parse a path prefix and its replacement: "OLD=NEW"."""
    old, equals, new = text.partition("=")
    if not (equals and old and new):
        raise click.BadParameter(f"{text!r} is not of the form OLD=NEW")
    return old, new


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
            metavar="NAME",
            help=f"Base model: {', '.join(BASES)}.",
        ),
        click.option(
            "--adapter",
            type=parse_adapter,
            multiple=several,
            default=["default"] if several else "default",
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
            metavar="NAME",
            help="Device to compute on: auto, cpu, cuda, cuda:1 … or mps.",
        ),
        click.option(
            "--backend",
            default="auto",
            metavar="NAME",
            help="Library that runs the model: auto, torch or openvino.",
        ),
        click.option(
            "--precision",
            default=ModelSpec.precision,
            metavar="NAME",
            help="Numbers that the encoder computes with: auto, int8, bf16 or f32. 'auto' is int8 "
            "on a CPU that gains by it (VNNI without AMX, on Linux), else bf16, which is f32 where "
            "the device has no bf16.",
        ),
        click.option(
            "--embeddings-gb",
            type=click.FloatRange(0),
            default=ModelSpec.embeddings_gb,
            metavar="GB",
            envvar="WSISAM_QUPATH_EMBEDDINGS_GB",
            show_envvar=True,
            help="Keep encoded patches in the cache folder, at most this many GB: the same place "
            "of a slide is then answered without encoding it again, also with another adapter that "
            "has the same image encoder.",
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


def outline_options(command: F) -> F:
    """Add the options that decide how prompts become outlines; see :func:`take_outline`."""
    points = click.option(
        "--points",
        "points_as",
        type=click.Choice(["together", "each"]),
        default=OutlineOptions.points_as,
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
            metavar="UM",
            help="Simplify outlines; they move by at most this many µm.",
        ),
        click.option(
            "--min-area",
            "min_area_um2",
            type=float,
            default=OutlineOptions.min_area_um2,
            metavar="UM2",
            help="Drop parts and fill holes that are smaller than this, in µm².",
        ),
        click.option(
            "--as",
            "object_type",
            type=click.Choice(["detection", "annotation"]),
            default=OutlineOptions.object_type,
            help="Type of the resulting QuPath objects.",
        ),
    )


mpp_option = click.option(
    "--mpp",
    type=float,
    help="Pixel size of the slide in µm, if the file states none or a wrong one.",
)
stated_mpp_option = click.option(
    "--mpp", type=float, help="Pixel size in µm of slides that state none."
)
images_option = click.option(
    "--images",
    multiple=True,
    metavar="GLOB|ID",
    help="Only images with this QuPath id or name, in which * stands for any text and ? for one "
    "character; may be given several times.  [default: all]",
)
all_objects_option = click.option(
    "--all-objects",
    is_flag=True,
    help="Also take the cells, detections, tiles and TMA cores of PROMPTS as prompts.",
)
remap_option = click.option(
    "--remap",
    multiple=True,
    type=parse_remap,
    metavar="OLD=NEW",
    help="Map an old folder of slides to the one where they are now; may be given several times. "
    "The project keeps its paths.",
)


def _decorate(command: F, *options: Callable[[F], F]) -> F:
    """Add options in the order in which --help shows them."""
    for option in reversed(options):
        command = option(command)
    return command
