"""Blocks of measures as aligned plain text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from wsisam_qupath.errors import escape
from wsisam_qupath.report.progress import count_noun

from .measures import Estimate
from .summary import Block, Row, Unit

_NAME_LONGEST = 28


def table_text(
    protocol: Sequence[str],
    blocks: Sequence[Block],
    columns: Sequence[str],
    agreement: Mapping[str, Mapping[str, Mapping[str, float | None]]],
    seconds: Mapping[str, Mapping[str, float | None]],
) -> str:
    """Write the questions, a table per block with a row per measure, and what holds for all.

    Args:
        protocol: lines that describe the questions.
        columns: names of the models, then of the baselines.
        agreement: agreement of predicted and true IoU, by measure, model and kind of prompt.
        seconds: seconds by model and step.
    """
    parts = ["\n".join(protocol)]
    parts += [_block_text(block, columns) for block in blocks]
    parts += [_make_plain(title, values, "{:.2f}") for title, values in agreement.items()]
    parts.append(_make_plain("median time, s", seconds, "{:.3f}"))
    return "\n\n".join(parts) + "\n"


def cell(estimate: Estimate | None, unit: Unit, *, is_gain: bool = False) -> str:
    """Write a mean with its interval, if any: "91.7 [90.2, 93.0]"; a gain has a sign."""
    if estimate is None:
        return "-"
    scale = 100.0 if unit == "%" else 1.0
    form = "{:+.1f}" if is_gain else "{:.1f}"
    if unit == "clicks":
        form = form.replace(".1f", ".2f")
    mean = form.format(scale * estimate.mean)
    if estimate.low is None or estimate.high is None:
        return mean
    return f"{mean} [{form.format(scale * estimate.low)}, {form.format(scale * estimate.high)}]"


def _block_text(block: Block, models: Sequence[str]) -> str:
    gained = [m for m in models[1:] if any(m in row.gains for row in block.rows)]
    models = [m for m in models if any(m in row.cells for row in block.rows)]
    heads = [escape(m, _NAME_LONGEST) for m in models]
    heads += [f"gain of {escape(m, _NAME_LONGEST)}" for m in gained]
    title = (
        f"{escape(block.title)}: {count_noun(block.objects, 'object')}, "
        f"{count_noun(block.groups, 'patient')}"
    )
    return f"{title}\n" + _align(["", *heads], [_cells(row, models, gained) for row in block.rows])


def _cells(row: Row, models: Sequence[str], gained: Sequence[str]) -> list[str]:
    name = f"{row.name}, %" if row.unit == "%" else row.name
    cells = [cell(row.cells.get(model), row.unit) for model in models]
    gains = [cell(row.gains.get(model), row.unit, is_gain=True) for model in gained]
    return [name, *cells, *gains]


def _make_plain(title: str, values: Mapping[str, Mapping[str, float | None]], form: str) -> str:
    models = list(values)
    names = dict.fromkeys(name for own in values.values() for name in own)
    rows = []
    for name in names:
        found = [values[model].get(name) for model in models]
        rows.append([name, *("-" if v is None else form.format(v) for v in found)])
    return f"{title}\n" + _align(["", *(escape(m, _NAME_LONGEST) for m in models)], rows)


def _align(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [heads, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(heads))]
    return "\n".join(
        "  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )
