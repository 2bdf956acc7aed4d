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
    help="Model to compare with: none (the base alone), the path of an adapter, a base model, "
    "BASE+PATH (an adapter on another base), or module:factory (a Python function that returns a "
    "model); may be given several times.",
)
@click.option(
    "--kinds",
    default=_KINDS,
    show_default=True,
    metavar="LIST",
    help="Prompt types to evaluate, comma-separated; noc counts the clicks that an object needs.",
)
@click.option(
    "--part",
    type=click.Choice(["test", "val", "train", "all"]),
    default="test",
    show_default=True,
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
    show_default=True,
    help="'use' chooses the patch of each prompt as the segment command does; 'patch' takes the "
    "window of the WSI-SAM paper, at 10x around each object, and cuts the object at its edge.",
)
@click.option(
    "--scale",
    default="truth",
    show_default=True,
    metavar="truth|median|none|UM",
    help="Object size that comes with points: of the object itself, the median of its class, "
    "none, or a size in µm.",
)
@click.option(
    "--box-noise",
    type=float,
    default=0.05,
    show_default=True,
    metavar="SHARE",
    help="Standard deviation of the position of box edges, as a share of the box's side.",
)
@click.option(
    "--outline-noise",
    type=float,
    default=0.05,
    show_default=True,
    metavar="SHARE",
    help="Standard deviation of the points of coarse outlines, as a share of the square root of "
    "the object's area.",
)
@click.option(
    "--boxes",
    type=_PATH,
    help="Use the boxes of a detector as prompts: MS COCO, GeoJSON, or a folder of GeoJSON files.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Random seed.")
@click.option(
    "--by",
    type=click.Choice(["dataset", "class", "image", "patient"]),
    default="dataset",
    show_default=True,
    help="What the rows of the table stand for.",
)
@click.option("--json", "json_file", type=_PATH, help="Write all results to this JSON file.")
@click.option("--plots", type=_PATH, help="Write plots to this folder.")
@click.option("--figures", type=_PATH, help="Write pictures of results to this folder.")
@click.option(
    "--figures-count",
    type=int,
    default=24,
    show_default=True,
    metavar="N",
    help="Number of objects with a picture; half of them are the worst ones.",
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
    scale: str,
    box_noise: float,
    outline_noise: float,
    seed: int,
    **same: Any,
) -> Any:
    from ..evaluate.command import PAPER_MPP, EvaluateRequest
    from ..evaluate.protocol import ProtocolSettings

    model = take_model(same)
    settings = ProtocolSettings(
        kinds=tuple(kind.strip() for kind in kinds.split(",") if kind.strip()),  # type: ignore[misc]
        box_noise=box_noise,
        outline_noise=outline_noise,
        scale=_scale(scale),
        window_mpp=PAPER_MPP if protocol == "patch" else None,
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
