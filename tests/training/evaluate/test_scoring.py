"""Overlap of clicked masks with an object, and where an annotation says what is there."""

import numpy as np
import pytest
import shapely

from fixtures.evaluate_models import PAIR, SQUARE
from wsisam_qupath.errors import OptionError
from wsisam_qupath.prompts.encoding import MASK_PX
from wsisam_qupath.slide import SlideReference
from wsisam_qupath_training.dataset import AnnotatedImage, Truth
from wsisam_qupath_training.evaluate.scoring import (
    check_logits,
    find_known_part,
    make_target,
    overlap,
)

EVERYWHERE = shapely.box(-1000, -1000, 1000, 1000)


def test_of_clicked_masks_what_lies_outside_of_the_patch_was_missed() -> None:
    truth = shapely.box(156, 50, 356, 150)  # half of it beyond 256
    target = make_target(truth, EVERYWHERE, PAIR, MASK_PX)

    assert overlap(target, target.truth).iou == pytest.approx(0.5)


def test_of_clicked_masks_what_is_not_known_does_not_count() -> None:
    wide = make_target(shapely.box(60, 50, 200, 150), EVERYWHERE, PAIR, MASK_PX).truth

    partly = make_target(SQUARE, shapely.box(0, 0, 160, 256), PAIR, MASK_PX)

    assert overlap(make_target(SQUARE, EVERYWHERE, PAIR, MASK_PX), wide).iou < 0.9
    assert overlap(partly, wide).iou == 1.0


def test_an_object_finer_than_pixels_is_still_one() -> None:
    target = make_target(shapely.box(100.02, 100.02, 100.1, 100.1), EVERYWHERE, PAIR, MASK_PX)

    assert np.argwhere(target.truth).tolist() == [[100, 100]]


def test_logits_of_another_shape_are_refused() -> None:
    with pytest.raises(OptionError, match=r"\(128, 128\).*256 x 256"):
        check_logits(np.zeros((128, 128), dtype=np.float32))


def test_nothing_is_known_outside_of_the_image_and_of_complete_regions() -> None:
    image = shapely.box(0, 0, 200, 200)
    truth = Truth("1", shapely.box(150, 150, 180, 180), "gland")
    complete = shapely.box(-50, 0, 100, 100)
    where = SlideReference("nowhere")

    everywhere = find_known_part(AnnotatedImage("f", "d", "g", where, (truth,)), image)
    partly = find_known_part(
        AnnotatedImage("f", "d", "g", where, (truth,), l0_complete=complete), image
    )

    assert everywhere.equals(image)
    assert partly.area == 100 * 100 + 30 * 30
