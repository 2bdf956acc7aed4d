"""The report of a training run: one HTML file with its curves, numbers and worst cases."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wsisam_qupath import __version__
from wsisam_qupath.files import write_atomically
from wsisam_qupath.model.bases import Base
from wsisam_qupath.report.templates import open_template

from ..dataset import PARTS, AnnotatedImage
from ..plotting import encode_figure, make_figure
from ..settings import Recipe
from ..trainer.trained import TrainedDecoder
from ..trainer.validation import plans
from .changes import Change
from .learning_curve import LearningCurve
from .qupath_script import write_qupath_script
from .words import KINDS
from .worst_cases import PICTURE_PX, Case


@dataclass(frozen=True)
class _Told:
    """One decoder as the page describes it.

    Attributes:
        dices: Dice of the best validation by kind of prompt in words, percent.
        correlation: correlation of predicted and true IoU in that validation.
        steps: number of steps that were done.
        waiting: share of the time that the device waited for data; None where no step was done.
        png: picture of the decoder's curves.
        settings: settings by name, in words.
    """

    name: str
    dices: Mapping[str, float]
    dice: float
    correlation: float
    best_step: int
    steps: int
    waiting: float | None
    png: bytes
    settings: Mapping[str, str]


@dataclass(frozen=True)
class _Share:
    """The objects and images of one dataset in one part of the split."""

    dataset: str
    part: str
    images: int
    groups: int
    objects: int


@dataclass(frozen=True)
class Findings:
    """Results of a training that are known once it is over.

    Attributes:
        cases: the worst cases, the worst first.
        verdict: a line for each kind of prompt that says whether it is better than before.
        changes: the objects that training changed most.
        folds: number of folds of a cross-validation; 1 is none.
        curves: learning curves, each with its picture, a PNG.
    """

    cases: tuple[Case, ...] = ()
    verdict: tuple[str, ...] = ()
    changes: tuple[Change, ...] = ()
    folds: int = 1
    curves: tuple[tuple[LearningCurve, bytes], ...] = ()


def write_report(
    path: Path,
    recipe: Recipe,
    base: Base,
    images: Sequence[AnnotatedImage],
    trained: Mapping[str, TrainedDecoder],
    findings: Findings,
) -> None:
    """Write the page, completely or not at all.

    Args:
        images: images of all parts, without the datasets that were left out.
        trained: trained decoders by name.

    Raises:
        DeviceError: matplotlib is not installed.
        OutputError: the page cannot be written.
    """
    title = path.name.removesuffix(".report.html")
    page = open_template(__package__, "report.html.j2", base64=_base64).render(
        title=title,
        version=__version__,
        base=base.name,
        kinds=_list_kinds(recipe),
        decoders=[_describe_decoder(name, recipe, result) for name, result in trained.items()],
        found=findings,
        split=_split(images),
        settings=_words(recipe.model_dump(mode="json", exclude={"decoders"})),
        script=write_qupath_script(findings.cases),
        words=KINDS,
        picture_px=PICTURE_PX,
    )
    write_atomically(path, page.encode("utf-8"))


def _list_kinds(recipe: Recipe) -> list[str]:
    """List in words the kinds of prompts that any decoder was asked, in the order of the page."""
    asked = {kind for settings in recipe.decoders.values() for kind in plans(settings.mix)}
    return [word for kind, word in KINDS.items() if kind in asked]


def _describe_decoder(name: str, recipe: Recipe, trained: TrainedDecoder) -> _Told:
    settings, last = recipe.decoders[name], trained.history[-1]
    best = next((row for row in trained.history if row["step"] == trained.best_step), last)
    clock = trained.clock
    return _Told(
        name,
        {word: best[kind] for kind, word in KINDS.items() if kind in best},
        best["dice"],
        best["iou_correlation"],
        trained.best_step,
        int(last["step"]),
        clock.waiting_share if clock.working else None,
        _curves(trained),
        _words(settings.model_dump(mode="json")),
    )


def _curves(trained: TrainedDecoder) -> bytes:
    """Draw the training loss, and Dice by kind of prompt with a line at the best step; a PNG."""
    rows = trained.history
    steps = [row["step"] for row in rows]
    figure = make_figure(10, 3.6, "the report needs")
    loss, dice = figure.subplots(1, 2)
    loss.plot(steps, [row["train_loss"] for row in rows], marker=".")
    loss.set(xlabel="step", ylabel="training loss")
    for kind, word in KINDS.items():
        if kind in rows[0]:
            dice.plot(steps, [row[kind] for row in rows], marker=".", label=word)
    dice.plot(steps, [row["dice"] for row in rows], color="black", linewidth=2, label="mean")
    dice.axvline(trained.best_step, color="gray", linestyle=":")
    dice.set(xlabel="step", ylabel="validation Dice, %", ylim=(0, 100))
    dice.legend(fontsize=8, loc="lower right")
    return encode_figure(figure)


def _split(images: Sequence[AnnotatedImage]) -> list[_Share]:
    shares = []
    for dataset in sorted({image.dataset for image in images}):
        for part in PARTS:
            own = [f for f in images if f.dataset == dataset and (f.part or "train") == part]
            if own:
                groups = len({image.group for image in own})
                objects = sum(len(image.truths) for image in own)
                shares.append(_Share(dataset, part, len(own), groups, objects))
    return shares


def _words(settings: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Flatten nested settings into one list, such as ``mix.box`` with its value."""
    words: dict[str, str] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping):
            words |= _words(value, f"{prefix}{name}.")
        else:
            words[f"{prefix}{name}"] = value if isinstance(value, str) else json.dumps(value)
    return words


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")
