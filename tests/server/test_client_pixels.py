"""Regions that a client sent are read as the slide itself is read."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fixtures.formula import waves_rgb
from wsisam_qupath.geometry import Box, Mpp, PatchPair
from wsisam_qupath.server.client_pixels import SentImage, SentPixels
from wsisam_qupath.server.schemas import NeededRegion
from wsisam_qupath.slide import Slide, open_slide
from wsisam_qupath.slide.pyramid import write_pyramid

WIDTH, HEIGHT = 1037, 771
SIZE_PX = 64
MPP = Mpp(0.5, 0.5)

pairs = st.builds(
    PatchPair,
    l0_x=st.floats(0, WIDTH),
    l0_y=st.floats(0, HEIGHT),
    hr_mpp=st.sampled_from([0.25, 0.5, 1.0, 2**0.5, 2.0, 3.3]),
    size_px=st.just(SIZE_PX),
    mpp=st.just(MPP),
)


@pytest.fixture(scope="module")
def slide(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slide]:
    path = tmp_path_factory.mktemp("slide") / "slide.tif"
    write_pyramid(path, waves_rgb(WIDTH, HEIGHT), mpp=0.5)
    with open_slide(path) as slide:
        yield slide


def sent(slide: Slide, regions: list[NeededRegion]) -> SentPixels:
    return SentPixels(WIDTH, HEIGHT, MPP, tuple(image_of(slide, one) for one in regions))


def image_of(slide: Slide, region: NeededRegion) -> SentImage:
    x, y = region.x, region.y
    l0_box = Box(x, y, x + region.width, y + region.height)
    return SentImage(l0_box, slide.read(l0_box, region.width_px, region.height_px), str(region))


def needed(pair: PatchPair, *, with_lr: bool = True) -> list[NeededRegion]:
    return SentPixels(WIDTH, HEIGHT, MPP).lacks({pair: 1 + with_lr})


@settings(deadline=None)
@given(pair=pairs)
def test_what_was_asked_for_is_all_that_is_needed(slide: Slide, pair: PatchPair) -> None:
    regions = needed(pair)

    assert sent(slide, regions).lacks({pair: 2}) == []
    for region in regions:
        assert region.x + region.width <= WIDTH
        assert region.y + region.height <= HEIGHT
        assert region.width_px <= region.width


@settings(deadline=None)
@given(pair=pairs)
def test_patches_of_sent_pixels_are_those_of_the_slide(slide: Slide, pair: PatchPair) -> None:
    pixels = sent(slide, needed(pair))

    for l0_box in (pair.hr_l0_box, pair.lr_l0_box):
        here = slide.read(l0_box, SIZE_PX, SIZE_PX).astype(int)
        there = pixels.read(l0_box, SIZE_PX, SIZE_PX).astype(int)
        off = np.abs(here - there)
        # Where the slide ends within a pixel of a level, that pixel is of another width.
        assert np.mean(off > 3) < 0.07
        if box_is_inside(l0_box):
            assert off.max() <= 3


def box_is_inside(l0_box: Box) -> bool:
    return l0_box.x0 > 40 and l0_box.y0 > 40 and l0_box.x1 < WIDTH - 40 and l0_box.y1 < HEIGHT - 40


def test_the_lr_patch_is_asked_for_only_where_it_is_read() -> None:
    pair = PatchPair(500, 400, 1.0, SIZE_PX, MPP)

    (hr,) = needed(pair, with_lr=False)

    assert needed(pair) == [
        hr,
        NeededRegion(x=368, y=268, width=264, height=264, width_px=66, height_px=66),
    ]
    assert hr == NeededRegion(x=434, y=334, width=132, height=132, width_px=66, height_px=66)


@pytest.mark.parametrize(
    ("downsamples", "hr_mpp", "px_per_image_px"),
    [
        ((), 2.0, 4),
        ((1.0,), 2.0, 1),
        ((1.0, 4.0003, 16.01), 1.0, 1),
        ((1.0, 4.0003, 16.01), 2.0, 4),
        ((1.0, 4.0003, 16.01), 7.9, 4),
        ((1.0, 4.0003, 16.01), 8.0, 16),
        ((2.5,), 2.0, 2.5),
        ((1.0,), 0.5 * 40, 2),  # or one image would have more than 2048 px a side
    ],
)
def test_pixels_are_asked_for_at_a_level_of_the_slide(
    downsamples: tuple[float, ...], hr_mpp: float, px_per_image_px: float
) -> None:
    pixels = SentPixels(100_000, 80_000, MPP, downsamples=downsamples)

    (one,) = pixels.lacks({PatchPair(50_000, 40_000, hr_mpp, SIZE_PX, MPP): 1})

    assert one.width / one.width_px == pytest.approx(px_per_image_px, rel=0.01)


def test_a_patch_off_the_slide_needs_nothing_and_is_white() -> None:
    pixels = SentPixels(WIDTH, HEIGHT, MPP)
    far = PatchPair(9000, 9000, 1.0, SIZE_PX, MPP)

    assert pixels.lacks({far: 2}) == []
    assert pixels.read(far.hr_l0_box, SIZE_PX, SIZE_PX).min() == 255


def test_other_pixels_of_the_same_place_are_another_source(slide: Slide) -> None:
    regions = needed(PatchPair(500, 400, 1.0, SIZE_PX, MPP))
    pixels = sent(slide, regions)

    assert sent(slide, regions).identity == pixels.identity
    assert sent(slide, regions[:1]).identity != pixels.identity
