"""What the encoder made of patches, kept on the disk: one file per patch, within a limit.

Several processes may use a folder at once: a file appears whole, and any of them may go at any
time. What a crash or a full disk damaged is found by its checksum, removed, and encoded again.
"""

from __future__ import annotations

import os
import time
import uuid
import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load, save

from ..files import read_file
from ..model.bases import Base
from .backends import Encoded

FOLDER = "embeddings"
"""Name of its folder in the cache folder."""

GB = 10**9

_FORMAT = 1
"""Number of the files' format, raised when it changes; older files then have a wrong checksum."""

_PLACES, _TOKEN_CHANNELS = 64 * 64, 256
_SUFFIX = ".patch"
_CHECKSUM_BYTES = 4
_LARGEST = float(np.finfo(np.float16).max)

_LOOKED_SHARE = 64
"""Share of the limit after which a process that writes looks at the whole folder again."""

_PROCESSES = 4
"""Number of processes that may write at once and stay within the limit together."""

_UNFINISHED_SECONDS_MAX = 3600.0
"""Age after which an unfinished file is a leftover, seconds: writing takes less than one."""


class _File(NamedTuple):
    path: Path
    size_bytes: int
    used: float


class EmbeddingStore:
    """Encoded patches in a folder, float16; those that were not used for longest go first.

    Args:
        folder: folder of the files; made when the first patch is kept.
        bytes_max: most bytes that all files together may occupy.
    """

    def __init__(self, folder: Path, bytes_max: int) -> None:
        self._folder = folder
        self._bytes_max = bytes_max
        self._unlooked_bytes = bytes_max  # of files that came since the last look

    def holds(self, key: str) -> bool:
        """Whether a patch is kept; its file is not read."""
        return self._path(key).is_file()

    def find(self, key: str) -> Encoded | None:
        """Read a patch that was kept under a key; None if there is no sound one.

        Returns:
            With a batch of one; float32, as :meth:`keep` returned it.
        """
        path = self._path(key)
        try:
            content = read_file(path)
        except OSError:
            return None
        encoded = _unpack(content)
        with suppress(OSError):  # another process may have removed it
            if encoded is None:
                path.unlink(missing_ok=True)
            else:
                os.utime(path)
        return encoded

    def keep(self, key: str, encoded: Encoded) -> Encoded:
        """Keep a patch, unless the disk cannot take it.

        Args:
            encoded: one encoded patch (a batch of one).

        Returns:
            What :meth:`find` returns for it, whether it was written or not.
        """
        halves = [_to_half(array) for array in encoded]
        content = _pack(halves)
        if len(content) <= self._bytes_max:
            with suppress(OSError):
                self._write(key, content)
        return Encoded(*(half.astype(np.float32) for half in halves))

    def _write(self, key: str, content: bytes) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        self._make_room(len(content))
        unfinished = self._folder / f".{uuid.uuid4().hex}.tmp"
        try:
            # Not waited for until it is on the disk: what a crash leaves is told by its checksum.
            unfinished.write_bytes(content)
            unfinished.replace(self._path(key))
        finally:
            unfinished.unlink(missing_ok=True)

    def _make_room(self, needed_bytes: int) -> None:
        """Remove what was unused for longest, if a new file would exceed the limit."""
        share = self._bytes_max // _LOOKED_SHARE
        self._unlooked_bytes += needed_bytes
        if self._unlooked_bytes <= share:
            return
        room = self._bytes_max - _PROCESSES * share - needed_bytes
        for file in sorted(self._list_files(), key=lambda file: file.used, reverse=True):
            room -= file.size_bytes
            if room < 0:
                with suppress(OSError):
                    file.path.unlink(missing_ok=True)
        self._unlooked_bytes = 0

    def _list_files(self) -> Iterator[_File]:
        """List the files that count towards the limit; remove leftovers of killed processes."""
        for path in self._folder.iterdir():
            with suppress(OSError):  # another process may have removed it
                status = path.stat()
                is_left = time.time() - status.st_mtime > _UNFINISHED_SECONDS_MAX
                if path.suffix == _SUFFIX:
                    yield _File(path, status.st_size, status.st_mtime)
                elif is_left:
                    path.unlink()

    def _path(self, key: str) -> Path:
        return self._folder / f"{key}{_SUFFIX}"


def _to_half(array: NDArray[np.float32]) -> NDArray[np.float16]:
    # In C order, as it is read again: another layout is added up in another order.
    half: NDArray[np.float16] = np.clip(array, -_LARGEST, _LARGEST).astype(np.float16, order="C")
    return half


def _pack(halves: list[NDArray[np.float16]]) -> bytes:
    body = save(dict(zip(Encoded._fields, halves, strict=True)))
    return _sign(body) + body


def _unpack(content: bytes) -> Encoded | None:
    """Read the arrays of a file; None if it is damaged."""
    body = content[_CHECKSUM_BYTES:]
    if content[:_CHECKSUM_BYTES] != _sign(body):
        return None
    arrays = load(body)
    return Encoded(*(arrays[name].astype(np.float32) for name in Encoded._fields))


def _sign(body: bytes) -> bytes:
    return zlib.crc32(body, _FORMAT).to_bytes(_CHECKSUM_BYTES, "little")


def count_patch_bytes(base: Base) -> int:
    """Estimate how many bytes an encoded patch of a base occupies on the disk."""
    values = _PLACES * (_TOKEN_CHANNELS + base.early_channels)
    return values * np.dtype(np.float16).itemsize
