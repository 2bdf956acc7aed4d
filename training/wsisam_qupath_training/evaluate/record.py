"""An evaluation as JSON: every number, and everything that it depends on."""

from __future__ import annotations

import math
import os
import platform
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from wsisam_qupath import __version__

from ..dataset import AnnotatedImage
from .noc import CLICKS_MOST, PROBABILITY, TARGETS
from .results import ClickScore, EvaluationResults, Score
from .summary import BYS, calibration_errors, correlations, iou_by_click, seconds, summarize

_LIBRARIES = ("numpy", "shapely", "scipy", "torch", "openvino")


def make_record(
    results: EvaluationResults,
    models: Sequence[Mapping[str, object]],
    settings: Mapping[str, object],
    images: Sequence[AnnotatedImage],
) -> dict[str, Any]:
    """Make the record of a whole evaluation, ready for JSON.

    Args:
        models: description of each model; see :func:`.describe_model`.
        settings: how the models were asked.
        images: the images that were measured.
    """
    names = [str(model["name"]) for model in models]
    return {
        "format": 2,
        "version": __version__,
        "libraries": _libraries(),
        "hardware": hardware(),
        "settings": dict(settings),
        "clicker": {"most": CLICKS_MOST, "targets": TARGETS, "probability": PROBABILITY},
        "models": [
            {
                **model,
                "predicted_iou_r": correlations(results, name),
                "predicted_iou_error": calibration_errors(results, name),
                "median_seconds": seconds(results, name),
                "mean_iou_by_click": iou_by_click(results, name),
            }
            for model, name in zip(models, names, strict=True)
        ],
        "split": _split(images),
        "summary": {by: [asdict(block) for block in summarize(results, names, by)] for by in BYS},
        "answers": [_answer(score) for score in results.scores],
        "clicks": [_clicks(score) for score in results.clicks],
        "skipped": [asdict(case) for case in results.skipped],
        "spare_boxes": results.spare_boxes,
    }


def hardware() -> dict[str, object]:
    """Describe the computer that the evaluation ran on."""
    return {
        "system": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
    }


def _processor() -> str:
    """Name the processor's brand where the system knows it; Python often says only "x86_64"."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    brands = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(brands, "") or platform.processor() or platform.machine()


def _libraries() -> dict[str, str]:
    found = {}
    for name in _LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _split(images: Sequence[AnnotatedImage]) -> list[dict[str, object]]:
    """List the measured patients by dataset and part."""
    counts = Counter((image.dataset, image.part, image.group) for image in images)
    return [
        {"dataset": dataset, "part": part, "group": group, "images": count}
        for (dataset, part, group), count in counts.items()
    ]


def _answer(score: Score) -> dict[str, object]:
    return {
        **asdict(score.object_key),
        "model": score.model,
        "prompt": score.label,
        **{name: round(value, 5) for name, value in asdict(score.fit).items()},
        "best_dice": None if score.best_fit is None else round(score.best_fit.dice, 5),
        "predicted_iou": _drop_nonfinite(score.predicted_iou),
    }


def _clicks(score: ClickScore) -> dict[str, object]:
    run = score.run
    return {
        **asdict(score.object_key),
        "model": score.model,
        "ious": [round(iou, 5) for iou in run.ious],
        "predicted_ious": [_drop_nonfinite(iou) for iou in run.predicted_ious],
        "seconds": [round(s, 5) for s in run.seconds],
        "clicks": [[c.column, c.row, int(c.is_positive)] for c in run.clicks],
    }


def _drop_nonfinite(number: float | None) -> float | None:
    """Replace NaN and infinities, which JSON lacks and a foreign model may answer."""
    return number if number is not None and math.isfinite(number) else None
