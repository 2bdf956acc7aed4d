"""Label masks, as they are read to train on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fixtures.training_data import (
    HEIGHT_PX,
    MPP,
    OUTLINES,
    WIDTH_PX,
    assert_drawn,
    ellipse,
    inside_of,
    make_image,
    read,
    reasons,
    write_slide,
)


def test_label_masks_give_their_objects(tmp_path: Path) -> None:
    made = make_image(tmp_path)
    made.geojson.unlink()

    (image,) = read(tmp_path).images

    assert_drawn(image, OUTLINES, at_least=0.97)
    assert [truth.id for truth in image.truths] == ["1", "2", "3"]
    assert image.truths[0].class_name == "object"


def test_a_mask_of_two_values_gives_connected_regions(tmp_path: Path) -> None:
    make_image(tmp_path, ending=".png").mask.unlink()
    both = np.zeros((HEIGHT_PX, WIDTH_PX), dtype=np.uint8)
    for outline in OUTLINES:
        both[inside_of(outline)] = 255
    Image.fromarray(both).save(tmp_path / "a_truth.png")

    (image,) = read(tmp_path, truth="_truth.png", mpp=MPP).images

    assert sum(truth.l0_outline.area for truth in image.truths) == pytest.approx(
        sum(outline.area for outline in OUTLINES), rel=0.01
    )
    assert len(image.truths) == 3


def test_a_mask_keeps_holes(tmp_path: Path) -> None:
    ring = OUTLINES[2].difference(ellipse(150, 180, 25, 15))
    make_image(tmp_path, outlines=[ring, OUTLINES[0]]).geojson.unlink()

    (image,) = read(tmp_path).images

    assert_drawn(image, [ring, OUTLINES[0]], at_least=0.95)


def test_masks_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    make_image(tmp_path, "a")
    for name in ("broken", "colours", "small"):
        write_slide(tmp_path / f"{name}.tif")
    (tmp_path / "broken_instances.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    Image.new("RGB", (WIDTH_PX, HEIGHT_PX)).save(tmp_path / "colours_instances.png")
    Image.new("L", (50, 40)).save(tmp_path / "small_instances.png")
    Image.new("L", (50, 40)).save(tmp_path / "without_instances.png")

    found = read(tmp_path)

    assert [image.name for image in found.images] == ["a"]
    broken, colours, small, without = reasons(found)
    assert broken.startswith("broken_instances.png: it cannot be used (")
    assert "it has colours, and should have one channel" in colours
    assert "it has 50 x 40 pixels, and its image has 320 x 240" in small
    assert without == "without_instances.png: there is no image beside it"


def test_specks_of_a_mask_are_named(tmp_path: Path) -> None:
    made = make_image(tmp_path)
    labels = np.asarray(Image.open(made.mask)).copy()
    labels[0, 0] = 9
    Image.fromarray(labels).save(made.mask)

    found = read(tmp_path)

    assert reasons(found) == ["a_instances.png, object 9: it has fewer than 16 pixels"]
    assert len(found.images[0].truths) == 3
