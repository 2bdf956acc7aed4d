"""Means of an evaluation by dataset, class, image or patient, and over all."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median
from typing import Literal, TypeAlias

from .measures import Estimate, calibration_error, correlation, estimate
from .noc import CLICKS_MOST, TARGETS
from .protocol import LABELS, ObjectKey
from .results import BASELINES, EvaluationResults, Score

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
    """One measure, for all models.

    Attributes:
        unit: unit of the values; with "%" they are shares of 1.
        cells: one value per model, by its name.
        gains: gain of each further model over the first, object by object, with its own interval.
    """

    name: str
    unit: Unit
    cells: Mapping[str, Estimate]
    gains: Mapping[str, Estimate]


@dataclass(frozen=True)
class Block:
    """All measures of one group of objects."""

    title: str
    objects: int
    groups: int
    rows: tuple[Row, ...]


_Values: TypeAlias = Mapping[str, Mapping[ObjectKey, float]]
"""Values by model and object."""


def summarize(
    results: EvaluationResults, models: Sequence[str], by: By, *, seed: int = 0
) -> tuple[Block, ...]:
    """Make a block per dataset, class, image or patient, and their means if there are several.

    The means are those over all objects, of the classes' means (for tables by class), and of the
    datasets' means. Columns are the models and, for comparison, :data:`.BASELINES`.
    """
    models = (*models, *BASELINES)
    rows = tuple(_rows(results, models))
    object_keys = dict.fromkeys(s for _, _, values in rows for own in values.values() for s in own)
    titles = {object_key: _TITLE_OF[by](object_key) for object_key in object_keys}
    names = list(dict.fromkeys(titles.values()))
    blocks = [
        _block(name, rows, [s for s in object_keys if titles[s] == name], models, seed)
        for name in names
    ]
    if len(names) > 1:
        by_class = list(blocks)
        blocks.append(_block("all objects", rows, list(object_keys), models, seed))
        if by == "class":
            blocks.append(_average_blocks(by_class, f"mean of {len(by_class)} classes"))
    datasets = list(dict.fromkeys(object_key.dataset for object_key in object_keys))
    if len(datasets) > 1:
        own = [
            _block(name, rows, [s for s in object_keys if s.dataset == name], models, seed)
            for name in datasets
        ]
        blocks.append(_average_blocks(own, f"mean of {len(own)} datasets"))
    return tuple(blocks)


def correlations(results: EvaluationResults, model: str) -> Mapping[str, float | None]:
    """Correlate predicted and true IoU: over all prompts, over all clicks, and by kind."""
    return {what: correlation(*pairs) for what, pairs in _pair_ious(results, model).items()}


def calibration_errors(results: EvaluationResults, model: str) -> Mapping[str, float | None]:
    """Expected calibration error of the predicted IoU, in the same rows as correlations."""
    return {what: calibration_error(*pairs) for what, pairs in _pair_ious(results, model).items()}


def _pair_ious(
    results: EvaluationResults, model: str
) -> Mapping[str, tuple[list[float], list[float]]]:
    """Pairs of predicted and true IoU of all answers, and of each kind of prompt."""
    own = [
        (s.label, s.predicted_iou, s.fit.iou)
        for s in results.scores
        if s.model == model and s.predicted_iou is not None
    ]
    labels = [label for label in LABELS if any(of == label for of, _, _ in own)]
    found = {"all prompts": [(p, t) for _, p, t in own]}
    found |= {label: [(p, t) for of, p, t in own if of == label] for label in labels}
    runs = [c.run for c in results.clicks if c.model == model]
    if clicked := [pair for r in runs for pair in zip(r.predicted_ious, r.ious, strict=True)]:
        found["clicks"] = clicked
    return {what: ([p for p, _ in pairs], [t for _, t in pairs]) for what, pairs in found.items()}


def seconds(results: EvaluationResults, model: str) -> Mapping[str, float | None]:
    """Median seconds to encode a pair, to answer a prompt, and to answer a click."""
    clicks = [t for c in results.clicks if c.model == model for t in c.run.seconds]
    timed = {
        "encode a patch pair": results.encode_s[model],
        "answer a prompt": results.decode_s[model],
        "answer a click (SPC)": clicks,
    }
    return {what: median(times) if times else None for what, times in timed.items()}


def iou_by_click(results: EvaluationResults, model: str) -> list[float]:
    """Mean IoU after each of 20 clicks; objects that were done earlier keep their last IoU."""
    runs = [c.run for c in results.clicks if c.model == model]
    if not runs:
        return []
    return [fmean(run.iou_after(n) for run in runs) for n in range(1, CLICKS_MOST + 1)]


def _rows(results: EvaluationResults, models: Sequence[str]) -> list[tuple[str, Unit, _Values]]:
    rows: list[tuple[str, Unit, _Values]] = [
        (f"{measure.name}, {label}", "%", _collect(results, models, label, measure))
        for measure in _MEASURES
        for label in LABELS
    ]
    rows = [row for row in rows if any(row[2].values())]
    if results.clicks:
        rows += _click_rows(results, models)
    return rows


@dataclass(frozen=True)
class _Measure:
    """Reads one number of an answer, as a share of 1; None where the answer has none."""

    name: str
    take: Callable[[Score], float | None]


_MEASURES = (
    _Measure("Dice", lambda s: s.fit.dice),
    _Measure("surface Dice", lambda s: s.fit.surface_dice),
    _Measure("best candidate", lambda s: None if s.best_fit is None else s.best_fit.dice),
    _Measure(
        "first not best", lambda s: None if s.best_fit is None else float(s.best_fit != s.fit)
    ),
)


def _collect(
    results: EvaluationResults, models: Sequence[str], label: str, measure: _Measure
) -> _Values:
    return {
        model: {
            s.object_key: value
            for s in results.scores
            if s.model == model and s.label == label and (value := measure.take(s)) is not None
        }
        for model in models
    }


def _click_rows(
    results: EvaluationResults, models: Sequence[str]
) -> list[tuple[str, Unit, _Values]]:
    runs = {
        model: {c.object_key: c.run for c in results.clicks if c.model == model} for model in models
    }
    counted: list[tuple[str, Unit, _Values]] = [
        (
            f"NoC@{100 * target:.0f}",
            "clicks",
            {m: {s: float(r.clicks_to(target)) for s, r in own.items()} for m, own in runs.items()},
        )
        for target in TARGETS
    ]
    return counted + [
        (
            f"failures at {100 * target:.0f}",
            "%",
            {
                m: {s: float(not r.reaches(target)) for s, r in own.items()}
                for m, own in runs.items()
            },
        )
        for target in TARGETS
    ]


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
            if m not in BASELINES and any(s in first for s in own[m])
        }
        if cells:
            made.append(Row(name, unit, cells, gains))
    groups = len({(s.dataset, s.group) for s in object_keys})
    return Block(title, len(object_keys), groups, tuple(made))


def _estimate(values: Mapping[ObjectKey, float], seed: int) -> Estimate:
    return estimate(list(values.values()), [(s.dataset, s.group) for s in values], seed=seed)


def _average_blocks(blocks: Sequence[Block], title: str) -> Block:
    """Average blocks, each with the same weight; the means have no intervals."""
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
