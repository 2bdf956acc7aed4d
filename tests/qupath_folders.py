"""Folders that look like an installed QuPath, and searches that find nothing else."""

from __future__ import annotations

import json
import platform
from pathlib import Path

import pytest


def make_qupath(folder: Path, version: str = "0.6.0") -> Path:
    """Lay out what paquo takes for a QuPath; returns the folder with the jars.

    Its Java is an empty file: whoever tried to start it would fail.
    """
    parts = {
        "Linux": ("lib/app", "lib/runtime", "lib/server/libjvm.so"),
        "Darwin": ("Contents/app", "Contents/runtime/Contents/Home", "lib/libjli.dylib"),
        "Windows": ("app", "runtime", "bin/server/jvm.dll"),
    }
    app, runtime, jvm = parts[platform.system()]
    (folder / app).mkdir(parents=True)
    (folder / runtime / jvm).parent.mkdir(parents=True)
    (folder / runtime / jvm).write_bytes(b"")
    (folder / runtime / "release").write_text(
        'IMPLEMENTOR="Somebody"\nJAVA_VERSION="21.0.5"\nJAVA_VERSION_DATE="2024-10-15"\n',
        encoding="utf-8",
    )
    jars = (f"qupath-core-{version}", f"qupath-core-processing-{version}", "qupath-fx-0.2.0")
    for jar in jars:
        (folder / app / f"{jar}.jar").write_bytes(b"")
    return folder / app


def search_only(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Let paquo search for QuPath in one folder, and nowhere else on this machine."""
    monkeypatch.delenv("PAQUO_QUPATH_DIR", raising=False)
    monkeypatch.setenv("PAQUO_QUPATH_SEARCH_CONDA", "false")
    monkeypatch.setenv("PAQUO_QUPATH_SEARCH_DIRS", json.dumps([folder.as_posix()]))
