"""The adapters that ship with this package, and the choice between them and a user's own.

Each shipped adapter has its card beside it, as ``.md``.
"""

from __future__ import annotations

from pathlib import Path

from ..options import AdapterChoice
from .adapter import Adapter, read_adapter
from .bases import Base

FOLDER = Path(__file__).resolve().parent / "adapters"


def find_shipped_adapter(base: str) -> Path | None:
    """Find the adapter that ships with this package for a base; None if there is none."""
    path = FOLDER / f"tissue-{base}.safetensors"
    return path if path.is_file() else None


def load_chosen_adapter(choice: AdapterChoice, base: Base) -> Adapter | None:
    """Read the adapter that was chosen for a base.

    Raises:
        AdapterError: see :func:`.read_adapter`.
    """
    path = find_shipped_adapter(base.name) if choice == "default" else choice
    return None if path is None else read_adapter(path, base)
