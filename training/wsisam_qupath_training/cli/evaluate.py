"""The ``evaluate`` command."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from wsisam_qupath.cli.options import model_options, take_model
from wsisam_qupath.options import AdapterChoice

from ..extra import require_extra
from .train import data_options, take_options

F = TypeVar("F", bound=Callable[..., Any])

_KINDS = "box,points,box+points,outline,noc"
_PATH = click.Path(path_type=Path)


@click.command("evaluate")
@click.argument("data", type=_PATH)
@click.option(
    "--compare",
    multiple=True,
    metavar="MODEL",
    help="Model to compare with: none (the base alone), default (the adapter that ships for the "
    "base), the path of an adapter, a base model, BASE+PATH (an adapter on another base), or "
    "module:factory (a Python function that returns a model); may be given several times.",
)
@click.option(
    "--kinds",
    default=_KINDS,
    metavar="LIST",
    help="Prompt types to evaluate, comma-separated; noc counts the clicks that an object needs.",
)
@click.option(
    "--part",
    type=click.Choice(["test", "val", "train", "all"]),
    default="test",
    help="Part of the split to evaluate on; all data if there is no split.",
)
@click.option(
    "--dataset",
    "datasets",
    multiple=True,
    metavar="NAME",
    help="Evaluate only this dataset of a collection; may be given several times.",
)
@data_options
@click.option(
    "--limit", type=int, metavar="N", help="Evaluate at most this many objects per dataset."
)
@click.option(
    "--protocol",
    type=click.Choice(["use", "patch"]),
    default="use",
    help="'use' answers as the segment command does; 'patch' asks on fixed windows, as the WSI-SAM "
    "paper does at 10x, and cuts objects at their edges.",
)
@click.option(
    "--window-mpp",
    type=float,
    metavar="UM",
    help="Pixel size of the windows of '--protocol patch', µm: 1 is 10x, 2 is 5x.  [default: 1]",
)
@click.option(
    "--scale",
    default="none",
    metavar="truth|median|none|UM",
    help="Object size that comes with points: none, as in a click in QuPath, the true size of the "
    "object, the median of its class, or a size in µm.",
)
@click.option(
    "--second-pass",
    type=click.Choice(["on", "off"]),
    default="on",
    help="Whether adapters that refine their first answer do so.",
)
@click.option(
    "--slide-classes",
    type=_PATH,
    metavar="TABLE",
    help="Table with the class of all objects of each slide, such as the subtype of its tumor.",
)
@click.option(
    "--box-noise",
    type=float,
    default=0.05,
    metavar="SHARE",
    help="How far the edges of a box are off, as drawn by hand: standard deviation, as a share "
    "of the box's side.",
)
@click.option(
    "--outline-noise",
    type=float,
    default=0.05,
    metavar="SHARE",
    help="How far a coarse outline is off: standard deviation, as a share of the square root of "
    "the object's area.",
)
@click.option(
    "--boxes",
    type=_PATH,
    help="Use the boxes of a detector as prompts: MS COCO, GeoJSON, or a folder of GeoJSON files.",
)
@click.option("--seed", type=int, default=0, help="Random seed of the prompts.")
@click.option(
    "--by",
    type=click.Choice(["dataset", "class", "image", "patient"]),
    default="dataset",
    help="What the rows of the table stand for.",
)
@click.option("--json", "json_file", type=_PATH, help="Write all results to this JSON file.")
@click.option("--plots", type=_PATH, help="Write plots to this folder.")
@click.option(
    "--figures",
    type=_PATH,
    help="Write pictures of results to this folder; images that were measured before a stop are "
    "measured again for them.",
)
@click.option(
    "--figures-count",
    type=int,
    default=24,
    metavar="N",
    help="Number of objects with a picture; half of them are the worst ones.",
)
@click.option(
    "--resume/--no-resume",
    default=True,
    help="Go on where an evaluation of the same images, models and options was stopped.",
)
@click.option(
    "--threads", type=int, metavar="N", help="Number of CPU threads.  [default: one per core]"
)
@model_options
def evaluate_command(data: Path, **given: Any) -> None:
    """Evaluate models on annotated images DATA.

    Measures the Dice score for each type of prompt, and the number of clicks that an object needs.
    DATA is of the same forms as for `train`. The table goes to standard output.
    """
    from wsisam_qupath.report.progress import show_progress, stderr_console

    with require_extra():
        from ..evaluate.command import run_evaluate
        from ..sources.reading import read_dataset

    # Without a split, no image was trained on: all of them are for the test.
    options = take_options(given, val_share=0.0)
    request = _request(**given)
    console = stderr_console()
    with show_progress(console, "Reading annotations"):
        dataset = read_dataset(data, options=options).dataset
    evaluation = run_evaluate(dataset, request, console)
    click.echo(evaluation.table, nl=False)
    sys.stdout.flush()


def _request(
    *,
    compare: tuple[str, ...],
    kinds: str,
    protocol: str,
    window_mpp: float | None,
    scale: str,
    second_pass: str,
    box_noise: float,
    outline_noise: float,
    seed: int,
    **same: Any,
) -> Any:
    from ..evaluate.command import EvaluateRequest
    from ..evaluate.protocol import ProtocolSettings

    model = take_model(same)
    settings = ProtocolSettings(
        kinds=tuple(kind.strip() for kind in kinds.split(",") if kind.strip()),  # type: ignore[misc]
        box_noise=box_noise,
        outline_noise=outline_noise,
        scale=_scale(scale),
        window_mpp=_window_mpp(protocol, window_mpp),
        second_pass=second_pass == "on",
        seed=seed,
    )
    return EvaluateRequest(
        models=_models(model.adapter, compare),
        settings=settings,
        model=model,
        **same,
    )


def _models(adapter: AdapterChoice, compare: tuple[str, ...]) -> tuple[str, ...]:
    """The models to compare, the base alone first and that of --adapter last."""
    specs = dict.fromkeys((*compare, "none" if adapter is None else str(adapter)))
    return tuple(sorted(specs, key=lambda spec: spec != "none"))


def _window_mpp(protocol: str, given: float | None) -> float | None:
    from ..evaluate.command import PAPER_MPP

    if protocol == "patch":
        return PAPER_MPP if given is None else given
    if given is not None:
        raise click.BadParameter("it goes with --protocol patch", param_hint="--window-mpp")
    return None


def _scale(text: str) -> Any:
    if text in {"truth", "median"}:
        return text
    if text == "none":
        return None
    try:
        return float(text)
    except ValueError as exc:
        raise click.BadParameter(
            f"{text!r} is not truth, median, none or a size in µm", param_hint="--scale"
        ) from exc
