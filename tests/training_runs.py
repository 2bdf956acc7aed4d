"""A whole training run on tissue by formula, here or in processes of its own."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from training_data import glands, make_export, write_slide
from training_models import PLAIN_VIEWS, TUNED_SAM
from wsisam_qupath.console import stderr_console
from wsisam_qupath_training.assembling import Made
from wsisam_qupath_training.recipes import read_recipe
from wsisam_qupath_training.settings import DecoderSettings, Recipe, one_decoder
from wsisam_qupath_training.train_command import TrainRequest, run_train

SHORT: dict[str, Any] = {"views": 2, "val_views": 1, "validate_every": 2, "sampling": PLAIN_VIEWS}
_STEPS: dict[str, Any] = {"steps": 2, "objects_per_step": 1, "warm_up_steps": 0}


def shortened(settings: DecoderSettings) -> DecoderSettings:
    return settings.model_copy(update=_STEPS)


WHOLE = read_recipe(Path(__file__).parent.parent / "training" / "recipes" / "routed.toml")

ROUTED = WHOLE.model_copy(
    update={
        "decoders": {name: shortened(settings) for name, settings in WHOLE.decoders.items()},
        **SHORT,
    }
)
"""The recipe with two decoders, in two steps."""

ONE_DECODER = one_decoder(shortened(TUNED_SAM), **SHORT)


def export_of(folder: Path, names: tuple[str, ...] = ("a.tif", "b.tif")) -> Path:
    """An export of slides that all show the same three glands."""
    for name in names:
        write_slide(folder / "slides" / name)
    return make_export(
        folder / "export", {name: glands() for name in names}, slides=folder / "slides"
    )


def train(export: Path, out: Path, recipe: Recipe, console: Console) -> Made | None:
    """With the cache of the tests beside the adapter."""
    request = TrainRequest(export, out, recipe=recipe, device="cpu", cache=out.parent / "features")
    return run_train(request, console)


def main(export: str, out: str, environment: Mapping[str, str] = os.environ) -> None:
    """One of the processes that torchrun started; says which, and whether it wrote."""
    made = train(Path(export), Path(out), ONE_DECODER, stderr_console())
    sys.stdout.write(f"rank {environment['RANK']} wrote {made is not None}\n")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
