"""Draw the three plots of an evaluation; Matplotlib is imported only then."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from wsisam_qupath.files import write_atomically

from ..plotting import encode_figure, make_figure
from .noc import CLICKS_MOST, TARGETS
from .protocol import POINT_COUNTS, points_label
from .results import EvaluationResults
from .summary import correlations, iou_by_click

_DPI = 130


def write_plots(
    folder: Path, results: EvaluationResults, models: Sequence[str]
) -> tuple[Path, ...]:
    """Write plots: Dice by number of points, IoU by click, predicted against true IoU.

    Raises:
        DeviceError: matplotlib is not installed.
        OutputError: the folder cannot be written.
    """
    drawn = {
        "dice-by-points.png": _plot_dice_by_points(results, models),
        "iou-by-click.png": _plot_iou_by_click(results, models),
        "predicted-iou.png": _plot_predicted_iou(results, models),
    }
    written = []
    for name, figure in drawn.items():
        if figure is None:
            continue
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / name, encode_figure(figure, _DPI))
        written.append(folder / name)
    return tuple(written)


def _axes(width: float = 6.0, height: float = 4.5) -> tuple[Any, Any]:
    figure = make_figure(width, height, "plots need")
    return figure, figure.subplots()


def _plot_dice_by_points(results: EvaluationResults, models: Sequence[str]) -> Any:
    figure, axes = _axes()
    for model in models:
        means = {}
        for count in POINT_COUNTS:
            label = points_label(count)
            own = [s.fit.dice for s in results.scores if s.model == model and s.label == label]
            if own:
                means[count] = 100 * fmean(own)
        if not means:
            return None
        axes.plot(list(means), list(means.values()), marker="o", label=model)
    axes.set(xlabel="positive points", ylabel="mean Dice, %", ylim=(0, 100), xticks=POINT_COUNTS)
    axes.legend()
    return figure


def _plot_iou_by_click(results: EvaluationResults, models: Sequence[str]) -> Any:
    figure, axes = _axes()
    for model in models:
        means = [100 * iou for iou in iou_by_click(results, model)]
        if not means:
            return None
        axes.plot(range(1, CLICKS_MOST + 1), means, marker=".", label=model)
    for target in TARGETS:
        axes.axhline(100 * target, linewidth=0.6, color="gray", linestyle=":")
    axes.set(xlabel="clicks", ylabel="mean IoU, %", ylim=(0, 100), xticks=(1, 5, 10, 15, 20))
    axes.legend()
    return figure


def _plot_predicted_iou(results: EvaluationResults, models: Sequence[str]) -> Any:
    figure, axes = _axes(5.5, 5.5)
    for model in models:
        own = [
            (s.predicted_iou, s.fit.iou)
            for s in results.scores
            if s.model == model and s.predicted_iou is not None
        ]
        if not own:
            return None
        r = correlations(results, model)["all prompts"]
        label = model if r is None else f"{model}, r = {r:.2f}"
        axes.scatter([p for p, _ in own], [t for _, t in own], s=6, alpha=0.4, label=label)
    axes.plot([0, 1], [0, 1], linewidth=0.6, color="gray", linestyle=":")
    axes.set(xlabel="predicted IoU", ylabel="true IoU", xlim=(0, 1), ylim=(0, 1))
    axes.legend()
    return figure
