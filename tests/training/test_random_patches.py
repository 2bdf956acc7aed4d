"""Patches anywhere that they meet an annotation: at one scale, each image in turn."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import numpy as np
import pytest
import shapely

from fixtures.training_data import HEIGHT_PX, MPP, OUTLINES, WIDTH_PX, make_image, read
from wsisam_qupath.slide import Slide
from wsisam_qupath_training.dataset import AnnotatedImage
from wsisam_qupath_training.sampling.random_patches import draw_random_patches
from wsisam_qupath_training.sampling.samples import Sample, SamplingSettings, rasterize_targets

SETTINGS = SamplingSettings(placement="random", chain=1, least_visible=0.0, largest_objects=16)
SIDE_PX = 64
"""Of an HR patch at 1 µm per pixel: 128 level-0 px."""

Drawn = tuple[list[AnnotatedImage], list[Sample]]


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Drawn]:
    folder = tmp_path_factory.mktemp("slides")
    for name in ("a", "b"):
        make_image(folder, name)
        (folder / f"{name}.geojson").unlink()
    images = list(read(folder).images)
    with ExitStack() as stack:
        slides: list[Slide] = [stack.enter_context(image.slide.open()) for image in images]
        samples = draw_random_patches(
            images, slides, 200, size_px=SIDE_PX, hr_mpp=1.0, settings=SETTINGS, seed=0
        )
        yield images, list(samples)


def test_each_image_has_as_many_patches(drawn: Drawn) -> None:
    _, samples = drawn

    assert [sample.image for sample in samples[:4]] == [0, 1, 0, 1]


@pytest.mark.slow
def test_every_patch_has_the_scale_of_the_paper_and_shows_a_part_of_an_object(
    drawn: Drawn,
) -> None:
    images, samples = drawn

    assert {sample.pair.hr_mpp for sample in samples} == {1.0}
    for sample in samples:
        assert len(rasterize_targets(images[sample.image], sample, SETTINGS).hr_masks)


def test_patches_are_not_fitted_to_objects_but_lie_anywhere_that_they_meet_one(
    drawn: Drawn,
) -> None:
    """Of all places that meet an object, those with their middle in one are as many as by area."""
    _, samples = drawn
    half = SIDE_PX / MPP / 2
    room = shapely.box(half, half, WIDTH_PX - half, HEIGHT_PX - half)
    objects = shapely.union_all(OUTLINES)

    middles = shapely.points([sample.pair.hr_l0_box.center for sample in samples])

    assert room.buffer(1e-6).covers(middles).all()
    inner = middles[room.buffer(-1).covers(middles)]
    expected = objects.intersection(room).area / room.area  # every place in the room meets one
    assert objects.covers(inner).mean() == pytest.approx(expected, abs=0.15)


def test_objects_end_with_their_patch(drawn: Drawn) -> None:
    images, samples = drawn

    masks = [rasterize_targets(images[one.image], one, SETTINGS) for one in samples[:20]]

    for one in masks:
        assert one.hr_whole_px.tolist() == one.hr_masks.sum(axis=(1, 2)).tolist()
    assert any(not one.is_whole.all() for one in masks)


def test_the_first_of_many_are_those_of_fewer(drawn: Drawn) -> None:
    images, samples = drawn
    with ExitStack() as stack:
        slides = [stack.enter_context(image.slide.open()) for image in images]
        fewer = draw_random_patches(
            images, slides, 6, size_px=SIDE_PX, hr_mpp=1.0, settings=SETTINGS, seed=0
        )

        assert list(fewer) == samples[:6]
    assert len({sample.seed for sample in samples}) > 190
    assert np.unique([sample.turn for sample in samples]).tolist() == list(range(8))
