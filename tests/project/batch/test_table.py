"""The prompts of a project as a table, and the results of its jobs back in the project."""

from __future__ import annotations

from pathlib import Path

import pytest

from fixtures.batch_projects import (
    BLANK,
    MIRRORED,
    SECTION,
    STACK,
    batched_copy,
    files_of,
    leftovers,
    seen_by,
)
from fixtures.command_line import run
from wsisam_qupath.errors import OptionError
from wsisam_qupath.project.batch.request import BatchRequest
from wsisam_qupath.project.slide_table.rows import read_rows
from wsisam_qupath.qupath.jvm.process import QuPathProcess


@pytest.mark.slow
@pytest.mark.qupath
def test_results_of_a_table_are_those_of_a_batch(
    qupath: QuPathProcess, project: Path, tmp_path: Path
) -> None:
    # A table's jobs may run on any machine, so that none of them chooses int8 for itself.
    plain = batched_copy(qupath, project, tmp_path / "plain", "--precision", "bf16")
    before = files_of(project)
    table, out = tmp_path / "slides.csv", tmp_path / "out"

    written = run("batch", project, "--to-table", table)
    assert written.code == 0, written.err
    assert files_of(project) == before
    assert [row.name for row in read_rows(table)] == [SECTION, MIRRORED]
    assert f"{STACK}: only QuPath can read it" in written.err
    done = run("segment", "--table", table, "-o", out)
    assert done.code == 0, done.err
    merged = run("batch", project, "--from", out)
    assert merged.code == 0, merged.err

    assert f"{STACK}: 2 of 2 prompts have no result there." in merged.err
    after = seen_by(qupath, project)
    for name in (SECTION, MIRRORED, BLANK):
        assert after[name] == plain.after[name]
    assert after[STACK] == plain.before[STACK]
    assert leftovers(project) == []
    otherwise = run("batch", project, "--from", out, "--redo", "--object-size", "9")
    assert otherwise.code == 3
    assert "Give the model and the options" in otherwise.err
    assert seen_by(qupath, project) == after


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"from_folder": Path("out")}, {"to_table": Path("t.csv")}),
        ({"from_folder": Path("out")}, {"workers": 2}),
        ({"from_folder": Path("out")}, {"dry_run": True}),
        ({"to_table": Path("t.csv")}, {"dask": "tcp://a:1"}),
        ({"to_table": Path("t.csv")}, {"report": Path("r.csv")}),
    ],
)
def test_nothing_is_answered_here_and_elsewhere(
    one: dict[str, Path], other: dict[str, object]
) -> None:
    with pytest.raises(OptionError, match="cannot be combined with"):
        BatchRequest(Path("p"), **one, **other)  # type: ignore[arg-type]
