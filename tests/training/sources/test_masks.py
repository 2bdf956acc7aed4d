"""Label masks, as they are read to train on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
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
from wsisam_qupath_training.sources.marks import read_marks


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
    Image.new("RGB", (WIDTH_PX, HEIGHT_PX), "red").save(tmp_path / "colours_instances.png")
    Image.new("L", (50, 40)).save(tmp_path / "small_instances.png")
    Image.new("L", (50, 40)).save(tmp_path / "without_instances.png")

    found = read(tmp_path)

    assert [image.name for image in found.images] == ["a"]
    broken, colours, small, without = reasons(found)
    assert broken.startswith("broken_instances.png: it cannot be used (")
    assert "it has colors, and should have one channel" in colours
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


@pytest.mark.parametrize("name", ["a.TIF", "a.bmp", "a.jp2", "a.PNG", "a.jpeg"])
def test_an_image_beside_its_mask_is_found_in_any_format_and_case(
    tmp_path: Path, name: str
) -> None:
    field = make_image(tmp_path, "b")
    field.geojson.unlink()
    (tmp_path / "b_instances.png").rename(tmp_path / "a_instances.png")
    (tmp_path / "b.tif").unlink()
    kind = {"a.TIF": "TIFF", "a.jp2": "JPEG2000", "a.jpeg": "JPEG"}.get(name)
    Image.new("RGB", (WIDTH_PX, HEIGHT_PX), "pink").save(tmp_path / name, kind)

    (found,) = read(tmp_path, mpp=MPP).images

    assert found.name == "a"
    assert Path(found.slide.location).name == name


@pytest.mark.parametrize(
    "dtype", ["uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64", "float32"]
)
@pytest.mark.parametrize("compression", ["none", "zstd"])
def test_a_mask_may_have_whole_numbers_of_any_type(
    tmp_path: Path, dtype: str, compression: str
) -> None:
    labels = np.zeros((40, 50), dtype=dtype)
    labels[5:20, 5:20], labels[25:35, 10:40] = 3, 7
    tifffile.imwrite(tmp_path / "a.tif", labels, compression=compression)

    np.testing.assert_array_equal(read_marks(tmp_path / "a.tif"), labels.astype(int))


def test_gray_stored_as_rgb_and_a_palette_are_numbers(tmp_path: Path) -> None:
    labels = np.arange(200, dtype=np.uint8).reshape(10, 20)
    Image.fromarray(np.stack([labels] * 3, axis=-1)).save(tmp_path / "rgb.png")
    image = Image.fromarray(labels)
    image.putpalette([255, 0, 0] * 256)
    image.save(tmp_path / "palette.png")

    for name in ("rgb.png", "palette.png"):
        np.testing.assert_array_equal(read_marks(tmp_path / name), labels)


def test_numbers_with_fractions_are_no_labels(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.full((4, 5), 0.5, dtype=np.float32))
    with pytest.raises(ValueError, match="fractions"):
        read_marks(tmp_path / "a.tif")


def test_a_mask_larger_than_pillows_limit_is_read_without_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    Image.new("L", (50, 40), 3).save(tmp_path / "a.png")

    assert read_marks(tmp_path / "a.png").shape == (40, 50)


def test_what_macos_puts_beside_a_mask_is_left_alone(tmp_path: Path) -> None:
    make_image(tmp_path).geojson.unlink()
    (tmp_path / "._a_instances.png").write_bytes(b"\0\5\x16\7")

    assert reasons(read(tmp_path)) == []
