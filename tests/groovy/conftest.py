"""What tests of QuPath's window share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture
def opened_pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Notes which pages are opened, in the place of the user's browser."""
    programs, opened = tmp_path / "programs", tmp_path / "opened.txt"
    programs.mkdir()
    (programs / "xdg-open").write_text(f'#!/bin/sh\necho "$1" >> "{opened}"\n')
    (programs / "xdg-open").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    return opened
