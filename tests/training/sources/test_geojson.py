"""GeoJSON beside slides, as it is read to train on."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
import shapely
from PIL import Image
from shapely.geometry import box

from fixtures.training_data import (
    MPP,
    OUTLINES,
    REGION,
    assert_drawn,
    drawn,
    glands,
    make_image,
    read,
    reasons,
    write_geojson,
    write_slide,
)


def test_geojson_beside_slides_is_read(tmp_path: Path) -> None:
    made = make_image(tmp_path, "a")
    made.mask.unlink()
    write_slide(tmp_path / "b.tif")
    write_geojson(tmp_path / "b.tif.geojson", [*glands(), drawn(REGION, "Region*")])

    a, b = read(tmp_path).images

    assert_drawn(a, OUTLINES)
    assert_drawn(b, OUTLINES)
    assert (a.name, a.group, a.l0_complete) == ("a", "a", None)
    assert b.l0_complete is not None
    assert b.l0_complete.equals(REGION)
    assert a.slide.open().mpp.x == pytest.approx(MPP)


def test_compressed_geojson_beside_slides_is_read(tmp_path: Path) -> None:
    for name in ("a.tif", "b.ome.tif"):
        write_slide(tmp_path / name)
        plain = write_geojson(tmp_path / f"{name}.geojson", glands())
        plain.with_name(f"{name}.geojson.gz").write_bytes(gzip.compress(plain.read_bytes()))
        plain.unlink()

    a, b = read(tmp_path).images

    assert_drawn(a, OUTLINES)
    assert (a.name, b.name) == ("a.tif", "b.ome.tif")


def test_children_are_objects_too(tmp_path: Path) -> None:
    write_slide(tmp_path / "a.tif")
    child = drawn(OUTLINES[1])
    region = drawn(REGION, "Region*", childObjects=[drawn(OUTLINES[0], childObjects=[child])])
    write_geojson(tmp_path / "a.geojson", [region])

    (image,) = read(tmp_path).images

    assert_drawn(image, OUTLINES[:2])


def test_what_is_no_truth_is_left_out_and_counted(tmp_path: Path) -> None:
    write_slide(tmp_path / "a.tif")
    others = [
        drawn(shapely.Point(50, 50)),
        drawn(shapely.MultiPoint([(50, 50), (60, 60)])),
        drawn(shapely.LineString([(0, 0), (50, 50)])),
        drawn(box(10, 10, 60, 60)),
        drawn(OUTLINES[1], "Ignore*"),
        drawn(OUTLINES[1], objectType="detection"),
    ]
    write_geojson(tmp_path / "a.geojson", [drawn(OUTLINES[0]), *others])

    found = read(tmp_path)

    assert_drawn(found.images[0], OUTLINES[:1])
    assert sorted(reasons(found)) == [
        "a.geojson: left out: 1 class ends in *",
        "a.geojson: left out: 1 detections",
        "a.geojson: left out: 1 lines",
        "a.geojson: left out: 1 rectangles, which are prompts",
        "a.geojson: left out: 2 points",
    ]


def test_geojson_without_its_slide_is_named(tmp_path: Path) -> None:
    make_image(tmp_path, "a").mask.unlink()
    write_geojson(tmp_path / "b.geojson", glands())

    found = read(tmp_path)

    assert len(found.images) == 1
    (reason,) = reasons(found)
    assert reason.startswith("b.geojson: its slide is not in ")
    assert reason.endswith("give the folder of the slides")


def test_a_slide_is_taken_before_a_picture_of_it(tmp_path: Path) -> None:
    make_image(tmp_path, "a").mask.unlink()
    Image.new("RGB", (9, 9)).save(tmp_path / "a.jpg")

    (image,) = read(tmp_path).images

    assert Path(image.slide.location).name == "a.tif"
