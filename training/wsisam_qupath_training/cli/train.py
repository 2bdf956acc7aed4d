"""The options of ``train``. Heavy imports stand inside of it, so that ``--help`` is quick."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from wsisam_qupath.cli.options import remap_option

from ..extra import require_extra

F = TypeVar("F", bound=Callable[..., Any])

_PATH = click.Path(path_type=Path)
_DATA = ("split", "slides", "remap", "mpp", "classes", "groups", "group_pattern", "truth")
_ONE_DECODER = ("scope", "architecture", "decoder", "aggregation", "hr_share", "hr_only", "rate")


def data_options(command: F) -> F:
    """The options that say how DATA is read; ``evaluate`` has them too."""
    options = (
        click.option("--class", "classes", multiple=True, metavar="NAME", help="Only this class."),
        click.option(
            "--split", type=_PATH, help="Table with each slide and its part, as train writes one."
        ),
        click.option(
            "--slides", type=_PATH, help="Folder of the slides, where they are not beside."
        ),
        click.option(
            "--mpp", type=float, help="µm per pixel of images that state none or a wrong one."
        ),
        click.option("--groups", type=_PATH, help="Table with each slide and its patient."),
        click.option(
            "--group-pattern", metavar="REGEX", help="Whose first group is the patient, on names."
        ),
        click.option("--truth", metavar="ENDING", help="How names of label masks end."),
    )
    for option in reversed(options):
        command = option(command)
    return remap_option(command)


def take_options(given: dict[str, Any], *, val_share: float) -> Any:
    """What :func:`data_options` brought, taken out of a command's options, as DatasetOptions."""
    from ..sources.reading import DatasetOptions

    return DatasetOptions(**{name: given.pop(name) for name in _DATA}, val_share=val_share)


@click.command("train")
@click.argument("data", type=_PATH)
@click.option("-o", "--output", "out", type=_PATH, required=True, help="Adapter to write.")
@data_options
@click.option(
    "--val-share",
    type=float,
    default=0.15,
    show_default=True,
    metavar="SHARE",
    help="Of the patients, to validate on, where no table says it.",
)
@click.option("--without", multiple=True, metavar="NAME", help="Leave out this dataset.")
@click.option("--recipe", type=_PATH, help="TOML with any settings; see training/README.md.")
@click.option(
    "--init",
    type=_PATH,
    metavar="FILE",
    help="Adapter whose decoder training starts from.  [default: the base's]",
)
@click.option("--steps", type=click.IntRange(min=1), help="Of the optimiser, for each decoder.")
@click.option("--views", type=click.IntRange(min=1), help="Patch pairs that are sampled.")
@click.option("--batch", type=click.IntRange(min=1), help="Prompts in a step.")
@click.option("--seed", type=int, help="Of everything.")
@click.option(
    "--scope",
    type=click.Choice(["adapter", "decoder", "encoder+decoder", "whole"]),
    help="One decoder for all prompts, and what of it learns.  [default: scope decoder, mixed with "
    "the base for boxes]",
)
@click.option("--architecture", type=click.Choice(["sam", "wsi-sam"]), help="Of that decoder.")
@click.option("--decoder", type=click.Choice(["plain", "enhanced"]), help="The same.")
@click.option(
    "--aggregation",
    type=click.Choice(["mean", "max", "concat", "features"]),
    help="Of the HR and LR tokens, or of features instead.",
)
@click.option("--hr-share", type=float, metavar="λ", help="Of the HR loss.")
@click.option("--hr-only", is_flag=True, default=None, help="WSI-SAM without its LR patch.")
@click.option("--rate", type=float, help="Learning rate of what WSI-SAM adds.")
@click.option("--only", metavar="NAME", help="Train this decoder of the recipe and no other.")
@click.option("--run", type=_PATH, help="Folder of checkpoints and logs.  [default: beside it]")
@click.option("--cache", type=_PATH, help="Folder of the encoder's features.")
@click.option(
    "--cache-gb", type=float, default=20.0, show_default=True, help="Room that they may take."
)
@click.option(
    "--base", default="lite-medsam", show_default=True, metavar="NAME", help="To stand on."
)
@click.option("--weights", type=_PATH, metavar="PATH", help="A copy of the base's weights.")
@click.option("--device", default="auto", show_default=True, metavar="NAME", help="To compute on.")
@click.option("--threads", type=click.IntRange(min=1), metavar="N", help="CPU threads.")
@click.option("--licence", default="", metavar="TEXT", help="For the adapter's card.")
def train_command(val_share: float, **given: Any) -> None:
    """Learn an adapter from annotated images DATA.

    DATA is a folder that `wsisam-qupath export` wrote, a QuPath project, slides with GeoJSON
    beside them, images with label masks, CATCH.json, or a collection of such (.toml). A run that
    was stopped goes on where it was. The adapter's path goes to stdout.
    """
    from wsisam_qupath.report.progress import stderr_console

    with require_extra():
        from ..train import TrainRequest, run_train

    recipe_options = {
        name: given.pop(name)
        for name in ("recipe", "steps", "views", "batch", "seed", *_ONE_DECODER)
    }
    options = take_options(given, val_share=val_share)
    request = TrainRequest(options=options, recipe=_recipe(**recipe_options), **given)
    made = run_train(request, stderr_console())
    if made is not None:
        click.echo(made.adapter)


def _recipe(
    *,
    recipe: Path | None,
    steps: int | None,
    views: int | None,
    batch: int | None,
    seed: int | None,
    **one_decoder: Any,
) -> Any:
    from ..recipes import make_single_decoder_recipe, override_recipe, read_recipe
    from ..settings import Recipe

    wanted = {name: value for name, value in one_decoder.items() if value is not None}
    if recipe is not None and wanted:
        first = next(iter(wanted)).replace("_", "-")
        raise click.UsageError(f"--{first} and --recipe both say what learns. Pass one of them.")
    if recipe is not None:
        chosen = read_recipe(recipe)
    else:
        chosen = make_single_decoder_recipe(**wanted) if wanted else Recipe()
    return override_recipe(chosen, steps=steps, views=views, batch=batch, seed=seed)
