"""JSON files that others wrote."""

from __future__ import annotations

import json
import os
from pathlib import Path

from .errors import PromptError


def read_json(path: Path, *, cure: str) -> object:
    """The parsed JSON of a file, UTF-8 with or without a byte order mark.

    Args:
        cure: what to do about a file that is damaged; ends the message.

    Raises:
        PromptError: it is missing, cannot be read, or is not JSON in UTF-8.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError as exc:
        raise PromptError(f"There is no file {path}: check the name and the folder.") from exc
    except OSError as exc:
        # Not Path.is_dir(), which raises where the name is too long.
        is_folder = os.path.isdir(path)  # noqa: PTH112
        wanted = "name a file in it" if is_folder else "check that you may read it"
        raise PromptError(f"{path} cannot be read ({exc.strerror}): {wanted}.") from exc
    try:
        return json.loads(content.decode("utf-8-sig"), parse_int=_number)
    except UnicodeDecodeError as exc:
        raise PromptError(f"{path} is not UTF-8 text. {cure}") from exc
    except json.JSONDecodeError as exc:
        raise PromptError(
            f"{path} is not JSON: {exc.msg} at line {exc.lineno}, column {exc.colno}. {cure}"
        ) from exc
    except RecursionError as exc:
        raise PromptError(f"{path} is nested too deep. {cure}") from exc


def _number(digits: str) -> int | float:
    """An int, or a float for more digits than int() takes."""
    return int(digits) if len(digits) < 300 else float(digits)
