"""Large regions of slides without a pyramid: a coarse copy, made once, that can be broken off."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from fixtures.formula import FormulaReader
from wsisam_qupath.files import CACHE_VARIABLE
from wsisam_qupath.geometry import Box, Mpp
from wsisam_qupath.slide import Slide, SlideReference
from wsisam_qupath.slide import slide as slide_module
from wsisam_qupath.slide.slide import SlideIdentity


class StoppedError(Exception):
    pass


@pytest.fixture
def slide(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Slide]:
    """1000 x 700 px, of which no side is a multiple of 16; every region is large."""
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))
    monkeypatch.setattr(slide_module, "SOURCE_PX_MIN", 0)
    monkeypatch.setattr(slide_module, "_TILE_SOURCE_PX_MAX", 1 << 14)
    with open_formula() as slide:
        yield slide


def open_formula() -> Slide:
    identity = SlideIdentity("formula", 0, 0)
    reader = FormulaReader(1000, 700)
    return Slide(reader, mpp=Mpp(0.5, 0.5), reference=SlideReference("f"), identity=identity)


def read_directly(slide: Slide, l0_box: Box, width_px: int, height_px: int) -> np.ndarray:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(slide_module, "SOURCE_PX_MIN", 1 << 60)
        return slide.read(l0_box, width_px, height_px).astype(int)


@pytest.mark.parametrize(
    ("l0_box", "size"),
    [
        (Box(0, 0, 1000, 700), (50, 35)),
        (Box(-300, -200, 1300, 1100), (64, 52)),
        (Box(111, 222, 911, 690), (40, 23)),
    ],
)
def test_a_region_from_the_copy_is_the_one_from_the_slide(
    slide: Slide, l0_box: Box, size: tuple[int, int]
) -> None:
    direct = read_directly(slide, l0_box, *size)

    found = slide.read(l0_box, *size).astype(int)

    assert slide.plan_overview([l0_box], size[1]) is None  # it is there
    inner = np.abs(found - direct)
    # Pixels of the copy that lie on the edge of two of the region are shared between them.
    assert inner.mean() < 3
    assert np.array_equal(found == 255, direct == 255)


def test_fine_regions_are_read_from_the_slide_itself(slide: Slide, tmp_path: Path) -> None:
    l0_box = Box(0, 0, 400, 400)

    np.testing.assert_array_equal(
        slide.read(l0_box, 100, 100), read_directly(slide, l0_box, 100, 100)
    )
    assert not (tmp_path / "overviews").exists()


def test_who_breaks_the_making_off_goes_on_there(slide: Slide, tmp_path: Path) -> None:
    calls = 0

    def check() -> None:
        nonlocal calls
        calls += 1
        if calls == 30:
            raise StoppedError

    with pytest.raises(StoppedError):
        slide.read(slide.l0_box, 50, 35, check)
    (part,) = (tmp_path / "overviews").glob("*.part")
    done_bytes = part.stat().st_size
    assert done_bytes > 0
    with part.open("ab") as file:
        file.write(b"cut")  # what a kill left of the next stripe

    calls = 1000
    resumed = slide.read(slide.l0_box, 50, 35, check)
    more = calls - 1000

    assert not part.exists()
    (whole,) = (tmp_path / "overviews").glob("*.rgb")
    assert whole.stat().st_size == 63 * 44 * 3
    whole.unlink()
    calls = 1000
    np.testing.assert_array_equal(slide.read(slide.l0_box, 50, 35, check), resumed)
    assert calls - 1000 > more


def test_what_the_copy_takes_is_told_before(slide: Slide) -> None:
    plan = slide.plan_overview([slide.l0_box], 30)

    assert plan is not None
    assert plan.size_bytes == 63 * 44 * 3
    assert plan.seconds == pytest.approx(1000 * 700 * 24e-9)


def test_without_a_place_for_the_copy_the_slide_is_read_all_the_same(
    slide: Slide, tmp_path: Path
) -> None:
    (tmp_path / "overviews").write_bytes(b"in the way")

    np.testing.assert_array_equal(
        slide.read(slide.l0_box, 50, 35), read_directly(slide, slide.l0_box, 50, 35)
    )


def test_any_region_can_be_broken_off(slide: Slide) -> None:
    def check() -> None:
        raise StoppedError

    with pytest.raises(StoppedError):
        slide.read(Box(0, 0, 300, 300), 256, 256, check)
