"""The truth of a sample as tensors."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from wsisam_qupath_training.sampling.samples import SampleMasks
from wsisam_qupath_training.trainer.targets import make_targets


def squares(*sides: int) -> np.ndarray:
    masks = np.zeros((len(sides), 256, 256), dtype=bool)
    for mask, side in zip(masks, sides, strict=True):
        mask[100 : 100 + side, 100 : 100 + side] = True
    return masks


MASKS = SampleMasks(
    hr_masks=squares(10, 20, 30),
    lr_masks=squares(5, 10, 15),
    hr_objects=squares(30)[0],
    hr_known=squares(150)[0],
    lr_known=squares(75)[0],
    hr_whole_px=np.array([100.0, 400.0, 5000.0]),
    is_whole=np.array([True, True, False]),
)


@pytest.mark.parametrize("patch_count", [1, 2])
def test_targets_are_the_masks_of_the_objects_over_the_patches_that_are_read(
    patch_count: int,
) -> None:
    targets = make_targets(MASKS, [2, 0], patch_count, torch.device("cpu"))

    assert targets.truth.dtype == targets.known.dtype == targets.whole_px.dtype == torch.float32
    assert targets.truth.sum(dim=(2, 3)).tolist() == [
        areas[:patch_count] for areas in ([900.0, 225.0], [100.0, 25.0])
    ]
    assert targets.known.sum(dim=(2, 3)).tolist() == [[150.0**2, 75.0**2][:patch_count]]
    assert targets.known.shape == (1, patch_count, 256, 256)


def test_the_whole_area_is_a_quarter_in_the_pixels_of_the_lr_patch() -> None:
    targets = make_targets(MASKS, np.array([2, 1]), 2, torch.device("cpu"))

    assert targets.whole_px.tolist() == [[5000.0, 1250.0], [400.0, 100.0]]
