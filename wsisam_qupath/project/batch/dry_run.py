"""Predict what a batch would do, and about how long it would take."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ...errors import escape
from ...geometry import Box, Mpp, PatchPair
from ...inference.loading import ResolvedModel
from ...prompts import Prompt
from ...prompts.encoding import encode_prompt
from ...report.display import name_skipped, summarize_outcome
from ...report.outcome import ImageOutcome
from ...report.progress import count_noun, duration
from .request import KINDS


class Pace(NamedTuple):
    """Speed of this machine as measured, seconds."""

    encode: float
    decode: float

    def seconds(self, outcome: ImageOutcome) -> float:
        """Estimate how long the prompts of an image take, seconds."""
        return outcome.plan.encodes * self.encode + outcome.plan.prompts * self.decode


def measure_pace(model: ResolvedModel) -> Pace:
    """Measure the time to encode and decode once, after a first time to warm up.

    Raises:
        WsiSamError: the model cannot be loaded.
    """
    predictor = model.load()
    size_px = predictor.base.size_px
    patch = np.full((size_px, size_px, 3), 200, np.uint8)
    pair = PatchPair(size_px / 2, size_px / 2, 1.0, size_px, Mpp(1.0, 1.0))
    box = Box(size_px / 4, size_px / 4, size_px / 2, size_px / 2)
    tokens = encode_prompt(Prompt("pace", l0_box=box), pair)
    seconds = (0.0, 0.0)
    for _ in range(2):
        start = time.perf_counter()
        (embedding,) = predictor.backend.embed([[patch]])
        encoded = time.perf_counter()
        predictor.predict(embedding, [tokens])
        seconds = (encoded - start, time.perf_counter() - encoded)
    return Pace(*seconds)


def print_plan(console: Console, outcomes: Sequence[ImageOutcome], pace: Pace | None) -> None:
    """Print a row per image: prompts by kind, encodes, time; then obstacles and what is left alone.

    Args:
        pace: measured speed; None if there is nothing to do.
    """
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("Image", overflow="fold")
    for name in (*KINDS, "encodes", "time"):
        table.add_column(name, justify="right", no_wrap=True)
    for one in outcomes:
        table.add_row(*map(Text, _cells(one, pace)))
    console.print(table)

    def say(line: str) -> None:
        console.print(Text(line), soft_wrap=True)

    for one in outcomes:
        said = summarize_outcome(one)
        if said != "no prompts":
            say(f"{escape(one.name, 120)}: {escape(said, 900)}")
        name_skipped(say, one)
    prompts = sum(one.plan.prompts for one in outcomes)
    encodes = sum(one.plan.encodes for one in outcomes)
    seconds = sum(pace.seconds(one) for one in outcomes) if pace else 0.0
    failed = sum(one.state == "failed" for one in outcomes)
    say(
        f"{count_noun(len(outcomes), 'image')}, {count_noun(prompts, 'prompt')}, "
        f"{count_noun(encodes, 'encode')}: about {duration(seconds)} on this machine. "
        f"{failed} cannot be done. Nothing was changed."
    )


def _cells(outcome: ImageOutcome, pace: Pace | None) -> list[str]:
    plan = outcome.plan
    counts = [sum(plan.kinds.get(kind, 0) for kind in kinds) for kinds in KINDS.values()]
    shown = [str(count) if count else "-" for count in (*counts, plan.encodes)]
    seconds = duration(pace.seconds(outcome)) if pace and plan.prompts else "-"
    return [escape(outcome.name, 120), *shown, seconds]
