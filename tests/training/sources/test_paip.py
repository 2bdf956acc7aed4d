"""PAIP2019's masks, as they are read to evaluate on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from shapely.geometry.base import BaseGeometry

from fixtures.training_data import (
    HEIGHT_PX,
    OUTLINES,
    WIDTH_PX,
    assert_drawn,
    ellipse,
    inside_of,
    read,
    reasons,
    write_slide,
)
from wsisam_qupath_training.sources import paip


def write_mask(path: Path, outlines: Sequence[BaseGeometry], **how: Any) -> None:
    mask = np.zeros((HEIGHT_PX, WIDTH_PX), dtype=np.uint8)
    for outline in outlines:
        mask[inside_of(outline)] = 1
    shrink = how.pop("shrink", 1)
    tifffile.imwrite(path, mask[shrink // 2 :: shrink, shrink // 2 :: shrink], **how)


WHOLE, VIABLE = OUTLINES[2], ellipse(150, 180, 30, 20)


def write_paip(folder: Path, **how: Any) -> None:
    write_slide(folder / "01_01_0083.tif").rename(folder / "01_01_0083.svs")
    write_mask(folder / "01_01_0083_whole.tif", [WHOLE], **how)
    write_mask(folder / "01_01_0083_viable.tif", [VIABLE], **how)
    (folder / "01_01_0083.xml").write_text("<Annotations />", encoding="utf-8")


@pytest.mark.parametrize(
    "how",
    [
        {},
        {"compression": "zlib", "tile": (64, 64)},
        {"compression": "zlib", "rowsperstrip": 7},
        {"shrink": 2, "tile": (16, 16)},
    ],
)
@pytest.mark.parametrize("largest_px", [1 << 24, WIDTH_PX * HEIGHT_PX // 8])
def test_paips_masks_are_read_at_any_scale(
    tmp_path: Path, how: dict[str, Any], largest_px: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_paip(tmp_path, **how)
    monkeypatch.setattr(paip, "LARGEST_PX", largest_px)

    (image,) = read(tmp_path).images

    assert [truth.class_name for truth in image.truths] == ["Viable tumour", "Whole tumour"]
    assert_drawn(image, [VIABLE, WHOLE], at_least=0.87)
    centres = [np.array(truth.l0_outline.centroid.coords[0]) for truth in image.truths]
    assert np.abs(np.array(centres) - (150, 180)).max() < 1
    assert image.group == "01_01_0083"


def test_viable_tumour_alone_may_be_asked_for(tmp_path: Path) -> None:
    write_paip(tmp_path)

    assert read(tmp_path, classes=("Viable tumour",)).classes == {"Viable tumour": 1}


def test_masks_of_paip_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    write_paip(tmp_path)
    (tmp_path / "01_01_0083_viable.tif").write_bytes(b"II*\0 and no more")
    write_slide(tmp_path / "b.tif")
    tifffile.imwrite(tmp_path / "b_whole.tif", np.ones((100, 100), dtype=np.uint8))
    write_mask(tmp_path / "c_whole.tif", [WHOLE])

    found = read(tmp_path)

    assert found.classes == {"Whole tumour": 1}
    broken, shape, absent = reasons(found)
    assert broken.startswith("01_01_0083_viable.tif: It cannot be read (")
    assert "b_whole.tif: It has 100 x 100 pixels, which is no scale of its slide" in shape
    assert absent.startswith("c: its slide is not in ")
