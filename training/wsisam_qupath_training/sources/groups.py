"""Find the patient of an image by its name."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TypeAlias

from wsisam_qupath.errors import PromptError
from wsisam_qupath.files.names import compose

GroupOf: TypeAlias = Callable[[str], str]
"""Finds the patient, or the slide where the patient is not known, by the name without its
ending."""

_KNOWN = (
    re.compile(r"^([A-Za-z]+_\d{2})_\d$"),  # CATCH: Histiocytoma_01_1
    re.compile(r"^(patient_\d+)_node_\d+$"),  # CAMELYON17: patient_004_node_4
)
"""How known data sets name patients in their files."""


def group_by_pattern(pattern: str) -> GroupOf:
    """Group by the first group of a regular expression; other names are groups of their own.

    Raises:
        PromptError: it is none, or has no group.
    """
    try:
        compiled = re.compile(compose(pattern))
    except re.error as exc:
        raise PromptError(f"{pattern!r} is no regular expression ({exc}). Correct it.") from exc
    if not compiled.groups:
        raise PromptError(
            f"{pattern!r} has no group: put what names the patient into brackets, as in "
            r"'^(\w+)-'."
        )
    return lambda name: _first_group(compiled, compose(name))


def group_by_table(table: Mapping[str, str]) -> GroupOf:
    """Group by a table; names that are not in it are groups of their own."""
    composed = {compose(name): group for name, group in table.items()}
    return lambda name: composed.get(compose(name), name)


def group_by_known_names(name: str) -> str:
    """Group by the names of CATCH and CAMELYON17; other images are groups of their own."""
    return next((found[1] for one in _KNOWN if (found := one.search(name))), name)


def _first_group(pattern: re.Pattern[str], name: str) -> str:
    found = pattern.search(name)
    return name if found is None or found[1] is None else found[1]
