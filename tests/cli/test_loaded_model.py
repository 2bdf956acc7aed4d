"""A model that is loaded while a command does other things."""

from __future__ import annotations

from pathlib import Path

import pytest

from fixtures.engine_runs import MODEL
from wsisam_qupath.cli.loaded_model import LoadedModel
from wsisam_qupath.errors import DeviceError
from wsisam_qupath.files import CACHE_VARIABLE
from wsisam_qupath.options import ModelSpec
from wsisam_qupath.report.progress import stderr_console

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("begins", [False, True])
def test_a_model_is_loaded_once(begins: bool) -> None:
    loaded = LoadedModel(MODEL)
    if begins:
        loaded.begin()

    segmenter = loaded.load(stderr_console())

    assert segmenter is loaded.load(stderr_console())
    assert segmenter.predictor.base == loaded.resolved.base


def test_what_goes_wrong_is_raised_where_the_model_is_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "file" / "cache"))
    loaded = LoadedModel(ModelSpec())

    loaded.begin()

    with pytest.raises(DeviceError, match="graphs cannot be kept"):
        loaded.load(stderr_console())
