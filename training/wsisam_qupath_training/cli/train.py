"""The ``train`` command."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from wsisam_qupath.cli.options import parse_adapter, remap_option
from wsisam_qupath.options import DEFAULT_BASE, MOST_RANK, ModelSpec

from ..extra import require_extra

F = TypeVar("F", bound=Callable[..., Any])

_PATH = click.Path(path_type=Path)
_DATA = ("split", "slides", "remap", "mpp", "classes", "groups", "group_pattern", "truth")
_ONE_DECODER = ("scope", "architecture", "decoder", "aggregation", "hr_share", "hr_only", "rate")


def data_options(command: F) -> F:
    """Add the options that say how DATA is read; ``evaluate`` has them too."""
    options = (
        click.option(
            "--class",
            "classes",
            multiple=True,
            metavar="NAME",
            help="Use only objects of this class; may be given several times.",
        ),
        click.option(
            "--split",
            type=_PATH,
            help="Table that names the part of each slide: train, val or test. train writes "
            "such a table.",
        ),
        click.option(
            "--slides", type=_PATH, help="Folder of the slides, if they are not beside DATA."
        ),
        click.option(
            "--mpp",
            type=float,
            help="Pixel size in µm, for images that state none or a wrong one.",
        ),
        click.option("--groups", type=_PATH, help="Table that names the patient of each slide."),
        click.option(
            "--group-pattern",
            metavar="REGEX",
            help="Regular expression for slide names; its first group is the patient id.",
        ),
        click.option(
            "--truth",
            metavar="ENDING",
            help="Ending of the file names of label masks.  [default: _instances.png]",
        ),
    )
    for option in reversed(options):
        command = option(command)
    return remap_option(command)


def take_options(given: dict[str, Any], *, val_share: float) -> Any:
    """Take what :func:`data_options` brought out of a command's options."""
    from ..sources.reading import DatasetOptions

    return DatasetOptions(**{name: given.pop(name) for name in _DATA}, val_share=val_share)


@click.command("train")
@click.argument("data", type=_PATH)
@click.option(
    "-o",
    "--output",
    "out",
    type=_PATH,
    required=True,
    help="Adapter file to write (.safetensors).",
)
@data_options
@click.option(
    "--val-share",
    type=float,
    default=0.15,
    metavar="SHARE",
    help="Share of the patients that are not trained on but judge the result, if no table says "
    "which.",
)
@click.option(
    "--without",
    multiple=True,
    metavar="NAME",
    help="Do not train on this dataset of a collection; may be given several times.",
)
@click.option(
    "--recipe",
    type=_PATH,
    help="File with all settings of a training (TOML), or the name of one that comes with this "
    "program; other options override it.",
)
@click.option(
    "--init",
    type=parse_adapter,
    metavar="default|none|FILE",
    help="Adapter that training starts from: 'default' is the one that ships for the base, 'none' "
    "is the bare base.  [default: 'default', or 'none' where a recipe or a network is named]",
)
@click.option(
    "--steps",
    type=click.IntRange(min=1),
    metavar="N",
    help="Number of training steps of each decoder.",
)
@click.option(
    "--views",
    type=click.IntRange(min=1),
    metavar="N",
    help="Number of views of the tissue to train on: pairs of patches at two magnifications.",
)
@click.option(
    "--batch", type=click.IntRange(min=1), metavar="N", help="Number of prompts in each step."
)
@click.option(
    "--minutes",
    type=click.FloatRange(min=0, min_open=True),
    metavar="N",
    help="Shorten the training so that the command takes about N minutes on this computer, "
    "measured before it starts.  [default: as long as the annotations are worth]",
)
@click.option("--seed", type=int, help="Random seed for splitting, sampling and training.")
@click.option(
    "--scope",
    type=click.Choice(["adapter", "mask-decoder", "decoder", "encoder+decoder", "whole"]),
    help="Parts of the network to train; without a recipe, one decoder then answers all kinds of "
    "prompts.  [default: a decoder, mixed with the base model for boxes]",
)
@click.option(
    "--architecture",
    type=click.Choice(["sam", "wsi-sam"]),
    help="Decoder architecture: SAM's or WSI-SAM's.",
)
@click.option(
    "--decoder",
    type=click.Choice(["plain", "enhanced"]),
    help="Decoder variant: SAM's own, or 'enhanced'.",
)
@click.option(
    "--aggregation",
    type=click.Choice(["mean", "max", "concat", "features"]),
    help="How WSI-SAM combines the tokens of the HR and LR patch, or their features.",
)
@click.option(
    "--hr-share",
    type=float,
    metavar="λ",
    help="Weight λ of the HR loss; the LR loss gets 1 - λ.",
)
@click.option("--hr-only", is_flag=True, default=None, help="Train WSI-SAM without its LR patch.")
@click.option("--rate", type=float, help="Learning rate of the parts that WSI-SAM adds.")
@click.option(
    "--lora",
    "lora_rank",
    type=click.IntRange(1, MOST_RANK),
    metavar="RANK",
    help="Tune the second half of the image encoder too, with two narrow matrices of this rank "
    "beside each of its layers (LoRA); without a recipe, one decoder then answers all kinds of "
    "prompts.",
)
@click.option("--only", metavar="NAME", help="Train only this decoder of the recipe.")
@click.option(
    "--run",
    type=_PATH,
    help="Folder for checkpoints and logs.  [default: one beside the adapter]",
)
@click.option(
    "--cache",
    type=_PATH,
    help="Folder for cached encoder features.  [default: one in the user's cache folder]",
)
@click.option(
    "--cache-gb",
    type=float,
    default=20.0,
    help="Largest size of the cached features, GiB; where all do not fit, fewer views are used.",
)
@click.option(
    "--base",
    default=DEFAULT_BASE,
    metavar="NAME",
    help="Base model the adapter is trained on.",
)
@click.option(
    "--weights",
    type=_PATH,
    metavar="PATH",
    help="File with the weights of the base model, instead of the installed or downloaded one.",
)
@click.option(
    "--device",
    default="auto",
    metavar="NAME",
    help="Device to train on: auto, cpu, cuda, cuda:1 … or mps.",
)
@click.option(
    "--threads",
    type=click.IntRange(min=1),
    metavar="N",
    help="Number of CPU threads.  [default: one per core]",
)
@click.option(
    "--licence",
    default="",
    show_default=False,
    metavar="TEXT",
    help="License and source of the training data, for the adapter's card.",
)
@click.option(
    "--learning-curve",
    is_flag=True,
    help="Tell whether annotating more is worth it: train on 1, 3, 10, 30 … of the annotated "
    "objects too, after all else. How long that takes is said before it starts.",
)
@click.option(
    "--plan",
    "is_plan",
    is_flag=True,
    help="Tell what would be read, and the disk, memory and time that it takes here; do not train.",
)
def train_command(val_share: float, is_plan: bool, **given: Any) -> None:
    """Train an adapter on annotated images DATA.

    DATA is a folder that `wsisam-qupath export` wrote, a QuPath project, slides with GeoJSON
    beside them, images with label masks, CATCH.json (MS COCO), or a collection of several such
    (.toml). A run that was interrupted continues where it stopped when the command is given again.
    The path of the adapter is printed at the end.
    """
    from wsisam_qupath.report.progress import stderr_console

    # Read when PyTorch is loaded. Threads that wait in a loop take the core of the one that they
    # wait for, where another program runs beside.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    with require_extra():
        from ..run.command import run_plan, run_train
        from ..run.request import TrainRequest

    options = take_options(given, val_share=val_share)
    numbers = {name: given.pop(name) for name in ("steps", "views", "batch", "seed")}
    lora_rank = given.pop("lora_rank")
    one_decoder = {name: given.pop(name) for name in _ONE_DECODER}
    recipe = _recipe(given.pop("recipe"), one_decoder, lora_rank)
    init: Path | str = given.pop("init") or ("default" if recipe is None else "none")
    model = ModelSpec(
        given.pop("base"),
        adapter=None if init == "none" else init,  # type: ignore[arg-type]
        weights=given.pop("weights"),
        device=given.pop("device"),
        threads=given.pop("threads"),
        precision="bf16",  # what is learned must not depend on the chip
    )
    wanted = {name: value for name, value in numbers.items() if value is not None}
    request = TrainRequest(
        options=options,
        recipe=recipe,
        numbers=wanted,
        lora_rank=lora_rank or 0,
        model=model,
        **given,
    )
    if is_plan:
        click.echo(run_plan(request, stderr_console()))
        return
    made = run_train(request, stderr_console())
    if made is not None:
        click.echo(made.adapter)


def _recipe(path: Path | None, one_decoder: dict[str, Any], lora_rank: int | None) -> Any:
    """The recipe that options ask for; None where they leave the choice to the data."""
    from ..recipes import make_single_decoder_recipe, override_decoders, read_recipe

    wanted = {name: value for name, value in one_decoder.items() if value is not None}
    if path is not None:
        return override_decoders(read_recipe(path), **wanted, lora_rank=lora_rank)
    return make_single_decoder_recipe(**wanted, lora_rank=lora_rank) if wanted else None
