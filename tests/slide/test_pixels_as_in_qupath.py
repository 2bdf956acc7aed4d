"""Over grids of small files: pixels are what QuPath shows, or the file is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from fixtures.qupath_pictures import look_at
from fixtures.shown_pictures import (
    MEAN_DIFFERENCE_MAX,
    kept_pixels,
    read_here,
    read_table,
    row_of,
    write_grids,
)
from fixtures.tiff_grid import grid
from wsisam_qupath.errors import QuPathError, SlideError
from wsisam_qupath.qupath.jvm.process import QuPathProcess
from wsisam_qupath.slide import open_slide

GRIDS = ("tiff", "plain")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Path]]:
    return write_grids(tmp_path_factory.mktemp("grids"))


def difference(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> float:
    """Mean of the gray levels that they differ by; infinite where their sizes do."""
    if one.shape != other.shape:
        return float("inf")
    return float(np.abs(one.astype(int) - other).mean())


def differs(one: NDArray[np.uint8] | None, other: NDArray[np.uint8] | None) -> bool:
    """Whether both are there and are not the same picture."""
    return one is not None and other is not None and difference(one, other) > MEAN_DIFFERENCE_MAX


@pytest.mark.parametrize("name", GRIDS)
def test_each_file_is_read_as_the_table_says_that_qupath_shows_it(
    files: dict[str, dict[str, Path]], name: str
) -> None:
    table = read_table(name)
    assert table.keys() == files[name].keys()
    wrong = []
    for case, path in files[name].items():
        here = read_here(path)
        row = table[case]
        if (row.here == "read") != (here is not None):
            wrong.append(f"{case}: {row.here} in the table")
        if here is None:
            continue
        assert row.pixels is not None
        size = (here.shape[1], here.shape[0])
        if size != row.size_px or difference(kept_pixels(here), row.pixels) > MEAN_DIFFERENCE_MAX:
            wrong.append(f"{case}: other pixels than in the table")
    assert not wrong


def test_every_refusal_names_the_file_and_a_way_out(files: dict[str, dict[str, Path]]) -> None:
    refused = {
        files[name][case]: case
        for name in GRIDS
        for case, row in read_table(name).items()
        if row.here == "refused"
    }
    for path, case in refused.items():
        with pytest.raises(SlideError) as caught:
            open_slide(path, mpp=0.5).close()
        message = str(caught.value)
        assert message.startswith(str(path)), case
        assert "xport" in message or "Open that file" in message, (case, message)
        assert "damaged" not in message, (case, message)


def test_every_orientation_of_strips_shows_the_same_pixels() -> None:
    table = read_table("tiff")
    upright = table["strips-rgb-none"].pixels
    for turn in range(2, 9):
        row = table[f"strips-orientation-{turn}"]
        assert row.here == "read"
        np.testing.assert_array_equal(row.pixels, upright)


def test_the_grid_reaches_each_container_and_both_ways_of_storing() -> None:
    names = grid().keys()
    for container in ("", "be-", "big-", "bigbe-"):
        for store in ("tiles", "strips"):
            assert f"{container}{store}-rgb-none" in names
    assert len(names) > 900


@pytest.mark.qupath
@pytest.mark.walk
@pytest.mark.parametrize("name", GRIDS)
def test_the_table_and_qupath_agree(files: dict[str, dict[str, Path]], name: str) -> None:
    try:
        qupath = QuPathProcess().__enter__()
    except QuPathError as exc:
        pytest.skip(f"no QuPath here: {exc}")
    try:
        shown = qupath.run(look_at, [str(path) for path in files[name].values()])
    finally:
        qupath.__exit__(None, None, None)
    table = read_table(name)
    wrong = []
    for (case, path), picture in zip(files[name].items(), shown, strict=True):
        here = read_here(path)
        row, kept = row_of(picture, here), table[case]
        # A newer OpenSlide opens more, such as Zstandard in tiles; its pixels are compared below.
        opens_as_before = kept.qupath in (row.qupath, "nothing")
        if not opens_as_before or row.size_px != kept.size_px:
            wrong.append(f"{case}: QuPath opens {row.qupath}, {row.size_px}")
        if differs(row.pixels, kept.pixels):
            wrong.append(f"{case}: QuPath shows other pixels than the table")
        if differs(here, picture.rgb):
            wrong.append(f"{case}: QuPath shows other pixels than are read")
    assert not wrong
