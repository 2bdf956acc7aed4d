"""JSON files that others wrote: small ones as a whole, large ones with their lists piece by piece.

Parsed, JSON takes ten times the memory of its text. Of a file that is larger than
:data:`WHOLE_BYTES_MAX` only the outermost lists are taken apart; each of their elements is parsed
when it is asked for, and given up afterwards, so that a file of 300 MB takes no more than a small
one.
"""

from __future__ import annotations

import json
import mmap
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, overload

from ..errors import PromptError
from .ordinary import open_file

if TYPE_CHECKING:
    import msgspec

WHOLE_BYTES_MAX = 32 << 20
"""Largest file, or element of a large file's lists, that is parsed as a whole: 0.4 GB parsed."""

BYTES_MAX = 1 << 30
"""Larger files are refused."""


class JsonList(Sequence[object]):
    """A list in a large JSON file; each element is parsed whenever it is asked for."""

    def __init__(self, elements: Sequence[msgspec.Raw], path: Path, fix: str) -> None:
        self._elements, self._path, self._fix = elements, path, fix

    def __len__(self) -> int:
        return len(self._elements)

    @overload
    def __getitem__(self, index: int) -> object: ...

    @overload
    def __getitem__(self, index: slice) -> JsonList: ...

    def __getitem__(self, index: int | slice) -> object:
        """Raises PromptError where an element is too large, or no UTF-8."""
        if isinstance(index, slice):
            return JsonList(self._elements[index], self._path, self._fix)
        content = memoryview(self._elements[index])
        if len(content) > WHOLE_BYTES_MAX:
            raise PromptError(
                f"{self._path}: element {index + 1} of its list takes {len(content) >> 20} MiB, "
                f"more than {WHOLE_BYTES_MAX >> 20} MiB. Divide it."
            )
        return _parsed(content, self._path, self._fix)


def is_list(value: object) -> bool:
    """Whether this is a JSON array, of a large file or not; tuples may stand for lists."""
    return isinstance(value, (list, tuple, JsonList))


def read_json(path: Path, *, fix: str) -> object:
    """The parsed JSON of a file, UTF-8 with or without a byte order mark.

    Args:
        fix: what to do about a file that is damaged; ends the message.

    Returns:
        What ``json.loads`` gives; of a large file, :class:`JsonList` in place of the list that it
        is, or of the lists that its outermost object holds.

    Raises:
        PromptError: it is missing, too large, cannot be read, or is not JSON in UTF-8.
    """
    try:
        with open_file(path) as file:
            size = os.fstat(file.fileno()).st_size
            if size > BYTES_MAX:
                raise PromptError(
                    f"{path} is larger than {BYTES_MAX >> 20} MiB: divide it into smaller files."
                )
            if size > WHOLE_BYTES_MAX:
                return _large(file, path, fix)
            content = file.read(WHOLE_BYTES_MAX + 1)
    except FileNotFoundError as exc:
        raise PromptError(f"There is no file {path}: check the name and the folder.") from exc
    except (OSError, ValueError) as exc:  # ValueError: a NUL in the path
        # Not Path.is_dir(), which raises where the name is too long.
        is_folder = os.path.isdir(path)  # noqa: PTH112
        wanted = "name a file in it" if is_folder else "check that it is a file that you may read"
        reason = (exc.strerror if isinstance(exc, OSError) else None) or exc
        raise PromptError(f"{path} cannot be read ({reason}): {wanted}.") from exc
    return _parsed(content, path, fix)


def _parsed(content: bytes | memoryview, path: Path, fix: str) -> object:
    try:
        return json.loads(bytes(content).decode("utf-8-sig"), parse_int=_number)
    except UnicodeDecodeError as exc:
        raise PromptError(f"{path} is not UTF-8 text. {fix}") from exc
    except json.JSONDecodeError as exc:
        raise PromptError(
            f"{path} is not JSON: {exc.msg} at line {exc.lineno}, column {exc.colno}. {fix}"
        ) from exc
    except RecursionError as exc:
        raise PromptError(f"{path} is nested too deep. {fix}") from exc


def _large(file: BinaryIO, path: Path, fix: str) -> object:
    import msgspec

    # A view keeps the mapping open, and the mapping the file.
    content = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    if bytes(content[:3]) == b"\xef\xbb\xbf":
        content = content[3:]
    kinds: dict[bytes, Any] = {b"[": list[msgspec.Raw], b"{": dict[str, msgspec.Raw]}
    try:
        kind = kinds.get(bytes(content[:4096]).lstrip()[:1])
        if kind is None:
            raise PromptError(f"{path} is not JSON: it is neither a list nor an object. {fix}")
        outermost = msgspec.json.decode(content, type=kind)
        if isinstance(outermost, list):
            return JsonList(outermost, path, fix)
        return {key: _member(value, path, fix) for key, value in outermost.items()}
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        raise PromptError(f"{path} is not JSON in UTF-8 ({exc}). {fix}") from exc
    except RecursionError as exc:
        raise PromptError(f"{path} is nested too deep. {fix}") from exc


def _member(value: msgspec.Raw, path: Path, fix: str) -> object:
    import msgspec

    content = memoryview(value)
    if bytes(content[:1]) == b"[":
        return JsonList(msgspec.json.decode(content, type=list[msgspec.Raw]), path, fix)
    return JsonList([value], path, fix)[0]


def _number(digits: str) -> int | float:
    """An int, or a float for more digits than int() takes."""
    return int(digits) if len(digits) < 300 else float(digits)
