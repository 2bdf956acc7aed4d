"""Readers of many slides, only a few of which are open at a time."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

from .opening import open_reader
from .reader import Reader, Window

MOST_OPEN = 16
"""Files open at a time: OpenSlide keeps up to 32 MiB of decoded tiles for each."""


class ReaderPool:
    """Opens readers that open their file again after it was closed for others.

    Args:
        most_open: most files that are open at a time; more only while threads still read in them.
    """

    def __init__(self, most_open: int = MOST_OPEN) -> None:
        self._hold = lru_cache(maxsize=most_open)(_HeldReader)

    def open(self, path: Path, *, as_qupath: bool) -> Reader:
        """Open a reader, as :func:`.open_reader` does.

        Raises:
            SlideError: it cannot be read as QuPath shows it.
        """
        return _PooledReader(self._hold, path, as_qupath)


class _HeldReader:
    """An open file, closed with the last reference: a thread may still be reading it."""

    def __init__(self, path: Path, as_qupath: bool) -> None:
        self.reader = open_reader(path, as_qupath=as_qupath)
        weakref.finalize(self, self.reader.close)


class _PooledReader:
    """Reads a file that the pool may close and open; see :class:`.Reader`."""

    def __init__(
        self, hold: Callable[[Path, bool], _HeldReader], path: Path, as_qupath: bool
    ) -> None:
        self._hold, self._path, self._as_qupath = hold, path, as_qupath
        reader = hold(path, as_qupath).reader
        self.name = reader.name
        self.level_sizes_px = reader.level_sizes_px
        self.bounds = reader.bounds
        self.stated_mpp = reader.stated_mpp
        self.foreign_errors = reader.foreign_errors

    def read(self, level: int, x: int, y: int, width: int, height: int) -> Window:
        """See :class:`.Reader`."""
        held = self._hold(self._path, self._as_qupath)
        return held.reader.read(level, x, y, width, height)

    def close(self) -> None:
        """Do nothing: the pool closes files."""
