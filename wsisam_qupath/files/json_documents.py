"""JSON files that others wrote: small ones as a whole, large ones with their lists piece by piece.

Parsed, JSON takes ten times the memory of its text. A file that is larger than
:data:`WHOLE_BYTES_MAX` is looked through once, block by block, and what is kept are the places of
the elements of its outermost lists; each is parsed again when it is asked for, and given up
afterwards. So a file of 400 MB takes little more memory than a small one.
"""

from __future__ import annotations

import codecs
import json
import os
import re
import threading
import weakref
from array import array
from collections.abc import Callable, Sequence, Sized
from pathlib import Path
from typing import BinaryIO, TypeAlias, overload

from ..errors import PromptError
from .compressed import DAMAGED, decompress
from .ordinary import open_file

WHOLE_BYTES_MAX = 32 << 20
"""Largest file, or element of a large file's lists, that is parsed as a whole: 0.4 GB parsed."""

BYTES_MAX = 1 << 30
"""Largest file that is read, bytes."""

_BLOCK_BYTES = 1 << 20

_SPACE = re.compile(r"[ \t\n\r]*")

_LONGEST_WORD = 16
"""An error this near to the end of the text read so far may be due to text still missing,
characters."""

OnRead: TypeAlias = Callable[[int], object]
"""Is told how many more bytes were read; what stands in lists is read twice."""


class JsonList(Sequence[object]):
    """A list in a large JSON file; each element is parsed whenever it is asked for."""

    def __init__(
        self,
        content: _Bytes,
        places: tuple[array[int], array[int]],
        path: Path,
        fix: str,
        on_read: OnRead,
    ) -> None:
        """Use :func:`read_json` instead.

        Args:
            places: where each element starts and stops in the file, bytes.
        """
        self._content, self._places = content, places
        self._path, self._fix, self._on_read = path, fix, on_read

    def __len__(self) -> int:
        return len(self._places[0])

    @overload
    def __getitem__(self, index: int) -> object: ...

    @overload
    def __getitem__(self, index: slice) -> JsonList: ...

    def __getitem__(self, index: int | slice) -> object:
        starts, stops = self._places
        if isinstance(index, slice):
            places = starts[index], stops[index]
            return JsonList(self._content, places, self._path, self._fix, self._on_read)
        self._on_read(stops[index] - starts[index])
        return _parsed(self._content.read(starts[index], stops[index]), self._path, self._fix)


class _Bytes:
    """An open file that any thread may read parts of; it is closed with its last owner."""

    def __init__(self, file: BinaryIO) -> None:
        self._handle = os.dup(file.fileno())
        self._lock = threading.Lock()
        weakref.finalize(self, os.close, self._handle)

    def read(self, start: int, stop: int) -> bytes:
        with self._lock:
            os.lseek(self._handle, start, os.SEEK_SET)
            return os.read(self._handle, stop - start)


def is_list(value: object) -> bool:
    """Whether a value is a JSON array, of a large file or not; a tuple counts as one."""
    return isinstance(value, (list, tuple, JsonList))


def _tell_nobody(_count: int) -> None:
    pass


def read_json(path: Path, *, fix: str, on_read: OnRead = _tell_nobody) -> object:
    """Read the JSON of a file: UTF-8 with or without a byte order mark, plain or gzipped.

    Args:
        fix: what to do about a damaged file; ends the message.
        on_read: is told how much of a large file was read; what it raises ends the reading.

    Returns:
        What ``json.loads`` gives; of a large file, :class:`JsonList` in place of the list that it
        is, or of the lists that its outermost object holds.

    Raises:
        PromptError: it is missing, too large, cannot be read, or is not JSON in UTF-8.
    """
    try:
        with open_file(path) as given, decompress(given, BYTES_MAX) as file:
            size = os.fstat(file.fileno()).st_size
            if size > BYTES_MAX:
                raise PromptError(
                    f"{path} is larger than {BYTES_MAX >> 20} MiB: divide it into smaller files."
                )
            if size > WHOLE_BYTES_MAX:
                return _Index(file, path, fix, on_read).read()
            content = file.read(WHOLE_BYTES_MAX + 1)
            try:
                return _parsed(content, path, fix)
            except PromptError:
                file.seek(0)
                _Index(file, path, fix, _tell_nobody).check_for_cut()
                raise
    except DAMAGED as exc:
        raise PromptError(f"{path} is damaged or cut off ({exc}). {fix}") from exc
    except FileNotFoundError as exc:
        raise PromptError(f"There is no file {path}: check the name and the folder.") from exc
    except (OSError, ValueError) as exc:  # ValueError: a NUL in the path
        # Not Path.is_dir(), which raises where the name is too long.
        is_folder = os.path.isdir(path)  # noqa: PTH112
        wanted = "name a file in it" if is_folder else "check that it is a file that you may read"
        reason = (exc.strerror if isinstance(exc, OSError) else None) or exc
        raise PromptError(f"{path} cannot be read ({reason}): {wanted}.") from exc


def _parsed(content: bytes, path: Path, fix: str) -> object:
    try:
        return json.loads(content.decode("utf-8-sig"), parse_int=_number)
    except UnicodeDecodeError as exc:
        raise PromptError(f"{path} is not UTF-8 text. {fix}") from exc
    except json.JSONDecodeError as exc:
        raise PromptError(
            f"{path} is not JSON: {exc.msg} at line {exc.lineno}, column {exc.colno}. {fix}"
        ) from exc
    except RecursionError as exc:
        raise PromptError(f"{path} is nested too deep. {fix}") from exc


class _CutOffError(Exception):
    """The file ends in the middle of something."""


class _Index:
    """Looks through a large file for the elements of its outermost lists, block by block."""

    def __init__(self, file: BinaryIO, path: Path, fix: str, on_read: OnRead) -> None:
        self._file, self._path, self._fix, self._on_read = file, path, fix, on_read
        self._content = _Bytes(file)
        if file.read(len(codecs.BOM_UTF8)) != codecs.BOM_UTF8:
            file.seek(0)
        self._byte = file.tell()  # of the character at `_counted`
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._text, self._at, self._counted = "", 0, 0
        self._elements = 0
        self._is_over = False

    def read(self) -> object:
        """Read the outermost value, with a :class:`JsonList` for each list in it.

        Raises:
            PromptError: it is no JSON, is cut off, or has an element that is too large.
        """
        try:
            return self._document()
        except _CutOffError as exc:
            raise self._describe_cut() from exc
        except UnicodeDecodeError as exc:
            raise PromptError(f"{self._path} is not UTF-8 text. {self._fix}") from exc
        except RecursionError as exc:
            raise PromptError(f"{self._path} is nested too deep. {self._fix}") from exc

    def check_for_cut(self) -> None:
        """Check only whether the file is cut off after some whole elements of a list.

        Raises:
            PromptError: it is.
        """
        try:
            self._document()
        except _CutOffError as exc:
            if self._elements:
                raise self._describe_cut() from exc
        except (PromptError, UnicodeDecodeError, RecursionError):
            pass  # it is damaged in another way

    def _describe_cut(self) -> PromptError:
        return PromptError(
            f"{self._path} is cut off after {self._elements:,} whole elements of its list, and "
            f"nothing of it is used. {self._fix}"
        )

    def _document(self) -> object:
        """Read the document; see :meth:`read`.

        Raises:
            _CutOffError, UnicodeDecodeError, RecursionError: of the file.
        """
        first = self._peek()
        if first not in ("[", "{"):
            raise self._damage("it is neither a list nor an object")
        document = self._list() if first == "[" else self._object()
        if self._skip_space():
            raise self._damage("something follows its end")
        return document

    def _object(self) -> dict[str, object]:
        members: dict[str, object] = {}
        while self._goes_on("}", members):
            name = self._value()
            if not isinstance(name, str) or self._peek() != ":":
                raise self._damage("its object lacks a name and a colon")
            self._at += 1
            members[name] = self._list() if self._peek() == "[" else self._value()
        return members

    def _list(self) -> JsonList:
        starts, stops = array("Q"), array("Q")
        self._elements = 0
        while self._goes_on("]", starts):
            starts.append(self._place())
            self._value()
            stops.append(self._place())
            self._elements += 1
        return JsonList(self._content, (starts, stops), self._path, self._fix, self._on_read)

    def _goes_on(self, end: str, found: Sized) -> bool:
        """Move to the next element of a list or object; False at its end, which is passed."""
        if not found:
            self._at += 1  # past the opening bracket
        elif self._peek() == ",":
            self._at += 1
            self._peek()
            return True
        elif self._peek() != end:
            raise self._damage("a comma is missing")
        if self._peek() != end:
            return True
        self._at += 1
        return False

    def _peek(self) -> str:
        """Move to the next character that is no space, and return it.

        Raises:
            _CutOffError: there is none.
        """
        if not self._skip_space():
            raise _CutOffError
        return self._text[self._at]

    def _skip_space(self) -> bool:
        """Move to the next character that is no space; False where there is none."""
        while True:
            found = _SPACE.match(self._text, self._at)
            assert found is not None
            self._at = found.end()
            if self._at < len(self._text):
                return True
            if not self._read_more():
                return False

    def _value(self) -> object:
        """Parse the value at the current character, and move past it."""
        while True:
            value: object = None
            try:
                value, end = _DECODER.raw_decode(self._text, self._at)
            except json.JSONDecodeError as exc:
                is_near_end = exc.pos > len(self._text) - _LONGEST_WORD
                if not (is_near_end or exc.msg.startswith("Unterminated")):
                    raise self._damage(exc.msg) from exc
                end = len(self._text)
            if end - self._at > WHOLE_BYTES_MAX:
                raise PromptError(
                    f"{self._path}: element {self._elements + 1} of its list takes more than "
                    f"{WHOLE_BYTES_MAX >> 20} MiB. Divide it."
                )
            # "12." at the end of a block may go on as 12.5e-3.
            may_go_on = isinstance(value, (int, float)) and not self._is_over
            if end + may_go_on * _LONGEST_WORD < len(self._text):
                self._at = end
                return value
            reaches_end = end == len(self._text)
            if not self._read_more() and reaches_end:
                raise _CutOffError

    def _read_more(self) -> bool:
        """Read as much again as is not parsed yet, but little more than may be parsed as a whole.

        Returns:
            False at the end of the file.
        """
        self._place()
        self._text = self._text[self._at :]
        self._at = self._counted = 0
        allowed = WHOLE_BYTES_MAX + _BLOCK_BYTES - len(self._text)
        content = self._file.read(max(_BLOCK_BYTES, min(len(self._text), allowed)))
        self._on_read(len(content))
        self._text += self._decoder.decode(content, final=not content)
        self._is_over = not content
        return bool(content)

    def _place(self) -> int:
        """The byte of the file at which the current character is."""
        passed = self._text[self._counted : self._at]
        self._byte += len(passed) if passed.isascii() else len(passed.encode("utf-8"))
        self._counted = self._at
        return self._byte

    def _damage(self, what: str) -> PromptError:
        return PromptError(f"{self._path} is not JSON: {what} at byte {self._place()}. {self._fix}")


def _number(digits: str) -> int | float:
    """Parse a number: an int, or a float if it has more digits than int() takes."""
    return int(digits) if len(digits) < 300 else float(digits)


_DECODER = json.JSONDecoder(parse_int=_number)
