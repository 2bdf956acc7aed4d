"""Images that are done are looked at last; all others keep their order."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from wsisam_qupath.project.batch.order import order_images
from wsisam_qupath.qupath.files.entries import ImageEntry, Project


def order(folder: Path, *own_files: str) -> list[str]:
    for name in own_files:
        path = folder / "wsisam-qupath" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    images = tuple(
        ImageEntry(id=one, name=one, folder=folder / "data" / one, uri="", slide=None)
        for one in ("1", "2", "3", "10")
    )
    project = Project(folder / "project.qpproj", "0.6.0", images)
    return [entry.id for entry in order_images(project, images)]


def test_a_new_project_keeps_its_order(tmp_path: Path) -> None:
    assert order(tmp_path) == ["1", "2", "3", "10"]


def test_images_with_a_history_come_last_in_their_order(tmp_path: Path) -> None:
    found = order(tmp_path, "history/1.json", "history/3.json", "history/77.json")

    assert found == ["2", "10", "1", "3"]


def test_an_image_with_results_that_wait_is_not_done(tmp_path: Path) -> None:
    found = order(tmp_path, "history/1.json", "history/2.json", "journal/2.jsonl")

    assert found == ["2", "3", "10", "1"]


@pytest.mark.skipif(os.name == "nt", reason="links need a right there")
def test_a_link_in_place_of_the_folder_is_not_followed(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "1.json").touch()
    (tmp_path / "wsisam-qupath").mkdir()
    (tmp_path / "wsisam-qupath" / "history").symlink_to(elsewhere)

    assert order(tmp_path) == ["1", "2", "3", "10"]
