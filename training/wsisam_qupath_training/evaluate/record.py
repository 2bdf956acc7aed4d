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

from wsisam_qupath.version import VERSION

from ..fields import Field
from .noc import CLICKS_MOST, PROBABILITY, TARGETS
from .run import ClickScore, Findings, Score
from .summary import BYS, correlations, iou_by_click, seconds, summarise

_LIBRARIES = ("numpy", "shapely", "scipy", "torch", "openvino")


def record_of(
    findings: Findings,
    models: Sequence[Mapping[str, object]],
    settings: Mapping[str, object],
    fields: Sequence[Field],
) -> dict[str, Any]:
    """The whole evaluation, ready for JSON.

    Args:
        models: what each says of itself; see :func:`.described`.
        settings: what was asked for.
        fields: that were measured.
    """
    names = [str(model["name"]) for model in models]
    return {
        "format": 1,
        "version": VERSION,
        "libraries": _libraries(),
        "hardware": hardware(),
        "settings": dict(settings),
        "clicker": {"most": CLICKS_MOST, "targets": TARGETS, "probability": PROBABILITY},
        "models": [
            {
                **model,
                "predicted_iou_r": correlations(findings, name),
                "median_seconds": seconds(findings, name),
                "mean_iou_by_click": iou_by_click(findings, name),
            }
            for model, name in zip(models, names, strict=True)
        ],
        "split": _split(fields),
        "summary": {by: [asdict(block) for block in summarise(findings, names, by)] for by in BYS},
        "answers": [_answer(score) for score in findings.scores],
        "clicks": [_clicks(score) for score in findings.clicks],
        "skipped": [asdict(case) for case in findings.skipped],
        "spare_boxes": findings.spare_boxes,
    }


def hardware() -> dict[str, object]:
    """What it ran on."""
    return {
        "system": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
    }


def _processor() -> str:
    """Its brand where the system tells it: Python itself often knows only "x86_64"."""
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


def _split(fields: Sequence[Field]) -> list[dict[str, object]]:
    """The patients that were measured, by dataset and part."""
    images = Counter((f.dataset, f.part, f.group) for f in fields)
    return [
        {"dataset": dataset, "part": part, "group": group, "images": count}
        for (dataset, part, group), count in images.items()
    ]


def _answer(score: Score) -> dict[str, object]:
    return {
        **asdict(score.subject),
        "model": score.model,
        "prompt": score.label,
        "dice": round(score.dice, 5),
        "iou": round(score.iou, 5),
        "predicted_iou": _finite(score.predicted_iou),
    }


def _clicks(score: ClickScore) -> dict[str, object]:
    run = score.run
    return {
        **asdict(score.subject),
        "model": score.model,
        "ious": [round(iou, 5) for iou in run.ious],
        "predicted_ious": [_finite(iou) for iou in run.predicted_ious],
        "seconds": [round(s, 5) for s in run.seconds],
        "clicks": [[c.column, c.row, int(c.is_positive)] for c in run.clicks],
    }


def _finite(number: float | None) -> float | None:
    """JSON has no NaN, which a model of someone else's may answer."""
    return number if number is not None and math.isfinite(number) else None
