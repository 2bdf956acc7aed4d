"""PNG, JPEG, BMP, GIF, WebP and JPEG 2000 files with damaged headers: read, or refused."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

from fixtures.plain_grid import plain_grid, png_of
from fuzz.tiff_tags import read_all

_FILES = tuple(plain_grid().items())

_SIDES = (0, 1, 2, 80, 300, 65535, 65536, 100_000, 2**31 - 1, 2**31, 2**32 - 1)

_HEADER_BYTES = 200
"""What is damaged most: sizes and kinds of pixels stand at the beginning."""


def run(seed: int) -> None:
    """Open a file with a wrong header or wrong bytes, and read what it shows."""
    random = Random(seed)
    with TemporaryDirectory() as folder:
        if random.random() < 0.2:
            path = Path(folder) / "image.png"
            path.write_bytes(_lying_png(random))
        else:
            name, content = random.choice(_FILES)
            path = Path(folder) / name
            path.write_bytes(_damaged(content, random))
        read_all(path)


def _lying_png(random: Random) -> bytes:
    """A header of any size and kind, with right checksums, and few pixels."""
    header = struct.pack(
        ">IIBBBBB",
        random.choice(_SIDES),
        random.choice(_SIDES),
        random.choice((0, 1, 2, 4, 8, 16, 32)),
        random.choice((0, 1, 2, 3, 4, 6, 7)),
        random.randrange(2),
        random.randrange(2),
        random.randrange(3),
    )
    pixels = zlib.compress(bytes(random.choice((0, 100, 100_000))))
    return png_of((b"IHDR", header), (b"IDAT", pixels), (b"IEND", b""))


def _damaged(content: bytes, random: Random) -> bytes:
    changed = bytearray(content)
    for _ in range(random.randrange(1, 8)):
        end = len(changed) if random.random() < 0.3 else min(len(changed), _HEADER_BYTES)
        place = random.randrange(end)
        if random.random() < 0.6:
            changed[place] = random.randrange(256)
        else:
            order = random.choice("<>")
            changed[place : place + 4] = struct.pack(f"{order}I", random.choice(_SIDES))
    if random.random() < 0.2:
        del changed[random.randrange(len(changed)) :]
    return bytes(changed)
