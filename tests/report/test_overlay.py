from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from shapely.geometry import Polygon, box

from fixtures.formula import FormulaReader
from wsisam_qupath.errors import OutputError
from wsisam_qupath.geojson import to_feature
from wsisam_qupath.geometry import Box, Mpp
from wsisam_qupath.prompts import PathClass, Prompt
from wsisam_qupath.prompts.results import Provenance, Result
from wsisam_qupath.report.overlay import LONGEST_PX, write_overlay
from wsisam_qupath.slide import Slide, SlideReference
from wsisam_qupath.slide.slide import SlideIdentity

YELLOW, GREEN, RED, BLUE = (255, 214, 10), (48, 209, 88), (255, 69, 58), (10, 132, 255)
PROVENANCE = Provenance("base", "0" * 64, None, None, 1.0, None, "hr", "0")
RING = Polygon(
    [(100, 100), (300, 100), (300, 300), (100, 300)],
    [[(150, 150), (250, 150), (250, 250), (150, 250)]],
)


def slide_of(width: int, height: int) -> Slide:
    """A slide whose pixels are a formula, 0.5 µm/px."""
    identity = SlideIdentity("formula", 0, 0)
    reference = SlideReference("formula")
    reader = FormulaReader(width, height)
    return Slide(reader, mpp=Mpp(0.5, 0.5), reference=reference, identity=identity)


@pytest.fixture
def slide() -> Iterator[Slide]:
    with slide_of(400, 400) as slide:
        yield slide


def result(outline: Polygon, path_class: PathClass | None = None) -> Result:
    prompt = Prompt("p", l0_outline=outline, path_class=path_class)
    return Result(prompt, "id", outline, 0.9, 0.9, 1.0, PROVENANCE)


def drawn(
    folder: Path, slide: Slide, prompts: list[Prompt], results: list[Result]
) -> NDArray[np.uint8]:
    """The picture, HWC uint8 RGB."""
    path = folder / "overlay.png"
    write_overlay(path, slide, prompts, [to_feature(one, "detection") for one in results])
    with Image.open(path) as picture:
        assert (picture.format, picture.mode) == ("PNG", "RGB")
        return np.asarray(picture)


def test_without_prompts_the_picture_is_the_bare_slide(tmp_path: Path, slide: Slide) -> None:
    pixels = drawn(tmp_path, slide, [], [])

    np.testing.assert_array_equal(pixels, slide.read(slide.l0_box, 800, 800))


def test_outlines_are_traced_with_their_holes_and_filled_lightly(
    tmp_path: Path, slide: Slide
) -> None:
    everything = Prompt("all", l0_box=slide.l0_box)

    pixels = drawn(tmp_path, slide, [everything], [result(RING)])

    bare = slide.read(slide.l0_box, 800, 800)
    for x, y in ((100, 200), (300, 200), (200, 100), (200, 300), (150, 200), (200, 250)):
        assert tuple(pixels[2 * y, 2 * x]) == BLUE
    for x, y in ((200, 200), (50, 200), (200, 350)):  # in the hole, and outside
        assert tuple(pixels[2 * y, 2 * x]) == tuple(bare[2 * y, 2 * x])
    veiled = bare[250, 400] + (np.array(BLUE) - bare[250, 400].astype(float)) * 70 / 255
    np.testing.assert_allclose(pixels[250, 400], veiled, atol=1)


def test_a_class_lends_its_colour_to_its_outlines(tmp_path: Path, slide: Slide) -> None:
    tumour = PathClass("Tumour", (200, 0, 0))
    everything = Prompt("all", l0_box=slide.l0_box)

    pixels = drawn(tmp_path, slide, [everything], [result(RING, tumour)])

    assert tuple(pixels[200, 400]) == (200, 0, 0)


def test_prompts_are_yellow_and_their_points_green_and_red(tmp_path: Path, slide: Slide) -> None:
    marked = Prompt(
        "box", Box(50, 60, 350, 340), l0_positives=((200, 200),), l0_negatives=((120, 120),)
    )
    rough = Prompt("rough", l0_outline=box(0, 0, 400, 400).difference(box(20, 20, 380, 380)))

    pixels = drawn(tmp_path, slide, [marked, rough], [])

    assert tuple(pixels[400, 100]) == tuple(pixels[120, 400]) == YELLOW
    assert tuple(pixels[400, 40]) == YELLOW  # the hole of the outline
    assert tuple(pixels[400, 400]) == GREEN
    assert tuple(pixels[240, 240]) == RED


def test_the_picture_is_cut_round_the_prompts_with_a_margin(tmp_path: Path) -> None:
    with slide_of(100_000, 80_000) as slide:
        pixels = drawn(tmp_path, slide, [Prompt("p", Box(5000, 6000, 6000, 7000))], [])

        # 80 px on each side, and no pixel of level 0 enlarged.
        bare = slide.read(Box(4920, 5920, 6080, 7080), 1160, 1160)
    assert pixels.shape == (1160, 1160, 3)
    np.testing.assert_array_equal(pixels[:70, :70], bare[:70, :70])


@pytest.mark.parametrize(
    ("width", "height", "shape"),
    [
        (1, 1, (800, 800, 3)),
        (30_000, 10, (1, LONGEST_PX, 3)),
        (3000, 300, (200, LONGEST_PX, 3)),
    ],
)
def test_pictures_of_odd_slides_have_a_size_to_look_at(
    tmp_path: Path, width: int, height: int, shape: tuple[int, int, int]
) -> None:
    with slide_of(width, height) as slide:
        pixels = drawn(tmp_path, slide, [Prompt("p", slide.l0_box)], [])

    assert pixels.shape == shape


def test_a_lone_point_is_shown_with_the_tissue_round_it(tmp_path: Path, slide: Slide) -> None:
    pixels = drawn(tmp_path, slide, [Prompt("p", l0_positives=((200, 200),))], [])

    assert pixels.shape == (800, 800, 3)
    assert tuple(pixels[400, 400]) == GREEN


def test_a_folder_that_is_not_there_is_named(tmp_path: Path, slide: Slide) -> None:
    with pytest.raises(OutputError, match="There is no folder"):
        write_overlay(tmp_path / "missing" / "overlay.png", slide, [], [])
