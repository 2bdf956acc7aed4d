"""Views that show some of the annotated objects alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fixtures.training_models import make_cache
from wsisam_qupath_training.trainer.sample_sources import CachedSamples, ChosenObjects

pytestmark = pytest.mark.slow


def test_chosen_objects_are_all_that_their_views_show(tmp_path: Path) -> None:
    views = CachedSamples(make_cache(tmp_path, 3))
    whole = views.load(2).truth
    assert len(whole.hr_masks) == 2

    chosen = ChosenObjects(views, {0: [0], 2: [1]})

    assert len(chosen) == 2
    truth = chosen.load(1).truth
    np.testing.assert_array_equal(truth.hr_masks, whole.hr_masks[1:])
    np.testing.assert_array_equal(truth.lr_masks, whole.lr_masks[1:])
    np.testing.assert_array_equal(truth.hr_objects, whole.hr_masks[1])
    assert truth.hr_whole_px.tolist() == whole.hr_whole_px[1:].tolist()
    assert truth.is_whole.tolist() == whole.is_whole[1:].tolist()
    assert chosen.load(1).content is not None
