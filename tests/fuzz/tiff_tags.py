"""TIFF files with tags that lie: each is read, or refused in a sentence."""

from __future__ import annotations

import struct
from dataclasses import replace
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

from fixtures.tiff_files import Page
from fixtures.tiff_grid import Case, grid
from wsisam_qupath.errors import SlideError
from wsisam_qupath.slide import open_slide

_TAGS = (
    254, 256, 257, 258, 259, 262, 266, 270, 273, 274, 277, 278, 279, 282, 284, 317, 320, 322, 323,
    324, 325, 330, 338, 339, 347, 530, 532,
)  # fmt: skip

_NUMBERS = (
    0, 1, 2, 3, 7, 8, 15, 16, 17, 32, 64, 255, 256, 4096, 32773, 33003, 33005, 34712, 50000, 50002,
    65535, 65536, 262144, 2**31 - 1, 2**31, 2**32 - 1,
)  # fmt: skip

_CASES = tuple(grid().values())


def run(seed: int) -> None:
    """Open a file with some wrong tags or bytes, and read what it shows.

    Raises:
        AssertionError: what came out is not as large as what is stated.
    """
    random = Random(seed)
    case = random.choice(_CASES)
    pages = tuple(_changed(page, random) for page in case.pages)
    with TemporaryDirectory() as folder:
        path = _written(Case(pages, case.byte_order, case.is_big, case.suffix), Path(folder))
        if random.random() < 0.4:
            _damage(path, random)
        read_all(path)


def read_all(path: Path) -> None:
    """Read a slide at full size, or a part of it where it is large, if it is not refused.

    Raises:
        AssertionError: what came out is not as large as what was asked for.
    """
    try:
        with open_slide(path, mpp=0.5) as slide:
            l0_box = slide.l0_box
            width, height = min(slide.width_px, 300), min(slide.height_px, 300)
            region = slide.read(l0_box, width, height)
            assert region.shape == (height, width, 3)
    except SlideError as exc:
        assert str(exc).endswith(".")


def _changed(page: Page, random: Random) -> Page:
    more = dict(page.more)
    for _ in range(random.randrange(4)):
        count = random.choice((1, 1, 1, 2, 3, 4, 6))
        values = tuple(random.choice(_NUMBERS) for _ in range(count))
        kind = 3 if max(values) < 2**16 and random.random() < 0.6 else 4
        more[random.choice(_TAGS)] = (kind, values)
    drop = (random.choice(_TAGS),) if random.random() < 0.15 else ()
    return replace(page, more=more, drop=drop)


def _written(case: Case, folder: Path) -> Path:
    return case.write(folder, "slide")


def _damage(path: Path, random: Random) -> None:
    content = bytearray(path.read_bytes())
    for _ in range(random.randrange(1, 12)):
        place = random.randrange(len(content))
        if random.random() < 0.5:
            content[place] = random.randrange(256)
        else:
            number = struct.pack("<I", random.choice(_NUMBERS))
            content[place : place + 4] = number
    if random.random() < 0.3:
        del content[random.randrange(len(content)) :]
    path.write_bytes(content)
