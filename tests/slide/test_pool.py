"""Many slides of which a few are open at a time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import psutil

from fixtures.training_data import write_slide
from wsisam_qupath.geometry import Box
from wsisam_qupath.slide import ReaderPool, open_slide


def count_open(folder: Path) -> int:
    return sum(str(folder) in file.path for file in psutil.Process().open_files())


def test_only_so_many_files_are_open_and_every_slide_can_be_read(tmp_path: Path) -> None:
    paths = [write_slide(tmp_path / f"{number}.tif") for number in range(5)]
    pool = ReaderPool(most_open=2)

    slides = [open_slide(path, mpp=0.5, pool=pool) for path in paths]
    box = Box(10, 20, 110, 80)
    read = [slide.read(box, 50, 30) for slide in (*slides, *slides)]

    assert count_open(tmp_path) <= 2
    with open_slide(paths[0], mpp=0.5) as plain:
        expected = plain.read(box, 50, 30)
    assert all(np.array_equal(pixels, expected) for pixels in read)
    assert (slides[0].width_px, slides[0].mpp.x) == (320, 0.5)
