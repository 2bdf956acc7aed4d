from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from rich.console import Console

from fixtures.probes import probe
from fixtures.qupath_folders import make_qupath, search_only
from wsisam_qupath.cli.doctor_checks import (
    PROBES,
    Check,
    exit_code,
    print_doctor,
    project_probe,
    run_doctor,
    run_probe,
)
from wsisam_qupath.errors import QuPathError
from wsisam_qupath.qupath.install import scripts
from wsisam_qupath.qupath.install.installation import Installation, find_installation
from wsisam_qupath.qupath.jvm.creation import NewImage, add_images
from wsisam_qupath.qupath.jvm.process import QuPathProcess
from wsisam_qupath.report.progress import stderr_console

pytestmark = pytest.mark.slow

WORKS = Check("thing", "ok", "1.0", None, required=True)
OPTIONAL_TROUBLE = Check("extra", "warning", "missing", "Run `get extra`.", required=False)
REQUIRED_TROUBLE = Check("core", "failed", "[Errno 2] gone", "Run `get core`.", required=True)


def table(checks: list[Check], width: int = 80) -> str:
    """The table as a pipe gets it."""
    out = io.StringIO()
    print_doctor(checks, Console(file=out, width=width))
    return out.getvalue()


@pytest.fixture
def installed() -> Installation:
    try:
        return find_installation()
    except QuPathError as exc:
        pytest.skip(f"no QuPath here: {exc}")


# The whole


def test_everything_required_works_where_the_tests_run() -> None:
    checks = run_doctor(None, stderr_console())

    assert [check.name for check in checks] == list(PROBES)
    assert [check for check in checks if check.required and check.state != "ok"] == []
    assert exit_code(checks) == 0
    assert all((check.state == "ok") == (check.fix is None) for check in checks)


def test_importing_the_doctor_loads_nothing_heavy() -> None:
    code = (
        "import sys, wsisam_qupath.cli.doctor_checks\n"
        "heavy = {'torch', 'numpy', 'openvino', 'openslide', 'paquo', 'jpype', 'rich'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize(
    ("checks", "code"),
    [([WORKS], 0), ([WORKS, OPTIONAL_TROUBLE], 0), ([REQUIRED_TROUBLE, WORKS], 1)],
    ids=["all works", "something optional does not", "something required does not"],
)
def test_exit_code_is_1_only_if_something_required_failed(checks: list[Check], code: int) -> None:
    assert exit_code(checks) == code


# The table


def test_piped_table_is_plain_text_with_the_cure_under_what_does_not_work() -> None:
    lines = [
        line.rstrip() for line in table([WORKS, OPTIONAL_TROUBLE, REQUIRED_TROUBLE]).splitlines()
    ]
    assert lines == [
        "State    What   Found",
        "ok       thing  1.0",
        "warning  extra  missing",
        "                -> Run `get extra`.",
        "failed   core   [Errno 2] gone",
        "                -> Run `get core`.",
        "Needed, but not working: core.",
    ]


def test_table_fits_80_columns_and_loses_no_letter_of_a_long_path() -> None:
    path = "/" + "/".join(f"folder{number}" for number in range(30))
    text = table([Check("thing", "ok", path, None, required=False)])

    lines = text.splitlines()
    assert max(len(line) for line in lines) <= 80
    assert path in "".join(line[len("State  What   ") :].strip() for line in lines)


def test_table_for_a_terminal_without_unicode_is_ascii() -> None:
    raw = io.BytesIO()
    out = io.TextIOWrapper(raw, encoding="ascii")
    print_doctor([WORKS, REQUIRED_TROUBLE], Console(file=out, width=80))
    out.flush()
    assert b"Run `get core`." in raw.getvalue()


# QuPath


def test_qupath_is_found_where_the_environment_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    app_dir = make_qupath(tmp_path / "mine")
    monkeypatch.setenv("PAQUO_QUPATH_DIR", str(tmp_path / "mine"))

    check = probe("QuPath")

    assert (check.state, check.detail) == ("ok", f"0.6.0 at {app_dir}, Java 21.0.5")


def test_qupath_is_found_where_paquo_searches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    app_dir = make_qupath(tmp_path / "QuPath-0.6.0")
    search_only(monkeypatch, tmp_path)
    assert probe("QuPath").detail.startswith(f"0.6.0 at {app_dir}, ")


def test_qupath_of_unknown_version_is_still_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    app_dir = make_qupath(tmp_path)
    (app_dir / "qupath-core-0.6.0.jar").unlink()
    next(tmp_path.rglob("release")).unlink()
    monkeypatch.setenv("PAQUO_QUPATH_DIR", str(tmp_path))

    check = probe("QuPath")

    assert check.state == "ok"
    assert check.detail.startswith("Unknown version, which is newer than what was tested at ")
    assert check.detail.endswith("Java of unknown version")


def test_qupath_that_is_too_old_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_qupath(tmp_path, "0.4.4")
    monkeypatch.setenv("PAQUO_QUPATH_DIR", str(tmp_path))

    check = probe("QuPath")

    assert check.state == "warning"
    assert check.fix is not None
    assert "is 0.4.4, which is too old" in check.fix


def test_no_qupath_is_a_warning_with_the_command_that_gets_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    search_only(monkeypatch, tmp_path)

    check = probe("QuPath")

    assert (check.state, check.required) == ("warning", False)
    assert check.fix is not None
    assert "wsisam-qupath setup" in check.fix
    assert "PAQUO_QUPATH_DIR" in check.fix


def test_qupath_named_where_there_is_none_is_a_warning_that_names_the_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PAQUO_QUPATH_DIR", str(tmp_path / "nowhere"))

    check = probe("QuPath")

    assert check.state == "warning"
    assert check.fix is not None
    assert str(tmp_path / "nowhere") in check.fix
    assert "PAQUO_QUPATH_DIR" in check.fix


@pytest.mark.parametrize("name", ["Java", "QuPath project", "Groovy scripts"])
def test_what_needs_a_qupath_is_not_tried_without_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    search_only(monkeypatch, tmp_path)

    check = probe(name)

    assert (check.state, check.required) == ("warning", False)
    assert check.fix == "See the line of QuPath."


def test_java_that_does_not_start_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_qupath(tmp_path)
    monkeypatch.setenv("PAQUO_QUPATH_DIR", str(tmp_path))

    check = probe("Java")

    assert check.state == "warning"
    assert "does not start" in check.detail
    assert check.fix == "Start QuPath itself, to see whether it works on this machine."


@pytest.mark.qupath
def test_java_and_qupath_say_their_versions(installed: Installation) -> None:
    check = probe("Java")

    assert check.state == "ok"
    assert check.detail.startswith(f"{installed.java_version} runs QuPath {installed.version}")


@pytest.mark.qupath
def test_qupath_makes_a_project_and_opens_it(installed: Installation) -> None:
    check = probe("QuPath project")
    assert (check.state, check.detail) == ("ok", "a new one opens, images: 1")


@pytest.mark.qupath
def test_a_project_is_opened_and_its_trouble_told(installed: Installation, tmp_path: Path) -> None:
    names = ["here.png", "gone.png"]
    for name in names:
        Image.new("RGB", (20, 10)).save(tmp_path / name)
    project = tmp_path / "project" / "project.qpproj"
    with QuPathProcess(installed) as process:
        images = [NewImage(tmp_path / name) for name in names]
        process.run(add_images, project, images, "unset")

    whole = opened(project)
    (tmp_path / "gone.png").unlink()
    lacking = opened(project)

    assert (whole.state, whole.detail) == ("ok", f"{project} opens in QuPath, images: 2")
    assert lacking.state == "warning"
    assert lacking.detail == f"{project} opens in QuPath, images: 2; 1 of them cannot be used"
    assert lacking.fix is not None
    assert lacking.fix.startswith("The first is gone.png: ")


@pytest.mark.qupath
def test_what_is_no_project_is_a_warning_that_says_so(
    installed: Installation, tmp_path: Path
) -> None:
    project = tmp_path / "project.qpproj"
    project.write_text("{", encoding="utf-8")

    check = opened(project)

    assert (check.state, check.detail) == ("warning", "cannot be used")
    assert check.fix is not None
    assert f"{project} is damaged or cut short" in check.fix


def opened(project: Path) -> Check:
    """What the doctor says of a project."""
    return run_probe(project_probe(project))


@pytest.mark.skipif(os.name == "nt", reason="Windows keeps preferences outside of the home folder")
def test_scripts_are_looked_for_where_qupath_looks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_qupath(tmp_path / "qupath")
    monkeypatch.setenv("PAQUO_QUPATH_DIR", str(tmp_path / "qupath"))
    for name in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(name, str(tmp_path))
    shipped = scripts.read_shipped_scripts()
    folder = scripts.menu_folder(tmp_path / "QuPath" / "v0.6")

    before = probe("Groovy scripts")
    scripts.put(folder, shipped)
    after = probe("Groovy scripts")

    assert before.detail == f"{len(shipped)} of {len(shipped)} missing or outdated in {folder}"
    assert before.fix == "Run `wsisam-qupath setup`."
    assert after.detail == f"{len(shipped)} in {folder}, where QuPath does not look yet"
    assert after.fix is not None
    assert after.fix.startswith(f"Choose {tmp_path / 'QuPath' / 'v0.6'} in QuPath under Edit")
