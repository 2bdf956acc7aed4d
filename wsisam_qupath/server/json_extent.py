"""Measure how much a JSON text holds, on its bytes: its objects would take 50 times as many."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

_BLOCK_BYTES = 1 << 18

_QUOTE, _BACKSLASH = ord('"'), ord("\\")

_STEPS = np.zeros(256, dtype=np.int8)
_STEPS[list(b"[{")] = 1
_STEPS[list(b"]}")] = -1

_LIST_BYTES, _ELEMENT_BYTES = 120, 100
"""Memory of a list or object in Python, and of each element in one, bytes, as measured."""

Flags: TypeAlias = NDArray[np.bool_]


@dataclass(frozen=True)
class Extent:
    """Counts of a JSON text, outside of its strings.

    Attributes:
        depth: depth of nesting.
        lists, objects: number of opening brackets of either kind.
        commas: number of commas between elements.
    """

    depth: int
    lists: int
    objects: int
    commas: int

    @property
    def parsed_bytes(self) -> int:
        """Estimated memory of its parsed objects, without the text of strings."""
        brackets = self.lists + self.objects
        return _LIST_BYTES * brackets + _ELEMENT_BYTES * (self.commas + brackets)


def extent_of(text: bytes) -> Extent:
    """Measure a text in one pass, in a time that grows with its length alone.

    What is no JSON is counted too, in some way.
    """
    scan = _Scan()
    content = np.frombuffer(text, dtype=np.uint8)
    for start in range(0, len(content), _BLOCK_BYTES):
        scan.take(content[start : start + _BLOCK_BYTES])
    return Extent(scan.deepest, scan.lists, scan.objects, scan.commas)


class _Scan:
    """What is known at the end of a block."""

    def __init__(self) -> None:
        self.deepest = self.lists = self.objects = self.commas = 0
        self._depth = 0
        self._in_string = False
        self._is_escaped = False  # the next byte, by a backslash before it

    def take(self, block: NDArray[np.uint8]) -> None:
        quotes = block == _QUOTE
        if self._is_escaped or (block == _BACKSLASH).any():
            quotes &= ~self._escaped(block)
        if self._in_string and not quotes.any():  # as in images
            return
        # A string ends behind its second quote; that one itself counts as inside, harmlessly.
        inside = (np.cumsum(quotes) + self._in_string) % 2 == 1
        self._in_string = bool(inside[-1])
        outside = block[~inside]
        depth = self._depth + np.cumsum(_STEPS[outside], dtype=np.int64)
        if len(depth):
            self._depth = int(depth[-1])
            self.deepest = max(self.deepest, int(depth.max()))
        counts = np.bincount(outside, minlength=256)
        self.lists += int(counts[ord("[")])
        self.objects += int(counts[ord("{")])
        self.commas += int(counts[ord(",")])

    def _escaped(self, block: NDArray[np.uint8]) -> Flags:
        """Find bytes behind an odd number of backslashes."""
        places = np.arange(len(block))
        # The last place before each byte that holds no backslash; -1, or before, at the beginning.
        others = np.where(block == _BACKSLASH, -1 - self._is_escaped, places)
        last_other = np.concatenate([[-1 - self._is_escaped], np.maximum.accumulate(others)])
        run_lengths = places - 1 - last_other[:-1]
        escaped: Flags = run_lengths % 2 == 1
        self._is_escaped = bool((len(block) - 1 - last_other[-1]) % 2)
        return escaped
