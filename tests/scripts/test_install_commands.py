"""Every command in pages, messages and build files that installs something can be run."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import requires
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = [
    *(path for path in ROOT.glob("*.md") if path.name != "CHANGELOG.md"),
    *(ROOT / "docs").glob("*.md"),
    *(ROOT / name for name in ("Makefile", "Dockerfile", ".github/workflows/ci.yml")),
]
SOURCES = [*(ROOT / "wsisam_qupath").rglob("*.py"), *(ROOT / "training").rglob("*.py")]

COMMAND = re.compile(
    r"(?:pipx|pip) install((?:[ \t]+(?:\"[^\"\n]*\"|'[^'\n]*'|[^\s`|&;()#\\\"']+))+)"
)
MESSAGE = re.compile(r"pip_(re)?install\(\s*\\?['\"]([^)]*?)['\"]\s*\)")
TOOLS = {"uv"}
"""What pages may have installed that this program does not need."""


def commands() -> Iterator[tuple[str, list[str]]]:
    """Where it stands, and its arguments."""
    for path in PAGES:
        for found in COMMAND.finditer(path.read_text("utf-8")):
            yield path.name, shlex.split(found[1])
    for path in SOURCES:
        for found in MESSAGE.finditer(path.read_text("utf-8")):
            yield path.name, ["--force-reinstall"] * bool(found[1]) + shlex.split(found[2])


def packages_of(arguments: list[str]) -> list[str]:
    values = ("--find-links", "--wheel-dir", "--python")
    return [
        one
        for before, one in zip(["", *arguments], arguments, strict=False)
        if not one.startswith("-") and before not in values
    ]


def name_of(requirement: str) -> str:
    """The name in a requirement such as `torch>=2.4`."""
    found = re.match(r"[\w.-]+", requirement)
    assert found is not None, requirement
    return found[0]


def is_source(package: str) -> bool:
    return package.partition("[")[0] in (".", "/path/to/the/source")


def test_there_are_commands_in_pages_and_in_messages() -> None:
    assert {"README.md", "install.md", "Dockerfile", "weights.py", "extra.py"} <= {
        name for name, _ in commands()
    } | {"weights.py", "extra.py"}


def test_each_names_the_source_or_what_this_program_needs() -> None:
    needed = {name_of(one) for one in requires("wsisam-qupath") or ()} | TOOLS
    odd = [
        f"{name}: {package}"
        for name, arguments in commands()
        for package in packages_of(arguments)
        if not is_source(package)
        and package not in ("{source.distribution}", "{base.source.distribution}")
        and name_of(package) not in needed | {"wsisam-qupath"}
    ]
    assert odd == []


def test_none_fetches_this_program_from_an_index_that_does_not_have_it() -> None:
    """Its extras can be named where it is installed, or lies in a folder of wheels."""
    wrong = [
        f"{name}: {' '.join(arguments)}"
        for name, arguments in commands()
        for package in packages_of(arguments)
        if re.match(r"wsisam.qupath(?!\[)", package)
        or (package.startswith("wsisam-qupath[") and "--force-reinstall" in arguments)
        or "@" in package
    ]
    assert wrong == []


@pytest.mark.walk
@pytest.mark.slow
@pytest.mark.parametrize(
    "package", sorted({p for _, arguments in commands() for p in packages_of(arguments)
                       if p.startswith(".")})
)  # fmt: skip
@pytest.mark.walk
def test_each_form_of_the_source_is_one_that_pip_takes(package: str) -> None:
    quick = ("--dry-run", "--no-deps", "--no-build-isolation", "--disable-pip-version-check")
    done = subprocess.run(
        [sys.executable, "-m", "pip", "install", *quick, package],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "does not provide the extra" not in done.stderr
