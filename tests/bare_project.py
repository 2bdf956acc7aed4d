"""A project of which only the folder is there: what journals and ledgers need."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from disks import small_disk
from wsisam_qupath.project.entries import ImageEntry, Project

SLIDE = "file:/Präparat 1.tif|123|456"
ENTRY = ImageEntry("12", "Präparat 1", Path("data/12"), "file:/Pr%C3%A4parat%201.tif", None)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    path = tmp_path / "Projekt Größe 1" / "project.qpproj"
    path.parent.mkdir()
    return Project(path, "0.6.0", (ENTRY,))


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Project]:
    """A project on a disk of 64 KiB."""
    with small_disk(tmp_path, 64) as folder:
        yield Project(folder / "project.qpproj", "0.6.0", (ENTRY,))
