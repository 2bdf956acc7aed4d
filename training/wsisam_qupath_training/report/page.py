"""The report of a training run: one HTML file with its curves, numbers and worst cases."""

from __future__ import annotations

import base64
import io
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wsisam_qupath import __version__
from wsisam_qupath.errors import DeviceError, pip_install
from wsisam_qupath.files import write_atomically
from wsisam_qupath.model.bases import Base
from wsisam_qupath.report.templates import open_template

from ..dataset import PARTS, AnnotatedImage
from ..settings import Recipe
from ..trainer.trained import TrainedDecoder
from ..trainer.validation import plans
from .worst_cases import PICTURE_PX, Case

_DPI = 110
_QUPATH_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_SELECT = """\
def ids = [
IDS
] as Set
def found = getAllObjects(false).findAll { ids.contains(it.getID().toString()) }
selectObjects(found)
println found.size() + ' of the worst cases are in this image, and selected.'
"""
_KINDS = {
    "box": "box",
    "outline": "coarse mask",
    "1_points": "1 point",
    "3_points": "3 points",
    "10_points": "10 points",
    "box_points": "box and point",
}


@dataclass(frozen=True)
class _Told:
    """One decoder as the page tells of it.

    Attributes:
        dices: of the best validation, by kind in words, percent.
        correlation: of the predicted with the true IoU, there.
        steps: that were done.
        waiting: share of the time that the device waited for data; None where no step was done.
        png: its curves.
        settings: by name, in words.
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
    """What one dataset has in one part of the split."""

    dataset: str
    part: str
    images: int
    groups: int
    objects: int


def write_report(
    path: Path,
    recipe: Recipe,
    base: Base,
    images: Sequence[AnnotatedImage],
    trained: Mapping[str, TrainedDecoder],
    cases: Sequence[Case],
    *,
    verdict: Sequence[str],
    folds: int = 1,
) -> None:
    """Write the page, whole or not at all.

    Args:
        images: of all parts, without the datasets that were left out.
        trained: by the decoder's name.
        cases: the worst, in their order.
        verdict: a line for each kind of prompt: is it better than before?
        folds: of a cross-validation; 1 is none.

    Raises:
        DeviceError: matplotlib is not installed.
        OutputError: the page cannot be written.
    """
    page = open_template(__package__, "report.html.j2", base64=_base64).render(
        title=path.name.removesuffix(".report.html"),
        version=__version__,
        base=base.name,
        kinds=_list_kinds(recipe),
        decoders=[_describe_decoder(name, recipe, result) for name, result in trained.items()],
        verdict=verdict,
        folds=folds,
        split=_split(images),
        settings=_words(recipe.model_dump(mode="json", exclude={"decoders"})),
        cases=cases,
        script=_write_script(cases),
        words=_KINDS,
        picture_px=PICTURE_PX,
    )
    write_atomically(path, page.encode("utf-8"))


def _write_script(cases: Sequence[Case]) -> str:
    """Groovy that selects the worst cases in the image that is open; none without QuPath's ids."""
    ids = dict.fromkeys(case.object_id for case in cases if _QUPATH_ID.fullmatch(case.object_id))
    listed = ",\n".join(f"    '{one}'" for one in ids)
    return _SELECT.replace("IDS", listed) if ids else ""


def _list_kinds(recipe: Recipe) -> list[str]:
    """In words, those that any decoder was asked, in the order of the page."""
    asked = {kind for settings in recipe.decoders.values() for kind in plans(settings.mix)}
    return [word for kind, word in _KINDS.items() if kind in asked]


def _describe_decoder(name: str, recipe: Recipe, trained: TrainedDecoder) -> _Told:
    settings, last = recipe.decoders[name], trained.history[-1]
    best = next((row for row in trained.history if row["step"] == trained.best_step), last)
    clock = trained.clock
    return _Told(
        name,
        {word: best[kind] for kind, word in _KINDS.items() if kind in best},
        best["dice"],
        best["iou_correlation"],
        trained.best_step,
        int(last["step"]),
        clock.waiting_share if clock.working else None,
        _curves(trained),
        _words(settings.model_dump(mode="json")),
    )


def _curves(trained: TrainedDecoder) -> bytes:
    """The training loss, and Dice by kind of prompt with a line where the best is; a PNG."""
    try:
        from matplotlib.figure import Figure  # 0.3 s, and without any window
    except ImportError as exc:
        raise DeviceError(
            f"matplotlib is not installed, which the report needs. Run {pip_install('matplotlib')}."
        ) from exc
    rows = trained.history
    steps = [row["step"] for row in rows]
    figure = Figure(figsize=(10, 3.6), layout="constrained")
    loss, dice = figure.subplots(1, 2)
    loss.plot(steps, [row["train_loss"] for row in rows], marker=".")
    loss.set(xlabel="step", ylabel="training loss")
    for kind, word in _KINDS.items():
        if kind in rows[0]:
            dice.plot(steps, [row[kind] for row in rows], marker=".", label=word)
    dice.plot(steps, [row["dice"] for row in rows], color="black", linewidth=2, label="mean")
    dice.axvline(trained.best_step, color="gray", linestyle=":")
    dice.set(xlabel="step", ylabel="validation Dice, %", ylim=(0, 100))
    dice.legend(fontsize=8, loc="lower right")
    encoded = io.BytesIO()
    figure.savefig(encoded, format="png", dpi=_DPI)
    return encoded.getvalue()


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
    """Nested settings as one list: ``mix.box`` and what it is."""
    words: dict[str, str] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping):
            words |= _words(value, f"{prefix}{name}.")
        else:
            words[f"{prefix}{name}"] = value if isinstance(value, str) else json.dumps(value)
    return words


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")
