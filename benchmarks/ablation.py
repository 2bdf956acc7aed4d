"""Train the rows of WSI-SAM's tables 3a to 3c on one folder, and measure them in one table.

``python benchmarks/ablation.py CATCH.json rows/ --slides CATCH/ --split datasets.csv``

Every row is one ``train`` command with ``training/recipes/paper.toml`` and at most one option that
overrides it; the commands are printed. All rows see the same views and prompts, which are encoded
once. A row that is there already is not trained again. The table is that of ``evaluate``, on the
10x windows of the paper; where DATA has no test part, ask for another with ``--part``.
"""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from wsisam_qupath_training.cli.train import data_options

RECIPE = Path(__file__).parents[1] / "training" / "recipes" / "paper.toml"

ROWS: Mapping[str, tuple[str, ...]] = {
    "wsi-sam": (),  # 3a mean, 3b tokens, 3c 0.5
    "3a-max": ("--aggregation", "max"),
    "3a-concat": ("--aggregation", "concat"),
    "3b-features": ("--aggregation", "features"),
    "3c-0": ("--hr-share", "0"),
    "3c-0.25": ("--hr-share", "0.25"),
    "3c-0.75": ("--hr-share", "0.75"),
    "3c-1": ("--hr-share", "1"),
    "sam-mask-decoder": ("--architecture", "sam", "--scope", "mask-decoder"),  # table 1
}

_PATH = click.Path(path_type=Path)
_TRAIN_ONLY = ("recipe", "steps", "views", "val_share", "cache", "base", "threads")


@click.command()
@click.argument("data", type=_PATH)
@click.argument("out", type=_PATH)
@data_options
@click.option("--rows", default=",".join(ROWS), show_default=True, help="Rows, comma-separated.")
@click.option("--recipe", type=_PATH, default=RECIPE, help="Recipe that the rows have in common.")
@click.option("--steps", type=int, help="Optimizer steps of each row, in place of the recipe's.")
@click.option("--views", type=int, help="Patch pairs, in place of the recipe's.")
@click.option("--val-share", type=float, help="See train.")
@click.option("--cache", type=_PATH, help="See train.")
@click.option("--base", default="mobile-sam", show_default=True, help="Base model.")
@click.option("--threads", type=int, help="Number of CPU threads.")
@click.option("--part", default="test", show_default=True, help="Part of the split to measure on.")
@click.option("--limit", type=int, help="Measure at most this many objects.")
def main(data: Path, out: Path, rows: str, part: str, limit: int | None, **given: Any) -> None:
    """Train the rows of tables 3a to 3c on DATA into the folder OUT, and measure them."""
    chosen = {name: ROWS[name] for name in rows.split(",")}
    reading = {name: value for name, value in given.items() if name not in _TRAIN_ONLY}
    out.mkdir(parents=True, exist_ok=True)
    adapters = {name: out / f"{name}.safetensors" for name in chosen}
    for name, options in chosen.items():
        if not adapters[name].is_file():
            run("train", str(data), "-o", str(adapters[name]), *spell(given), *options)
    split = next(iter(adapters.values())).with_suffix(".split.tsv")
    measured = spell(reading | {"split": split, "part": part, "limit": limit})
    measured += spell({"base": given["base"], "threads": given["threads"]})
    compared = [word for path in adapters.values() for word in ("--compare", str(path))]
    protocol = ("--protocol", "patch", "--kinds", "box,points", "--adapter", "none")
    run("evaluate", str(data), *measured, *protocol, *compared)


def spell(options: Mapping[str, Any]) -> list[str]:
    """Options as they are written on the command line; those that are not given left out."""
    words: list[str] = []
    for name, value in options.items():
        flag = f"--{'class' if name == 'classes' else name.replace('_', '-')}"
        if isinstance(value, tuple):  # may be given several times; --remap is one word
            words += [word for one in value for word in (flag, _spell_value(one))]
        elif value is not None:
            words += [flag, str(value)]
    return words


def _spell_value(value: Any) -> str:
    return "=".join(value) if isinstance(value, tuple) else str(value)


def run(*words: str) -> None:
    """Run a command of this program, and print it."""
    command = [sys.executable, "-m", "wsisam_qupath", *words]
    click.echo(f"$ wsisam-qupath {shlex.join(words)}", err=True)
    done = subprocess.run(command, check=False)
    if done.returncode:
        sys.exit(done.returncode)


if __name__ == "__main__":
    main()
