"""Files that are compressed with gzip: known by their first bytes, whatever their names say."""

from __future__ import annotations

import gzip
import os
import tempfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO

from .ordinary import open_file

DAMAGED = (EOFError, zlib.error, gzip.BadGzipFile)
"""Errors that reading a compressed file raises if it is cut off or damaged."""

_HEAD = b"\x1f\x8b"
_SIZE_BYTES = 4
_BLOCK_BYTES = 1 << 20
_WITH_GZIP_HEAD = 31
"""zlib's ``wbits`` for gzip; the head then holds no time, so that the same content gives the same
bytes."""


def decompress(file: BinaryIO, bytes_max: int) -> BinaryIO:
    """Return a file as it is or, if it is compressed, a temporary file with its content.

    Args:
        file: an open file, at its beginning.
        bytes_max: largest content; of a larger one only one byte more is given.

    Returns:
        A file at its beginning, which is to be closed; a temporary one goes then.

    Raises:
        EOFError, zlib.error, gzip.BadGzipFile: it is cut off or damaged; see :data:`DAMAGED`.
        OSError: it cannot be read, or the temporary folder not be written.
    """
    if not _is_compressed(file):
        return file
    with ExitStack() as on_error:
        plain = on_error.enter_context(tempfile.TemporaryFile())
        with gzip.GzipFile(fileobj=file) as packed:
            left = bytes_max + 1
            while block := packed.read(min(left, _BLOCK_BYTES)):
                plain.write(block)
                left -= len(block)
        plain.seek(0)
        on_error.pop_all()  # from here on the caller closes it
    return plain


def compress(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Compress pieces of content with gzip."""
    packer = zlib.compressobj(wbits=_WITH_GZIP_HEAD)
    yield from filter(None, map(packer.compress, pieces))
    yield packer.flush()


def estimate_size(path: Path) -> int:
    """Read the size of a file's content, bytes; a compressed one states too little above 4 GiB.

    Raises:
        OSError: it cannot be read.
    """
    with open_file(path) as file:
        if not _is_compressed(file):
            return os.fstat(file.fileno()).st_size
        file.seek(-_SIZE_BYTES, os.SEEK_END)
        return int.from_bytes(file.read(), "little")


def _is_compressed(file: BinaryIO) -> bool:
    head = file.read(len(_HEAD))
    file.seek(0)
    return head == _HEAD
