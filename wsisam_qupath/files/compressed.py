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
"""What reading a compressed file raises that is cut off or damaged."""

_HEAD = b"\x1f\x8b"
_SIZE_BYTES = 4
_BLOCK_BYTES = 1 << 20
_WITH_GZIP_HEAD = 31
"""``wbits`` of zlib; the head then holds no time, so that the same content gives the same bytes."""


def decompress(file: BinaryIO, bytes_max: int) -> BinaryIO:
    """Give a file as it is or, where it is compressed, a temporary one with its content.

    Args:
        file: at its beginning.
        bytes_max: what is larger is cut off behind one byte more.

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
    """Compress what comes in pieces, with gzip."""
    packer = zlib.compressobj(wbits=_WITH_GZIP_HEAD)
    yield from filter(None, map(packer.compress, pieces))
    yield packer.flush()


def estimate_size(path: Path) -> int:
    """The bytes of a file's content, as a compressed one states them (above 4 GiB too few).

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
