"""Reads JSON files that QuPath wrote."""

from __future__ import annotations

import json
from typing import Any

SUMMARY_BYTES_MAX = 16 << 20
"""Largest ``summary.json`` or class list, bytes: real ones are kilobytes."""

PROJECT_BYTES_MAX = 256 << 20
"""Largest ``.qpproj``, bytes: 100,000 images are 150 MB."""


def parse(content: bytes) -> Any:
    """Parse UTF-8 JSON, with or without a byte order mark.

    NaN and infinities are understood, for QuPath writes them.

    Raises:
        UnicodeDecodeError: it is not UTF-8.
        ValueError: it is not JSON, or is nested deeper than anything that QuPath writes.
    """
    try:
        return json.loads(content.decode("utf-8-sig"))
    except RecursionError as exc:
        raise ValueError("nested too deep") from exc


def as_object(value: object) -> dict[str, Any]:
    """Return a JSON object as it is, and an empty one for any other value."""
    return value if isinstance(value, dict) else {}
