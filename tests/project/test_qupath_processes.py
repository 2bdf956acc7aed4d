from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from fixtures.project_files import make_project
from wsisam_qupath.project.qupath_processes import (
    Running,
    find_running_qupath,
    find_window_arguments,
)

CLASS_PATH = ["-XX:MaxRAMPercentage=50", "-cp", "/opt/QuPath/lib/app/*"]

WINDOWS = [
    ("QuPath", ["/opt/QuPath/bin/QuPath"], ()),
    ("QuPath", ["QuPath", "-p", "/a b/project.qpproj"], ("-p", "/a b/project.qpproj")),
    (
        "QuPath-0.6.0.exe",
        ["C:\\Program Files\\QuPath-0.6.0\\QuPath-0.6.0.exe", "D:\\x"],
        ("D:\\x",),
    ),
    ("QuPath-0.6.0 (console).exe", ["C:\\QuPath-0.6.0\\QuPath-0.6.0 (console).exe"], ()),
    ("QuPath-0.6.0-arm64", ["/Applications/QuPath-0.6.0-arm64.app/Contents/MacOS/Q"], ()),
    ("java", ["/usr/bin/java", *CLASS_PATH, "qupath.QuPath", "--quiet"], ("--quiet",)),
    ("javaw.exe", ["C:\\jdk\\bin\\javaw.exe", "qupath.lib.gui.QuPathApp"], ()),
]

NO_WINDOWS = [
    ("QuPath", []),
    ("QuPath", ["QuPath", "script", "-p", "/p/project.qpproj", "x.groovy"]),
    ("QuPath", ["QuPath", "convert-ome", "x.svs"]),
    ("QuPath", ["QuPath", "--version"]),
    ("java", ["java", *CLASS_PATH, "qupath.QuPath", "script", "x.groovy"]),
    ("java", ["java", "-jar", "fiji.jar", "/QuPath/project.qpproj"]),
    ("java", ["java", "-cp", "/opt/QuPath-0.6.0/lib/app/*", "org.example.Main"]),
    ("python", ["python", "-m", "wsisam_qupath", "batch", "/QuPath/project.qpproj"]),
    ("QuPathServer", ["/bin/QuPathServer"]),
]

REAL = pytest.mark.skipif(os.name == "nt", reason="a link is no program on Windows")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return make_project(tmp_path / "Prüfung 1")


@contextmanager
def process_named(
    tmp_path: Path,
    name: str,
    arguments: Sequence[str],
    *,
    opened: Path | None = None,
    cwd: Path | None = None,
) -> Iterator[int]:
    """A process of that name that waits; its id. Not one of this process's children."""
    program = tmp_path / "bin" / name
    program.parent.mkdir()
    program.symlink_to(Path(sys.executable).resolve())
    wait = f"import time; f = open({str(opened)!r}); " if opened else "import time; "
    starter = (
        "import subprocess, sys; "
        "p = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, "
        "start_new_session=True); "
        "p.stdout.readline(); print(p.pid)"
    )
    command = [str(program), "-ISc", f"{wait}print(1, flush=True); time.sleep(60)", *arguments]
    found = subprocess.run(
        [sys.executable, "-c", starter, *command],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        cwd=cwd,
    )
    pid = int(found.stdout)
    try:
        yield pid
    finally:
        psutil.Process(pid).kill()


@pytest.mark.parametrize(("name", "command", "arguments"), WINDOWS)
def test_a_window_of_qupath_is_known_by_its_command(
    name: str, command: list[str], arguments: tuple[str, ...]
) -> None:
    assert find_window_arguments(name, command) == arguments


@pytest.mark.parametrize(("name", "command"), NO_WINDOWS)
def test_what_is_no_window_of_qupath(name: str, command: list[str]) -> None:
    assert find_window_arguments(name, command) is None


@REAL
@pytest.mark.parametrize("words", [["--project", "{}"], ["-p={}"], ["{}"]])
def test_a_qupath_that_has_the_project(project: Path, tmp_path: Path, words: list[str]) -> None:
    arguments = [word.format(project) for word in words]

    with process_named(tmp_path, "QuPath-0.6.0", arguments) as pid:
        assert find_running_qupath(project) == Running(pid, has_project=True)


@REAL
def test_java_that_shows_the_project(project: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(project.parent)
    arguments = ["-cp", "x", "qupath.QuPath", "-p", str(link / project.name)]

    with process_named(tmp_path, "java", arguments) as pid:
        assert find_running_qupath(project) == Running(pid, has_project=True)


@REAL
def test_a_qupath_with_a_file_of_the_project_open(project: Path, tmp_path: Path) -> None:
    with process_named(tmp_path, "QuPath", [], opened=project) as pid:
        assert find_running_qupath(project) == Running(pid, has_project=True)


@REAL
def test_a_qupath_that_may_have_the_project(project: Path, tmp_path: Path) -> None:
    other = make_project(tmp_path / "other")

    with process_named(tmp_path, "QuPath", ["-p", str(other)]):
        found = find_running_qupath(project)

    assert found is not None  # another one that runs here will do as well
    assert not found.has_project


@REAL
def test_a_project_is_named_from_where_qupath_was_started(project: Path, tmp_path: Path) -> None:
    with process_named(tmp_path, "QuPath", ["-p", project.name], cwd=project.parent) as pid:
        assert find_running_qupath(project) == Running(pid, has_project=True)


@REAL
def test_a_script_without_a_window_is_none(project: Path, tmp_path: Path) -> None:
    with process_named(tmp_path, "QuPath", ["script", "-p", str(project)]) as pid:
        found = find_running_qupath(project)
        assert found is None or found.pid != pid


@REAL
def test_own_children_are_not_meant(project: Path, tmp_path: Path) -> None:
    program = tmp_path / "QuPath"
    program.symlink_to(Path(sys.executable).resolve())
    command = [
        str(program),
        "-ISc",
        "import sys; print(1, flush=True); sys.stdin.read()",
        str(project),
    ]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()

        found = find_running_qupath(project)

    assert found is None or found.pid != child.pid
