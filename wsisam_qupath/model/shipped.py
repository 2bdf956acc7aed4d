"""Which adapter is used: one that a user names, none, or the one that comes with this package.

The cards of those that come with it lie beside them, as ``.md``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal, TypeAlias

from .adapter import Adapter, read_adapter
from .bases import Base

FOLDER = Path(__file__).resolve().parent / "adapters"

AdapterChoice: TypeAlias = Path | Literal["default"] | None
"""A file, the one that comes with this package, or none."""


def find_shipped_adapter(base: str) -> Path | None:
    """The adapter that comes with this package for a base; None where there is none."""
    path = FOLDER / f"tissue-{base}.safetensors"
    return path if path.is_file() else None


def parse_adapter_choice(given: str) -> AdapterChoice:
    """What ``--adapter`` names: "default", "none" or a file."""
    if given == "default":
        return "default"
    return None if given == "none" else Path(given)


def load_chosen_adapter(choice: AdapterChoice, base: Base) -> Adapter | None:
    """The adapter that a choice means for a base, read.

    Raises:
        AdapterError: see :func:`.read_adapter`.
    """
    path = find_shipped_adapter(base.name) if choice == "default" else choice
    return None if path is None else read_adapter(path, base)
