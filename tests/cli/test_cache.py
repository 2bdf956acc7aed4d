"""What the cache holds is shown, and deleted when that is asked for."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from wsisam_qupath.cli.cache_contents import run_cache
from wsisam_qupath.files import CACHE_VARIABLE
from wsisam_qupath.inference.backends.openvino_backend import remove_unused


@pytest.fixture
def cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))
    for name in ("weights/a.pth", "openvino/0123/encoder.bin", "overviews/x.rgb", "notes/mine"):
        path = tmp_path / name
        path.parent.mkdir(parents=True)
        path.write_bytes(b"\0" * 2_000_000)
    return tmp_path


def files_in(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_the_sizes_of_all_parts_are_shown(
    cache_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = files_in(cache_folder)

    run_cache(clear=False)

    lines = capsys.readouterr().out.splitlines()
    assert ["openvino", "models prepared for this machine", "2.0 MB"] in [
        [part.strip() for part in line.split("  ") if part.strip()] for line in lines
    ]
    assert files_in(cache_folder) == before


def test_what_can_be_made_again_is_deleted_and_nothing_else(
    cache_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_cache(clear=True)

    assert files_in(cache_folder) == {str(Path("weights/a.pth")), str(Path("notes/mine"))}
    assert "4.0 MB were freed." in capsys.readouterr().out


def test_prepared_models_that_nobody_used_for_a_month_go(tmp_path: Path) -> None:
    for name, days in (("made", 40), ("old", 40), ("recent", 3)):
        (tmp_path / name).mkdir()
        then = time.time() - 86400 * days
        os.utime(tmp_path / name, (then, then))

    remove_unused(tmp_path, keep=tmp_path / "made")

    assert {path.name for path in tmp_path.iterdir()} == {"made", "recent"}
