"""What a project states of its images, and what keeps one of them from being outlined."""

from __future__ import annotations

from pathlib import Path

import pytest

from fixtures.project_files import (
    Json,
    altered,
    builder,
    calibration,
    image,
    make_project,
    metadata,
)
from wsisam_qupath.geometry import Mpp
from wsisam_qupath.qupath.files.entries import ImageEntry
from wsisam_qupath.qupath.files.reading import read_project


def only_image(tmp_path: Path, entry: object) -> ImageEntry:
    (found,) = read_project(make_project(tmp_path / "project", [entry])).images
    return found


def test_an_image_that_was_only_added_states_its_slide(tmp_path: Path, slide: Path) -> None:
    found = only_image(tmp_path, image(1, slide))

    assert found.slide == slide
    assert (found.mpp, found.size_px, found.z_count, found.t_count) == (None, None, 1, 1)
    assert found.trouble is None


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        (None, "damaged (no entryID)"),
        ("image", "damaged (no entryID)"),
        ({"imageName": "A"}, "damaged (no entryID)"),
        ({"entryID": True}, "damaged (no entryID)"),
        ({"entryID": "../1"}, "damaged (no entryID)"),
        ({"entryID": -1}, "damaged (no entryID)"),
        ({"entryID": 1}, "does not say how to open a slide"),
        ({"entryID": 1, "serverBuilder": None}, "does not say how to open a slide"),
        ({"entryID": 1, "serverBuilder": ["uri"]}, "does not say how to open a slide"),
        ({"entryID": 1, "serverBuilder": {"builderType": 3}}, "does not say how to open a slide"),
        ({"entryID": 1, "serverBuilder": {"builderType": "uri"}}, "names no slide"),
        ({"entryID": 1, "serverBuilder": {"builderType": "uri", "uri": ""}}, "names no slide"),
        ({"entryID": 1, "serverBuilder": {"builderType": "uri", "uri": 5}}, "names no slide"),
        (image(1, "/not absolute as a URI? relative.svs"), "is not there"),
        (image(1, "relative.svs"), "is not there"),
        (image(1, "file:///" + "x" * 5000), "is not there"),
        (image(1, "file:///gone%ff.svs"), "is not in a folder: download it"),
        (image(1, "https://omero.org/?show=image-5"), "is not in a folder: download it"),
        (image(1, "omero-image://host/5"), "is not in a folder: download it"),
    ],
)
def test_a_broken_entry_keeps_nobody_from_the_others(
    tmp_path: Path, slide: Path, entry: object, words: str
) -> None:
    path = make_project(tmp_path / "p", [image(8, slide), entry, image(9, slide)])

    first, broken, last = read_project(path).images

    assert broken.trouble is not None
    assert words in broken.trouble
    assert broken.slide is None
    assert (first.trouble, last.trouble) == (None, None)


def test_an_entry_without_an_id_has_a_folder_of_no_other(tmp_path: Path, slide: Path) -> None:
    broken = {"imageName": "A", "serverBuilder": builder(slide)}
    path = make_project(tmp_path / "p", [broken, broken])

    assert [found.id for found in read_project(path).images] == ["no-id-1", "no-id-2"]


@pytest.mark.parametrize(
    ("kind", "how"),
    [
        ("rotated", "rotated, so that"),
        ("cropped", "cropped, so that"),
        ("swapRedBlue", "with red and blue swapped, so that"),
        ("z_projected", "as a projection of its stack, so that"),
        ("kaleidoscope", "through its 'kaleidoscope', which is not known here, so that"),
    ],
)
def test_a_slide_that_qupath_alters_is_refused(
    tmp_path: Path, slide: Path, kind: str, how: str
) -> None:
    found = only_image(tmp_path, image(1, altered(kind, builder(slide))))

    assert found.slide is None
    assert found.trouble == (
        f"QuPath shows its slide {how} places in it are not those of the file: add the slide to "
        "the project as it is, and use that image."
    )


def test_levels_that_qupath_adds_change_no_pixel(tmp_path: Path, slide: Path) -> None:
    inner = builder(slide, args=["--series", "0"], metadata=metadata(mpp=(9, 9)))
    outer = altered("pyramidize", inner, metadata=metadata(mpp=(0.5, 0.5)))

    found = only_image(tmp_path, image(1, outer))

    assert (found.slide, found.trouble, found.mpp) == (slide, None, Mpp(0.5, 0.5))
    assert found.with_arguments


def test_levels_added_to_a_rotated_slide_leave_it_rotated(tmp_path: Path, slide: Path) -> None:
    outer = altered("pyramidize", altered("rotated", builder(slide)))

    found = only_image(tmp_path, image(1, outer))

    assert found.trouble is not None
    assert "rotated" in found.trouble


def test_a_slide_that_is_not_rgb_is_refused(tmp_path: Path, slide: Path) -> None:
    found = only_image(tmp_path, image(1, slide, metadata=metadata(rgb=False)))

    assert found.trouble is not None
    assert "is not RGB" in found.trouble


def test_arguments_of_qupath_are_told(tmp_path: Path, slide: Path) -> None:
    path = make_project(tmp_path / "p", [image(1, slide, args=["--no-crop"]), image(2, slide)])

    assert [found.with_arguments for found in read_project(path).images] == [True, False]


@pytest.mark.parametrize(
    "stated",
    [
        calibration(1, 1, "px"),
        calibration(0, 0.5),
        calibration(-0.5, 0.5),
        calibration(float("nan"), 0.5),
        calibration(float("inf"), 0.5),
        calibration(10**400, 0.5),
        {"pixelWidth": {"value": "0.5", "unit": "µm"}, "pixelHeight": {"value": 0.5}},
        {"pixelWidth": {"value": 0.5, "unit": "µm"}},
        {"pixelWidth": 0.5, "pixelHeight": None},
        None,
        "0.5",
    ],
    ids=str,
)
def test_a_scale_that_is_none_is_none(tmp_path: Path, slide: Path, stated: object) -> None:
    content = {**metadata(), "pixelCalibration": stated}

    assert only_image(tmp_path, image(1, slide, metadata=content)).mpp is None


@pytest.mark.parametrize("stated", [0, -5, 2.5, "5", None, True])
def test_sizes_that_are_none_are_not_known(tmp_path: Path, slide: Path, stated: object) -> None:
    content: Json = {**metadata(), "width": stated, "sizeZ": stated, "sizeT": stated}

    found = only_image(tmp_path, image(1, slide, metadata=content))

    assert (found.size_px, found.z_count, found.t_count) == (None, 1, 1)
    assert found.trouble is None


def test_a_name_with_half_a_character_can_be_written(tmp_path: Path, slide: Path) -> None:
    path = make_project(tmp_path / "p", [image(1, slide, name="half")])
    path.write_text(path.read_text().replace("half", "half \\ud83d"))

    assert read_project(path).images[0].name.encode() == b"half ?"


def test_a_missing_slide_says_how_to_find_it(tmp_path: Path) -> None:
    found = only_image(tmp_path, image(1, tmp_path / "gone.svs"))

    assert found.slide is None
    assert found.trouble == (
        f"Its slide {tmp_path / 'gone.svs'} is not there: put it back, or map its old folder to "
        "the one where it is now."
    )
