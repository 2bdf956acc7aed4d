from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from shapely.geometry import box

from fixtures.formula import FormulaReader
from fixtures.outcomes import (
    ABOUT,
    BLUE,
    GREY,
    NEGATIVE,
    POSITIVE,
    RED,
    YELLOW,
    image_of,
    outlined,
    read_page,
)
from wsisam_qupath.geometry import Box, Mpp
from wsisam_qupath.prompts import Plane, Prompt
from wsisam_qupath.report.outcome import ImageOutcome, PromptRow
from wsisam_qupath.report.page import Pages
from wsisam_qupath.report.thumbnails import draw_thumbnails
from wsisam_qupath.slide import Slide, SlideReference
from wsisam_qupath.slide.slide import SlideIdentity


def pixels_of(image: ImageOutcome) -> NDArray[np.uint8]:
    """The picture of the first row, HWC uint8 RGB."""
    [thumbnail, *_] = draw_thumbnails(image, image.rows)
    assert thumbnail.jpeg is not None
    with Image.open(io.BytesIO(thumbnail.jpeg)) as picture:
        assert (picture.format, picture.mode, picture.size) == ("JPEG", "RGB", (200, 200))
        return np.asarray(picture)


def assert_colour(
    pixels: NDArray[np.uint8], x: float, y: float, rgb: tuple[int, int, int], atol: int = 40
) -> None:
    """Whether it is at a point, or at a pixel beside it: lines are thin, and JPEG smears them."""
    column, row = int(x), int(y)
    near = pixels[row - 1 : row + 2, column - 1 : column + 2].astype(int)
    assert np.abs(near - rgb).max(axis=2).min() <= atol


def test_the_outline_has_its_class_colour_and_the_prompt_is_yellow(grey: Path) -> None:
    pixels = pixels_of(image_of(grey, outlined()))

    # 320 px of level 0, from 40 to 360, on 200 px: the prompt and 30 % on each side.
    for far in (50, 150):
        assert_colour(pixels, far, 100, RED)
        assert_colour(pixels, 100, far, RED)
    for edge in (37.5, 162.5):
        assert_colour(pixels, edge, 100, YELLOW, atol=70)
        assert_colour(pixels, 100, edge, YELLOW, atol=70)
    for x, y in ((10, 10), (100, 100), (190, 190), (100, 25)):
        assert_colour(pixels, x, y, GREY, atol=5)


def test_holes_are_traced_and_an_outline_without_class_is_blue(grey: Path) -> None:
    ring = box(120, 120, 280, 280).difference(box(160, 160, 240, 240))

    pixels = pixels_of(image_of(grey, outlined(outline=ring, path_class=None)))

    assert_colour(pixels, 50, 100, BLUE)
    assert_colour(pixels, 75, 100, BLUE)
    assert_colour(pixels, 100, 100, GREY, atol=5)


def test_points_are_green_and_red(grey: Path) -> None:
    clicked = Prompt("p", l0_positives=((150, 200), (250, 200)), l0_negatives=((200, 230),))

    pixels = pixels_of(image_of(grey, PromptRow("p", "empty", prompt=clicked)))

    # 160 px of level 0, from 120 to 280.
    assert_colour(pixels, 37.5, 100, POSITIVE)
    assert_colour(pixels, 162.5, 100, POSITIVE)
    assert_colour(pixels, 100, 137.5, NEGATIVE)


def test_small_objects_are_shown_with_twenty_micrometres_of_tissue(grey: Path) -> None:
    nucleus = outlined("nucleus", Box(195, 195, 205, 205), box(197, 197, 203, 203))

    pixels = pixels_of(image_of(grey, nucleus))

    # 40 px of level 0, from 180 to 220.
    assert_colour(pixels, 85, 100, RED)
    assert_colour(pixels, 60, 100, GREY, atol=5)


def test_beyond_the_slide_all_is_white(grey: Path) -> None:
    edge = outlined("edge", Box(0, 0, 200, 200), box(20, 20, 180, 180))

    pixels = pixels_of(image_of(grey, edge))

    assert_colour(pixels, 10, 10, (255, 255, 255), atol=5)
    assert_colour(pixels, 100, 100, GREY, atol=5)


def test_an_outline_that_outgrew_its_prompt_is_seen_whole(grey: Path) -> None:
    grown = outlined("p", Box(190, 190, 210, 210), box(100, 100, 300, 300))

    pixels = pixels_of(image_of(grey, grown))

    assert_colour(pixels, 37.5, 100, RED)
    assert_colour(pixels, 162.5, 100, RED)


def test_a_slide_that_is_gone_gives_no_picture_but_the_cure(tmp_path: Path) -> None:
    [thumbnail] = draw_thumbnails(image_of(tmp_path / "gone.svs", outlined()), [outlined()])

    assert thumbnail.jpeg is None
    assert "gone.svs does not exist. Check where the slide is now." in thumbnail.trouble


def test_without_a_reader_of_ours_there_is_no_picture(grey: Path) -> None:
    in_a_stack = outlined(plane=Plane(z=2))
    thumbnails = [
        *draw_thumbnails(image_of(None, outlined()), [outlined()]),
        *draw_thumbnails(image_of(grey, in_a_stack), [in_a_stack]),
    ]

    trouble = "No reader of this program opens its slide: look at it in QuPath."
    assert thumbnails == [(None, trouble)] * 2


def formula_slide(width: int = 400) -> tuple[Slide, FormulaReader]:
    reader = FormulaReader(width, 400)
    slide = Slide(
        reader,
        mpp=Mpp(0.5, 0.5),
        reference=SlideReference("formula"),
        identity=SlideIdentity("formula", 0, 0),
    )
    return slide, reader


def test_slides_are_opened_by_the_caller_plane_by_plane_one_at_a_time() -> None:
    asked: list[tuple[str, int]] = []
    readers: list[FormulaReader] = []

    def open_slide_of(image: ImageOutcome, plane: Plane) -> Slide:
        assert all(reader.is_closed for reader in readers)
        slide, reader = formula_slide()
        asked.append((image.name, plane.z))
        readers.append(reader)
        return slide

    stack = [outlined("a", plane=Plane(z=3)), outlined("b"), outlined("c", plane=Plane(z=3))]
    images = [image_of(None, *stack, name="stack"), image_of(None, outlined(), name="flat", id="2")]

    page = read_page(Pages(images, ABOUT, open_slide_of).render(1))

    assert asked == [("stack", 3), ("stack", 0), ("flat", 0)]
    assert all(reader.is_closed for reader in readers)
    assert len(page.pictures) == 4
