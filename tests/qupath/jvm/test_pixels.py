"""Slides read through QuPath's own readers. Skipped where there is no QuPath."""

import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from fixtures.formula import Rgb, formula_rgb, write_leica
from fixtures.qupath_crashes import crash_at_next_pixels
from fixtures.tiff_grid import grid
from wsisam_qupath.errors import ImageError, QuPathError, SlideError
from wsisam_qupath.geometry import Box, Mpp
from wsisam_qupath.project.batch.opening import SlideOpener
from wsisam_qupath.qupath.files.entries import ImageEntry
from wsisam_qupath.qupath.files.reading import read_project
from wsisam_qupath.qupath.install.installation import find_installation
from wsisam_qupath.qupath.jvm.creation import NewImage, add_images
from wsisam_qupath.qupath.jvm.pixels import Part, Source, describe_server, open_through_qupath
from wsisam_qupath.qupath.jvm.pixels import read_region as read_through_qupath
from wsisam_qupath.qupath.jvm.process import QuPathProcess
from wsisam_qupath.slide import Slide, open_slide
from wsisam_qupath.slide.pyramid import write_pyramid

pytestmark = pytest.mark.qupath

WIDTH, HEIGHT = 1792, 1280
"""Halved three times without a rest: what a level holds is beyond doubt."""

PLANES = [formula_rgb(range(z * 1000, z * 1000 + 300), range(200)) for z in range(3)]
NAMES = ("pyramid.tif", "stack.tif", "grey.tif", "plain.png", "bounds.scn")
LEICA_OFFSET = (150, 100)


@pytest.fixture(scope="module")
def qupath() -> Iterator[QuPathProcess]:
    try:
        installation = find_installation()
    except QuPathError as exc:
        pytest.skip(str(exc))
    with QuPathProcess(installation) as process:
        yield process


@pytest.fixture(scope="module")
def rgb() -> Rgb:
    return formula_rgb(range(WIDTH), range(HEIGHT))


@pytest.fixture(scope="module")
def slides(tmp_path_factory: pytest.TempPathFactory, rgb: Rgb) -> Path:
    """A folder with spaces and umlauts in its name, and what QuPath opens in it."""
    folder = tmp_path_factory.mktemp("slides") / "Schöne Bilder"
    folder.mkdir()
    write_pyramid(folder / "pyramid.tif", rgb, mpp=0.5)
    tifffile.imwrite(
        folder / "stack.tif",
        np.stack(PLANES),
        imagej=True,
        photometric="rgb",
        resolution=(4.0, 4.0),
        metadata={"axes": "ZYXS", "unit": "um"},
    )
    tifffile.imwrite(folder / "grey.tif", PLANES[0][..., 0], photometric="minisblack")
    Image.fromarray(PLANES[2]).save(folder / "plain.png")
    write_leica(folder / "bounds.scn", [rgb[:500, :700]], LEICA_OFFSET)
    return folder


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, qupath: QuPathProcess, slides: Path) -> Path:
    path = tmp_path_factory.mktemp("project") / "project.qpproj"
    added = qupath.run(add_images, path, [NewImage(slides / name) for name in NAMES], "unset")
    assert [one.ids for one in added] == [(str(n + 1),) for n in range(len(NAMES))]
    return path


def entry_of(project: Path, slides: Path, name: str) -> ImageEntry:
    entry_id = str(NAMES.index(name) + 1)
    slide = slides / name
    return ImageEntry(entry_id, name, project.parent / "data" / entry_id, slide.as_uri(), slide)


def halved(rgb: Rgb, times: int) -> Rgb:
    factor = 2**times
    return np.asarray(Image.fromarray(rgb).reduce(factor), dtype=np.uint8)


def read_whole(slide: Slide) -> Rgb:
    return slide.read(slide.l0_box, slide.width_px, slide.height_px)


# Pixels


@pytest.mark.parametrize("level", [0, 1, 2, 3])
@pytest.mark.parametrize(
    "share",
    [(0.0, 0.0, 1.0, 1.0), (0.11, 0.23, 0.57, 0.71), (0.999, 0.999, 1.0, 1.0)],
    ids=["all of it", "across tiles", "the last corner"],
)
def test_each_pixel_of_each_level_lies_where_it_is_stored(
    qupath: QuPathProcess,
    project: Path,
    rgb: Rgb,
    level: int,
    share: tuple[float, float, float, float],
) -> None:
    stored = halved(rgb, level)
    height, width = stored.shape[:2]
    x0, y0, x1, y1 = (round(s * side) for s, side in zip(share, (width, height) * 2, strict=True))
    x0, y0 = min(x0, width - 1), min(y0, height - 1)

    part = Part(level, x0, y0, x1 - x0, y1 - y0, z=0, t=0)
    read = qupath.run(read_through_qupath, Source(project, "1", None), part)

    np.testing.assert_array_equal(read, stored[y0:y1, x0:x1])


@pytest.mark.parametrize("um_per_px", [0.5, 0.77, 2.0, 3.1])
def test_regions_are_those_of_our_own_reader(
    qupath: QuPathProcess, project: Path, slides: Path, um_per_px: float
) -> None:
    l0_box = Box(-20.0, 100.25, 700.5, 500.0)
    size = (round(l0_box.width * 0.5 / um_per_px), round(l0_box.height * 0.5 / um_per_px))

    theirs = open_through_qupath(qupath, project, entry_of(project, slides, "pyramid.tif"))
    with open_slide(slides / "pyramid.tif") as ours:
        assert (theirs.mpp, theirs.l0_box) == (Mpp(0.5, 0.5), ours.l0_box)
        assert (theirs.reader, ours.reader) == ("QuPath", "openslide")
        np.testing.assert_array_equal(theirs.read(l0_box, *size), ours.read(l0_box, *size))


def test_a_slide_with_bounds_is_what_our_own_reader_shows(
    qupath: QuPathProcess, project: Path, slides: Path, rgb: Rgb
) -> None:
    entry = entry_of(project, slides, "bounds.scn")

    theirs = open_through_qupath(qupath, project, entry, mpp=0.5)

    with open_slide(slides / "bounds.scn", mpp=0.5) as ours:
        assert theirs.l0_box == ours.l0_box == Box(0, 0, 700, 500)
    np.testing.assert_array_equal(read_whole(theirs), rgb[:500, :700])


@pytest.mark.parametrize("z", [0, 1, 2])
def test_the_planes_of_a_stack_are_told_apart(
    qupath: QuPathProcess, project: Path, slides: Path, z: int
) -> None:
    entry = entry_of(project, slides, "stack.tif")

    slide = open_through_qupath(qupath, project, entry, z=z)

    assert slide.mpp == Mpp(0.25, 0.25)
    np.testing.assert_array_equal(read_whole(slide), PLANES[z])


def test_each_plane_has_an_identity_of_its_own(
    qupath: QuPathProcess, project: Path, slides: Path
) -> None:
    entry = entry_of(project, slides, "stack.tif")
    first, again, second = (open_through_qupath(qupath, project, entry, z=z) for z in (0, 0, 1))

    assert first.identity == again.identity
    assert first.identity != second.identity
    assert first.location == second.location == str(slides / "stack.tif")


def test_threads_read_at_once_and_each_gets_its_own(
    qupath: QuPathProcess, project: Path, slides: Path
) -> None:
    entry = entry_of(project, slides, "stack.tif")
    planes = [open_through_qupath(qupath, project, entry, z=z) for z in range(3)]

    with ThreadPoolExecutor(4) as threads:
        read = list(threads.map(read_whole, planes * 4))

    for index, region in enumerate(read):
        np.testing.assert_array_equal(region, PLANES[index % 3])


def test_more_slides_than_qupath_keeps_open_are_opened_again(
    qupath: QuPathProcess, slides: Path, tmp_path: Path
) -> None:
    path, copies = tmp_path / "project" / "project.qpproj", []
    for number in range(6):
        copies.append(tmp_path / f"{number}.png")
        Image.new("RGB", (20, 10), (number, 0, 0)).save(copies[-1])
    path.parent.mkdir()
    qupath.run(add_images, path, [NewImage(copy) for copy in copies], "unset")
    entries = [
        ImageEntry(str(n + 1), copy.name, path.parent / str(n), copy.as_uri(), copy)
        for n, copy in enumerate(copies)
    ]

    opened = [open_through_qupath(qupath, path, entry, mpp=0.5) for entry in entries]

    assert [int(read_whole(slide)[0, 0, 0]) for slide in [*opened, *opened]] == [*range(6)] * 2


def test_a_moved_slide_is_read_where_it_is_now(
    qupath: QuPathProcess, project: Path, slides: Path, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "anderswo ü.png"
    Image.fromarray(255 - PLANES[2]).save(elsewhere)
    entry = replace(entry_of(project, slides, "plain.png"), slide=elsewhere)

    slide = open_through_qupath(qupath, project, entry, mpp=0.5)

    np.testing.assert_array_equal(read_whole(slide), 255 - PLANES[2])


# µm per pixel


def test_a_users_um_per_px_count_before_qupaths(
    qupath: QuPathProcess, project: Path, slides: Path
) -> None:
    entry = entry_of(project, slides, "pyramid.tif")

    assert open_through_qupath(qupath, project, entry, mpp=0.3).mpp == Mpp(0.3, 0.3)
    assert open_through_qupath(qupath, project, entry, mpp_if_unstated=0.3).mpp == Mpp(0.5, 0.5)


def test_without_um_per_px_a_slide_opens_only_with_the_users(
    qupath: QuPathProcess, project: Path, slides: Path
) -> None:
    entry = entry_of(project, slides, "plain.png")

    with pytest.raises(SlideError, match=r"plain\.png states no pixel size: set its pixel width"):
        open_through_qupath(qupath, project, entry)
    assert open_through_qupath(qupath, project, entry, mpp_if_unstated=0.3).mpp == Mpp(0.3, 0.3)


# What cannot be read


def test_an_image_that_is_not_rgb_is_refused(
    qupath: QuPathProcess, project: Path, slides: Path
) -> None:
    with pytest.raises(ImageError, match=r"grey\.tif is not 8-bit RGB"):
        open_through_qupath(qupath, project, entry_of(project, slides, "grey.tif"), mpp=0.5)


@pytest.mark.parametrize(("z", "t"), [(3, 0), (-1, 0), (0, 1)])
def test_a_plane_that_is_not_there_is_refused(
    qupath: QuPathProcess, project: Path, slides: Path, z: int, t: int
) -> None:
    entry = entry_of(project, slides, "stack.tif")
    with pytest.raises(ImageError, match=f"3 z-slices and 1 time points, hence no z {z}, t {t}"):
        open_through_qupath(qupath, project, entry, z=z, t=t)


def test_a_slide_that_is_gone_is_one_sentence_with_its_cure(
    qupath: QuPathProcess, project: Path, slides: Path, tmp_path: Path
) -> None:
    entry = replace(entry_of(project, slides, "pyramid.tif"), slide=tmp_path / "gone.tif")
    with pytest.raises(ImageError, match=r"gone\.tif does not exist: put the slide back"):
        open_through_qupath(qupath, project, entry)


@pytest.mark.parametrize("name", ["pyramid.tif", "stack.tif", "plain.png"])
def test_what_qupath_cannot_open_is_one_sentence_with_its_cure(
    qupath: QuPathProcess, project: Path, slides: Path, tmp_path: Path, name: str
) -> None:
    (tmp_path / "no slide.tif").write_text("words", encoding="utf-8")
    entry = replace(entry_of(project, slides, name), slide=tmp_path / "no slide.tif")

    with pytest.raises(ImageError, match=r"Opening image . failed in QuPath .*: check") as caught:
        open_through_qupath(qupath, project, entry)

    assert "\n" not in str(caught.value)


def test_an_image_that_the_project_no_longer_has_is_said(
    qupath: QuPathProcess, project: Path
) -> None:
    with pytest.raises(ImageError, match="has no image 99 any more"):
        qupath.run(describe_server, Source(project, "99", None))


def test_an_image_opens_beside_one_that_qupath_does_not_understand(
    qupath: QuPathProcess, project: Path, slides: Path, tmp_path: Path
) -> None:
    content = json.loads(project.read_bytes())
    content["images"][NAMES.index("stack.tif")]["serverBuilder"] = {"builderType": "nobody's"}
    copy = tmp_path / "project.qpproj"
    copy.write_text(json.dumps(content), encoding="utf-8")

    slide = open_through_qupath(qupath, copy, entry_of(copy, slides, "plain.png"), mpp=0.5)

    np.testing.assert_array_equal(read_whole(slide), PLANES[2])
    assert [*tmp_path.iterdir()] == [copy]


def test_damage_that_shows_only_while_reading_is_a_slide_error(
    qupath: QuPathProcess, project: Path, slides: Path, tmp_path: Path, rgb: Rgb
) -> None:
    copy = tmp_path / "damaged.tif"
    write_pyramid(copy, rgb, mpp=0.5)
    with tifffile.TiffFile(copy) as tiff:
        starts, lengths = tiff.pages[0].dataoffsets, tiff.pages[0].databytecounts
    with copy.open("r+b") as file:
        file.seek(starts[-1])
        file.write(os.urandom(lengths[-1]))
    entry = replace(entry_of(project, slides, "pyramid.tif"), slide=copy)

    slide = open_through_qupath(qupath, project, entry)

    np.testing.assert_array_equal(slide.read(Box(0, 0, 256, 256), 256, 256), rgb[:256, :256])
    with pytest.raises(SlideError, match=r"pyramid\.tif cannot be read at x .* of level 0"):
        read_whole(slide)


def test_a_crash_of_java_costs_one_read(qupath: QuPathProcess, project: Path, slides: Path) -> None:
    slide = open_through_qupath(qupath, project, entry_of(project, slides, "stack.tif"), z=1)
    qupath.run(crash_at_next_pixels)

    with pytest.raises(SlideError, match="Java virtual machine ended unexpectedly"):
        read_whole(slide)

    np.testing.assert_array_equal(read_whole(slide), PLANES[1])


# What batch compares


def test_pixels_that_differ_from_ours_come_from_qupath_and_that_is_noted(
    tmp_path: Path, qupath: QuPathProcess, rgb: Rgb
) -> None:
    slide = tmp_path / "a.tif"
    write_pyramid(slide, rgb[:512, :512], mpp=0.5)
    (tmp_path / "project").mkdir()
    path = tmp_path / "project" / "project.qpproj"
    qupath.run(add_images, path, [NewImage(slide)], "unset")
    (entry,) = read_project(path).images
    opener = SlideOpener(qupath, read_project(path), None)
    with opener.open(entry) as same:
        assert same.reader != "QuPath"
    assert opener.note(entry) == ""

    # QuPath's process still has the old file open; ours reads the new one.
    write_pyramid(tmp_path / "mirrored.tif", rgb[:512, :512][:, ::-1], mpp=0.5)
    (tmp_path / "mirrored.tif").replace(slide)
    opener = SlideOpener(qupath, read_project(path), None)
    with opener.open_unread(entry) as unread:
        assert unread.reader != "QuPath"
    with opener.open(entry) as other:
        assert other.reader == "QuPath"
    assert "read through QuPath" in opener.note(entry)


def test_a_file_that_only_qupath_opens_is_read_through_it_and_that_is_noted(
    tmp_path: Path, qupath: QuPathProcess
) -> None:
    slide = grid()["strips-cmyk-none"].write(tmp_path, "cmyk")
    (tmp_path / "project").mkdir()
    path = tmp_path / "project" / "project.qpproj"
    qupath.run(add_images, path, [NewImage(slide)], "unset")
    (entry,) = read_project(path).images
    opener = SlideOpener(qupath, read_project(path), 0.5)

    with opener.open(entry) as opened:
        reader = opened.reader

    assert reader == "QuPath"
    assert opener.note(entry).endswith("since this program does not open the file by itself")
