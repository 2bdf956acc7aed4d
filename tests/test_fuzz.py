"""Each fuzz target for a moment; ``scripts/fuzz.py`` runs them for as long as one likes."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import pytest

HELPERS = {"mutation"}
TARGETS = sorted(path.stem for path in Path(__file__).with_name("fuzz").glob("*.py"))
SEEDS = 40


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("target", [name for name in TARGETS if name not in HELPERS])
def test_a_target_takes_what_is_almost_right(target: str) -> None:
    run = import_module(f"fuzz.{target}").run

    for seed in range(SEEDS):
        run(seed)
