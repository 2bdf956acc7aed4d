"""The cores that a process may use are those that everybody leaves it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from wsisam_qupath.inference import cores
from wsisam_qupath.inference.cores import count_usable_cores


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 64 cores, in the group a/b."""
    monkeypatch.setattr(cores, "_count_allowed", lambda: 64)
    monkeypatch.setattr(cores, "_find_own_group", lambda: Path("a/b"))


def limit(folder: Path, text: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cpu.max").write_text(text, "ascii")


def test_alone_on_a_machine_all_cores_are_used(tmp_path: Path) -> None:
    assert count_usable_cores({}, tmp_path) == 64


@pytest.mark.parametrize(
    ("text", "count"),
    [("400000 100000\n", 4), ("max 100000\n", 64), ("50000 100000", 1), ("?", 64)],
)
def test_a_container_has_what_its_quota_allows(tmp_path: Path, text: str, count: int) -> None:
    limit(tmp_path / "a" / "b", text)

    assert count_usable_cores({}, tmp_path) == count


def test_the_quota_of_a_group_around_counts_too(tmp_path: Path) -> None:
    limit(tmp_path / "a" / "b", "1600000 100000")
    limit(tmp_path, "800000 100000")

    assert count_usable_cores({}, tmp_path) == 8


def test_older_systems_write_the_quota_in_two_files(tmp_path: Path) -> None:
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text("300000\n", "ascii")
    (tmp_path / "cpu" / "cpu.cfs_period_us").write_text("100000\n", "ascii")

    assert count_usable_cores({}, tmp_path) == 3


def test_a_job_of_slurm_has_what_it_was_given(tmp_path: Path) -> None:
    assert count_usable_cores({"SLURM_CPUS_ON_NODE": "16"}, tmp_path) == 16
    assert (
        count_usable_cores({"SLURM_CPUS_ON_NODE": "16", "SLURM_CPUS_PER_TASK": "2"}, tmp_path) == 2
    )


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system has no affinity")
def test_a_process_that_is_bound_to_a_core_uses_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.undo()
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})
    try:
        assert count_usable_cores({}, tmp_path) == 1
    finally:
        os.sched_setaffinity(0, allowed)
