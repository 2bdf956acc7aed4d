"""A Groovy script that shows the worst cases in QuPath, each at its object."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from importlib.resources import files

from .words import KINDS
from .worst_cases import Case

_QUPATH_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def write_qupath_script(cases: Sequence[Case]) -> str:
    """Write Groovy that lists and opens the cases in QuPath; empty if none has QuPath's ids."""
    rows = [_write_row(case) for case in cases if _QUPATH_ID.fullmatch(case.object_id)]
    if not rows:
        return ""
    script = files(__package__).joinpath("open_worst_cases.groovy").read_text(encoding="utf-8")
    return script.replace("CASES", ",\n".join(rows))


def _write_row(case: Case) -> str:
    label = f"Dice {case.dice:.1f}, {KINDS[case.kind]}: {case.image}"
    values = {"id": case.object_id, "image": case.image, "label": label}
    return f"    [{', '.join(f'{name}: {_quote(value)}' for name, value in values.items())}]"


def _quote(text: str) -> str:
    """Quote text as a Groovy literal in which nothing is evaluated."""
    escaped = json.dumps(text)[1:-1].replace("'", r"\'")
    return f"'{escaped}'"
