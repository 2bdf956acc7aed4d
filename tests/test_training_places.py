"""Where a training run computes."""

from __future__ import annotations

import numpy as np

from wsisam_qupath_training.places import place_of


def test_tiny_numbers_are_zero_for_the_time_of_a_run_alone() -> None:
    tiny = np.float64(5e-324)

    with place_of("cpu", threads=None) as place:
        during = tiny * 1.0

    assert (place.device.type, place.rank, place.world) == ("cpu", 0, 1)
    assert during == 0
    assert tiny * 1.0 == tiny
