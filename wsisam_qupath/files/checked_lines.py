"""Lines with a checksum, in files that grow while work is done and outlive a kill.

A line that a kill, a power cut or a full disk left incomplete is not taken for a result.
"""

from __future__ import annotations

import io
import json
import zlib
from typing import Any


def make_line(content: dict[str, object]) -> bytes:
    """Make a line: ``["checksum",{...}]`` and a newline, in ASCII."""
    body = json.dumps(content, separators=(",", ":"), allow_nan=False).encode("ascii")
    return b"%s%s]\n" % (_start(body), body)


def parse_line(line: bytes) -> dict[str, Any] | None:
    """Parse a line; None if its checksum is wrong."""
    length = len(_start(b""))
    body = line[length:-2]
    if line[:length] != _start(body) or line[-2:] != b"]\n":
        return None
    content: dict[str, Any] = json.loads(body)
    return content


def write_all(file: io.FileIO, content: bytes) -> None:
    """Write all bytes: a raw file may take fewer at a time when the disk is nearly full.

    Raises:
        OSError: the disk takes no more.
    """
    rest = memoryview(content)
    while rest:
        rest = rest[file.write(rest) :]


def _start(body: bytes) -> bytes:
    return b'["%08x",' % zlib.crc32(body)
