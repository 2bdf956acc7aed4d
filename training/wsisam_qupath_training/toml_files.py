"""Read TOML files that people write."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from wsisam_qupath.errors import PromptError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def read_toml(path: Path) -> dict[str, Any]:
    """Read the tables of a TOML file.

    Raises:
        PromptError: it cannot be read.
    """
    try:
        tables: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as exc:
        raise PromptError(f"{path} cannot be read as TOML ({exc}). Correct it.") from exc
    return tables
