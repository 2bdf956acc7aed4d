"""What the tests of trainings share."""

from __future__ import annotations

import pytest

from fixtures.training_models import make_cache
from wsisam_qupath_training.trainer.sample_sources import CachedSamples


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> CachedSamples:
    """Views of a field of two rectangles, with features by formula."""
    return CachedSamples(make_cache(tmp_path_factory.mktemp("views")))
