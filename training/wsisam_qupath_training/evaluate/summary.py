"""Findings as means: by dataset, class, image or patient, and over all."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median
from typing import Literal, TypeAlias

from .measures import Estimate, correlation, estimate
from .noc import CLICKS_MOST, TARGETS
from .protocol import LABELS, ObjectKey
from .run import EvaluationResults

By: TypeAlias = Literal["dataset", "class", "image", "patient"]
BYS: tuple[By, ...] = ("dataset", "class", "image", "patient")

Unit: TypeAlias = Literal["%", "clicks", "s", "r"]

_TITLE_OF: Mapping[By, Callable[[ObjectKey], str]] = {
    "dataset": lambda s: s.dataset,
    "class": lambda s: f"{s.dataset}, {s.class_name}",
    "image": lambda s: f"{s.dataset}, {s.field}",
    "patient": lambda s: f"{s.dataset}, patient {s.group}",
}


@dataclass(frozen=True)
class Row:
    """One measure of all models.

    Attributes:
        unit: "%" values are shares of 1.
        cells: by model.
        gains: of each further model over the first, object by object; with intervals of their own.
    """

    name: str
    unit: Unit
    cells: Mapping[str, Estimate]
    gains: Mapping[str, Estimate]


@dataclass(frozen=True)
class Block:
    """All measures of some objects."""

    title: str
    objects: int
    groups: int
    rows: tuple[Row, ...]


_Values: TypeAlias = Mapping[str, Mapping[ObjectKey, float]]
"""By model and object."""


def summarize(
    results: EvaluationResults, models: Sequence[str], by: By, *, seed: int = 0
) -> tuple[Block, ...]:
    """A block for each dataset, class, image or patient, and where there are several, two more.

    The last but one is the mean over all objects, the last the mean of the datasets' means.
    """
    rows = tuple(_rows(results, models))
    object_keys = dict.fromkeys(s for _, _, values in rows for own in values.values() for s in own)
    titles = {object_key: _TITLE_OF[by](object_key) for object_key in object_keys}
    names = list(dict.fromkeys(titles.values()))
    blocks = [
        _block(name, rows, [s for s in object_keys if titles[s] == name], models, seed)
        for name in names
    ]
    if len(names) > 1:
        blocks.append(_block("all objects", rows, list(object_keys), models, seed))
    datasets = list(dict.fromkeys(object_key.dataset for object_key in object_keys))
    if len(datasets) > 1:
        own = [
            _block(name, rows, [s for s in object_keys if s.dataset == name], models, seed)
            for name in datasets
        ]
        blocks.append(_average_blocks(own, f"mean of {len(own)} datasets"))
    return tuple(blocks)


def correlations(results: EvaluationResults, model: str) -> Mapping[str, float | None]:
    """Pearson's r of predicted and true IoU: over all prompts, over all clicks, by kind."""
    own = [s for s in results.scores if s.model == model and s.predicted_iou is not None]
    labels = [label for label in LABELS if any(s.label == label for s in own)]
    found = {"all prompts": _r([(s.predicted_iou, s.iou) for s in own])}
    for label in labels:
        found[label] = _r([(s.predicted_iou, s.iou) for s in own if s.label == label])
    runs = [c.run for c in results.clicks if c.model == model]
    pairs = [pair for run in runs for pair in zip(run.predicted_ious, run.ious, strict=True)]
    if pairs:
        found["clicks"] = _r(pairs)
    return found


def seconds(results: EvaluationResults, model: str) -> Mapping[str, float | None]:
    """Median times: to encode a pair, to answer a prompt, to answer a click."""
    clicks = [t for c in results.clicks if c.model == model for t in c.run.seconds]
    timed = {
        "encode a patch pair": results.encode_s[model],
        "answer a prompt": results.decode_s[model],
        "answer a click": clicks,
    }
    return {what: median(times) if times else None for what, times in timed.items()}


def iou_by_click(results: EvaluationResults, model: str) -> list[float]:
    """Mean IoU after each of 20 clicks; objects that were done before stay as they were."""
    runs = [c.run for c in results.clicks if c.model == model]
    if not runs:
        return []
    return [fmean(run.iou_after(n) for run in runs) for n in range(1, CLICKS_MOST + 1)]


def _r(pairs: Sequence[tuple[float | None, float]]) -> float | None:
    known = [(p, t) for p, t in pairs if p is not None]
    return correlation([p for p, _ in known], [t for _, t in known])


def _rows(results: EvaluationResults, models: Sequence[str]) -> list[tuple[str, Unit, _Values]]:
    rows: list[tuple[str, Unit, _Values]] = []
    for label in LABELS:
        values = {
            model: {
                s.object_key: s.dice
                for s in results.scores
                if s.model == model and s.label == label
            }
            for model in models
        }
        if any(values.values()):
            rows.append((f"Dice, {label}", "%", values))
    if results.clicks:
        runs = {
            model: {c.object_key: c.run for c in results.clicks if c.model == model}
            for model in models
        }
        for target in TARGETS:
            counts = {
                m: {s: float(run.clicks_to(target)) for s, run in own.items()}
                for m, own in runs.items()
            }
            rows.append((f"NoC@{100 * target:.0f}", "clicks", counts))
        for target in TARGETS:
            failed = {
                m: {s: float(not run.reaches(target)) for s, run in own.items()}
                for m, own in runs.items()
            }
            rows.append((f"failures at {100 * target:.0f}", "%", failed))
    return rows


def _block(
    title: str,
    rows: Sequence[tuple[str, Unit, _Values]],
    object_keys: Sequence[ObjectKey],
    models: Sequence[str],
    seed: int,
) -> Block:
    made = []
    for name, unit, values in rows:
        own = {m: {s: values[m][s] for s in object_keys if s in values[m]} for m in models}
        cells = {m: _estimate(own[m], seed) for m in models if own[m]}
        first = own[models[0]]
        gains = {
            m: _estimate({s: own[m][s] - first[s] for s in own[m] if s in first}, seed)
            for m in models[1:]
            if any(s in first for s in own[m])
        }
        if cells:
            made.append(Row(name, unit, cells, gains))
    groups = len({(s.dataset, s.group) for s in object_keys})
    return Block(title, len(object_keys), groups, tuple(made))


def _estimate(values: Mapping[ObjectKey, float], seed: int) -> Estimate:
    return estimate(list(values.values()), [(s.dataset, s.group) for s in values], seed=seed)


def _average_blocks(blocks: Sequence[Block], title: str) -> Block:
    """Each block counts the same, however many objects it has; without intervals."""
    names = dict.fromkeys((row.name, row.unit) for block in blocks for row in block.rows)
    rows = []
    for name, unit in names:
        same = [row for block in blocks for row in block.rows if row.name == name]
        rows.append(
            Row(
                name,
                unit,
                _means([row.cells for row in same]),
                _means([row.gains for row in same]),
            )
        )
    return Block(title, sum(b.objects for b in blocks), sum(b.groups for b in blocks), tuple(rows))


def _means(cells: Sequence[Mapping[str, Estimate]]) -> Mapping[str, Estimate]:
    models = dict.fromkeys(model for own in cells for model in own)
    found = {}
    for model in models:
        own = [cell[model] for cell in cells if model in cell]
        found[model] = Estimate(
            fmean(e.mean for e in own),
            None,
            None,
            sum(e.objects for e in own),
            sum(e.groups for e in own),
        )
    return found
