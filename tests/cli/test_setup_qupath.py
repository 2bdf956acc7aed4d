"""``setup`` finds QuPath or installs it, and leaves alone what is there."""

import platform
import tarfile
import zipfile
from pathlib import Path

import pytest

from fixtures.homes import everything_in, request, step
from fixtures.qupath_folders import make_qupath
from wsisam_qupath.cli.setup_steps import exit_code, run_setup
from wsisam_qupath.qupath.install import download


def test_a_qupath_that_is_there_is_found_and_left_as_it_is(home: Path) -> None:
    app_dir = make_qupath(home / "QuPath-0.6.0")
    before = everything_in(home / "QuPath-0.6.0")

    found = step(run_setup(request(home)), "QuPath")

    assert (found.state, found.detail) == ("already there", f"QuPath 0.6.0 at {app_dir}")
    assert everything_in(home / "QuPath-0.6.0") == before


def test_without_a_network_installing_fails_with_the_cure_and_leaves_nothing(home: Path) -> None:
    steps = run_setup(request(home, qupath_dir=home / "programs"))

    failed = step(steps, "QuPath")
    assert failed.state == "failed"
    assert failed.detail.startswith("QuPath 0.6.0 cannot be downloaded from github.com (")
    assert f"into {home / 'programs'} and run this again" in failed.detail
    assert "PAQUO_QUPATH_DIR" in failed.detail
    assert everything_in(home / "programs") == []
    assert exit_code(steps) == 2


def test_installing_can_be_declined(home: Path) -> None:
    failed = step(run_setup(request(home, install=False)), "QuPath")

    assert failed.state == "failed"
    assert "There is no QuPath where paquo looks for it" in failed.detail


@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [
        ("PAQUO_QUPATH_DIR", "/nowhere", "which has no QuPath"),
        ("PAQUO_JVM_PATH_OVERRIDE", "/nowhere", "which is not a file"),
    ],
)
def test_a_setting_that_is_wrong_is_said_and_nothing_installed(
    home: Path, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, words: str
) -> None:
    monkeypatch.setenv(variable, value)

    failed = step(run_setup(request(home, dry_run=True)), "QuPath")

    assert failed.state == "failed"
    assert words in failed.detail


def write_archive(folder: Path) -> Path:
    """An archive as QuPath is released in, with hardly anything in it."""
    make_qupath(folder / "made" / "QuPath")
    path = folder / download._archive_name()
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as zipped:
            for file in everything_in(folder / "made"):
                zipped.write(file, file.relative_to(folder / "made"))
    else:
        with tarfile.open(path, "w:xz") as tar:
            tar.add(folder / "made" / "QuPath", "QuPath")
    return path


packed = pytest.mark.skipif(
    platform.system() == "Darwin", reason="only macOS makes packages of macOS"
)


@pytest.mark.slow
@packed
def test_an_archive_that_was_brought_is_installed_where_paquo_finds_it(
    home: Path, tmp_path: Path
) -> None:
    write_archive(tmp_path).rename(home / download._archive_name())

    first, second = (step(run_setup(request(home)), "QuPath") for _ in range(2))

    assert (first.state, second.state) == ("done", "already there")
    assert first.detail == second.detail
    assert first.detail.startswith(f"QuPath 0.6.0 at {home / 'QuPath-0.6.0'}")
    assert sorted(path.name for path in home.iterdir()) == [
        ".wsisam-qupath",  # where the program is
        "QuPath-0.6.0",
        download._archive_name(),
        "user",
    ]


@packed
def test_installed_where_paquo_does_not_search_the_variable_to_set_is_named(
    home: Path, tmp_path: Path
) -> None:
    programs = home / "programs"
    programs.mkdir()
    write_archive(tmp_path).rename(programs / download._archive_name())

    first, second = (
        step(run_setup(request(home, qupath_dir=programs)), "QuPath") for _ in range(2)
    )

    assert (first.state, second.state) == ("done", "already there")
    assert f"Set PAQUO_QUPATH_DIR to {programs / 'QuPath-0.6.0'}" in first.detail
    assert f"Set PAQUO_QUPATH_DIR to {programs / 'QuPath-0.6.0'}" in second.detail


@packed
def test_a_damaged_archive_installs_nothing(home: Path, tmp_path: Path) -> None:
    content = write_archive(tmp_path).read_bytes()
    (home / download._archive_name()).write_bytes(content[: len(content) // 2])

    failed = step(run_setup(request(home)), "QuPath")

    assert failed.state == "failed"
    assert f"{home / download._archive_name()} is damaged" in failed.detail
    assert sorted(path.name for path in home.iterdir()) == [
        ".wsisam-qupath",
        download._archive_name(),
        "user",
    ]


def test_something_else_in_the_place_of_qupath_is_not_touched(home: Path) -> None:
    place = download.find_installed_path(home)
    place.mkdir()
    (place / "thesis.txt").write_text("all of it", encoding="utf-8")

    failed = step(run_setup(request(home)), "QuPath")

    assert failed.detail == f"{place} is there, but holds no QuPath: remove it and run this again."
    assert everything_in(place) == [place / "thesis.txt"]
