"""The options of ``evaluate``. Heavy imports stand inside of it, so that ``--help`` is quick."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from wsisam_qupath.cli.options import model_options

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
    help="Another model beside --adapter: none, an adapter's path, a base, BASE+PATH, or "
    "module:factory. May be given several times.",
)
@click.option("--kinds", default=_KINDS, show_default=True, metavar="LIST", help="What is asked.")
@click.option(
    "--part",
    type=click.Choice(["test", "val", "train", "all"]),
    default="test",
    show_default=True,
    help="Of the split; all of the data where it has none.",
)
@click.option("--dataset", "datasets", multiple=True, metavar="NAME", help="Only this one.")
@data_options
@click.option("--limit", type=int, metavar="N", help="Objects of each dataset, at most.")
@click.option(
    "--protocol",
    type=click.Choice(["use", "patch"]),
    default="use",
    show_default=True,
    help="use plans a patch for each prompt, as segment does; patch is the paper's window of 10x "
    "round each object, which is cut off at its edge.",
)
@click.option(
    "--scale",
    default="truth",
    show_default=True,
    metavar="truth|median|none|UM",
    help="What points are told of the object's size: its own, its class's median, nothing, or µm.",
)
@click.option(
    "--box-noise",
    type=float,
    default=0.05,
    show_default=True,
    metavar="SHARE",
    help="Standard deviation of a box's edges, of its sides.",
)
@click.option(
    "--outline-noise",
    type=float,
    default=0.05,
    show_default=True,
    metavar="SHARE",
    help="Standard deviation of a coarse outline, of the root of the object's area.",
)
@click.option("--boxes", type=_PATH, help="Boxes of another model: COCO, GeoJSON, or a folder.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of all noise.")
@click.option(
    "--by",
    type=click.Choice(["dataset", "class", "image", "patient"]),
    default="dataset",
    show_default=True,
    help="What gets a table of its own.",
)
@click.option("--json", "json_file", type=_PATH, help="Every number, for programs.")
@click.option("--plots", type=_PATH, help="Folder for plots.")
@click.option("--figures", type=_PATH, help="Folder for pictures of the answers.")
@click.option(
    "--figures-count",
    type=int,
    default=24,
    show_default=True,
    metavar="N",
    help="Objects with a picture, half of them the worst.",
)
@click.option("--threads", type=int, metavar="N", help="CPU threads; all without it.")
@model_options
def evaluate_command(data: Path, **given: Any) -> None:
    """Measure models on annotated images DATA: Dice by kind of prompt, and clicks that it takes.

    DATA is what `train` takes. The table goes to stdout.
    """
    from wsisam_qupath.report.progress import stderr_console

    with require_extra():
        from ..evaluate.command import run_evaluate
        from ..sources.reading import read_dataset

    # A user's own annotations: nothing of them was trained on.
    options = take_options(given, val_share=0.0)
    request = _request(**given)
    dataset = read_dataset(data, options=options).dataset
    evaluation = run_evaluate(dataset, request, stderr_console())
    click.echo(evaluation.table, nl=False)
    sys.stdout.flush()


def _request(
    *,
    compare: tuple[str, ...],
    adapter: str,
    base: str,
    weights: Path | None,
    device: str,
    backend: str,
    threads: int | None,
    kinds: str,
    protocol: str,
    scale: str,
    box_noise: float,
    outline_noise: float,
    seed: int,
    **same: Any,
) -> Any:
    from ..evaluate.command import PAPER_MPP, EvaluateRequest
    from ..evaluate.models import Loading
    from ..evaluate.protocol import ProtocolSettings

    settings = ProtocolSettings(
        kinds=tuple(kind.strip() for kind in kinds.split(",") if kind.strip()),  # type: ignore[misc]
        box_noise=box_noise,
        outline_noise=outline_noise,
        scale=_scale(scale),
        window_mpp=PAPER_MPP if protocol == "patch" else None,
        seed=seed,
    )
    return EvaluateRequest(
        models=_models(adapter, compare),
        settings=settings,
        loading=Loading(base, weights, device, backend, threads),
        **same,
    )


def _models(adapter: str, compare: tuple[str, ...]) -> tuple[str, ...]:
    """The base alone is what the others are compared with, and --adapter what is asked about."""
    specs = dict.fromkeys((*compare, adapter))
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
