"""The commands that install and remove this program, run in environments of their own.

pipx installs all packages that the program needs, some 600 MB on the disk; it takes no
``--no-deps``. pip installs none of them: the point is that it takes the command, and that the
program is there, and gone, afterwards.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from wsisam_qupath import __version__

pytestmark = [pytest.mark.slow, pytest.mark.walk]

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("install*.md"))]
BIN = "Scripts" if os.name == "nt" else "bin"


def commands_of(tool: str) -> list[str]:
    """Commands of a tool on the pages: first those that install, last those that remove."""
    pattern = rf"(?<![\w-]){tool} (?:un)?install[^`\n#]*"
    found = {
        one[0].strip() for page in PAGES for one in re.finditer(pattern, page.read_text("utf-8"))
    }
    return sorted(found, key=lambda command: ("uninstall" in command, "--force" in command))


@pytest.fixture
def environment(tmp_path: Path) -> Iterator[dict[str, str]]:
    """Variables under which pipx keeps everything below the test's own folder."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    places = {"PIPX_HOME": "pipx", "PIPX_BIN_DIR": "apps", "PIPX_MAN_DIR": "man"}
    yield {**kept, **{name: str(tmp_path / folder) for name, folder in places.items()}}


def make_venv(folder: Path) -> Path:
    """A fresh environment; its Python."""
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True, timeout=300)
    return folder / BIN / "python"


def call(python: Path, command: str, *more: str, variables: dict[str, str]) -> None:
    """Run a command of a page with a given Python, in the folder of the source."""
    tool, *arguments = shlex.split(command.removeprefix("python -m "))
    done = subprocess.run(
        [str(python), "-m", tool, *arguments, *more],
        cwd=ROOT,
        env=variables,
        capture_output=True,
        text=True,
        check=False,
        timeout=1200,
    )
    if "No matching distribution found for hatchling" in done.stderr:
        pytest.skip("no package index can be reached")
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"


def test_pip_installs_and_removes_as_the_pages_say(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    python = make_venv(tmp_path / "venv")
    program = python.parent / "wsisam-qupath"
    commands = commands_of("python -m pip")
    assert len(commands) == 2

    for command in commands:
        if "uninstall" in command:
            call(python, command, "--yes", variables=environment)
            assert not program.exists()
        else:
            call(python, command, "--no-deps", "--quiet", variables=environment)
            assert program.exists()


def test_pipx_installs_updates_and_removes_as_the_pages_say(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    python = make_venv(tmp_path / "venv")
    fetched = subprocess.run(
        [str(python), "-m", "pip", "install", "--quiet", "pipx"], check=False, timeout=600
    )
    if fetched.returncode:
        pytest.skip("pipx cannot be fetched")
    program = tmp_path / "apps" / "wsisam-qupath"
    commands = commands_of("pipx")
    assert len(commands) == 3

    for command in commands:
        if "uninstall" in command:
            call(python, command, variables=environment)
            assert not program.exists()
        else:
            call(python, command, variables=environment)
            said = subprocess.run([str(program), "--version"], capture_output=True, check=True)
            assert said.stdout.split()[-1].decode() == __version__
