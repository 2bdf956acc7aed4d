"""What a user of batch chooses is done, and nothing else."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from fixtures.batch_projects import (
    BLANK,
    MIRRORED,
    OUTLINE,
    OUTSIDE,
    SECTION,
    STACK,
    files_of,
    seen_by,
    words_of,
)
from fixtures.command_line import run_here
from wsisam_qupath.options import OutlineOptions
from wsisam_qupath.project.batch.command import run_batch
from wsisam_qupath.project.batch.request import BatchRequest
from wsisam_qupath.qupath.jvm.process import QuPathProcess

pytestmark = [pytest.mark.qupath, pytest.mark.slow]


def test_outlines_are_refined_only_when_asked_for_and_as_annotations_if_wished(
    project: Path, qupath: QuPathProcess, tmp_path: Path
) -> None:
    before, report = seen_by(qupath, project), tmp_path / "report.html"
    request = BatchRequest(
        project,
        images=(SECTION,),
        only="outlines",
        options=OutlineOptions(object_type="annotation"),
        report=report,
    )

    assert run_batch(request).is_complete

    after = seen_by(qupath, project)
    (refined,) = (one for key, one in after[SECTION].items() if key not in before[SECTION])
    assert (refined.parent, refined.path_class) == (OUTLINE, "Rand")
    assert refined.type == "PathAnnotationObject"
    assert not refined.is_locked
    page = report.read_text(encoding="utf-8")
    assert OUTLINE in page
    assert "data:image/" in page

    # Now it is an annotation among others, and known as ours all the same.
    changed = files_of(project)
    assert run_batch(replace(request, report=None)).is_complete
    assert files_of(project) == changed


def test_a_dry_run_prints_a_table_and_changes_no_byte(
    project: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    before = files_of(project)

    is_complete = run_batch(
        BatchRequest(project, dry_run=True, prompts=("Gland", "Rand"), limit=3)
    ).is_complete

    lines = capfd.readouterr().out.splitlines()
    table = {line[:14].rstrip(): line[14:].split()[:4] for line in lines[:5]}
    assert is_complete
    assert table == {
        "Image": ["rectangles", "points", "outlines", "encodes"],
        BLANK: ["-"] * 4,
        SECTION: ["1", "-", "1", "1"],
        MIRRORED: ["-"] * 4,
        STACK: ["1", "-", "-", "1"],
    }
    assert lines[5:8] == [
        f"{MIRRORED}: 1 skipped",
        f"{MIRRORED}: skipped {OUTSIDE}: it lies outside of the slide.",
        f"{STACK}: 1 beyond the limit",
    ]
    assert lines[8].startswith("4 images, 3 prompts, 2 encodes: about ")
    assert lines[8].endswith(" on this machine. 0 cannot be done. Nothing was changed.")
    assert files_of(project) == before


def test_an_image_that_is_not_there_ends_it_before_anything_starts(
    project: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    before = files_of(project)

    answer = run_here(capfd, "batch", project, "--images", MIRRORED, "--images", "*.svs")

    assert (answer.code, answer.out) == (2, "")
    (line,) = words_of(answer)
    assert "--images: *.svs is no image of" in line
    assert files_of(project) == before
