"""What a batch replaced comes back, and what came back can be taken back."""

from __future__ import annotations

from pathlib import Path

import pytest

from fixtures.command_line import run
from fixtures.images import NEW, OLD, OLD_SUMMARY, Image
from fixtures.project_files import image, make_project
from wsisam_qupath.qupath.files.reading import read_project

pytestmark = pytest.mark.slow


@pytest.fixture
def committed(tmp_path: Path) -> Image:
    """A project of two images, of which the first was changed by a batch and the other never."""
    images = [image("1", "changed.svs"), image("2", "never.svs")]
    path = make_project(tmp_path / "Größe 1", images)
    project = read_project(path)
    entry = project.images[0]
    entry.folder.mkdir(parents=True, exist_ok=True)
    changed = Image(project, entry)
    changed.put("data.qpdata", OLD)
    changed.put("summary.json", OLD_SUMMARY)
    changed.commit()
    return changed


def test_the_state_before_the_batch_comes_back_with_its_summary(committed: Image) -> None:
    assert committed.entry.qpdata.read_bytes() == NEW

    answer = run("restore", committed.project.path)

    assert (answer.code, answer.out) == (0, "")
    assert committed.is_old
    assert "1 image restored, 0 failed" in answer.err


def test_a_second_restore_takes_back_the_first(committed: Image) -> None:
    run("restore", committed.project.path)
    run("restore", committed.project.path, "--images", "*1")

    assert committed.entry.qpdata.read_bytes() == NEW
    assert committed.leftovers == []


def test_an_image_that_is_not_there_is_said_to_be_none(committed: Image) -> None:
    answer = run("restore", committed.project.path, "--images", "other")

    assert answer.code == 2
    assert "--images: other is no image of" in answer.err
