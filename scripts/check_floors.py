"""Install the oldest versions that pyproject.toml allows, and run the fast tests with them.

    python scripts/check_floors.py [--python 3.10] [--environment FOLDER] [--minutes N]
                                   [--parts cli files …] [-- pytest arguments]

Needs uv and the network, and about 7 GB. With --environment, FOLDER keeps the installation and
what passed, and the same command goes on where it stopped: delete FOLDER to begin again. --minutes
begins no further part after that time. What fails here needs a higher version in pyproject.toml.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent

TESTS = ROOT / "tests"

TOP = "top"
"""The part with the test files that lie in no folder."""

MARKERS = "not slow and not walk and not qupath and not browser and not window"

QUIET = ("-W", "default")
"""Warnings of old versions about other old versions are no faults of ours."""

NO_TESTS = 5
"""pytest's exit code where the markers leave nothing to run."""


@dataclass(frozen=True)
class Floors:
    """An environment with the oldest allowed versions, and the record of what passed in it."""

    folder: Path
    python: str

    @property
    def record(self) -> Path:
        return self.folder / "passed.json"

    def install(self) -> None:
        """Make the environment, unless it stands and pyproject.toml is the same."""
        declared = hashlib.sha256((ROOT / "pyproject.toml").read_bytes()).hexdigest()
        if self.read().get("pyproject") == declared:
            return
        uv = shutil.which("uv") or sys.exit("uv is not installed: see docs.astral.sh/uv")
        self.run(uv, "venv", "--clear", "--python", self.python, str(self.folder))
        self.run(uv, "pip", "install", "--resolution", "lowest-direct", "--editable", ".[test]")
        self.run(uv, "pip", "list")
        self.write({"pyproject": declared, "passed": {}})

    def test(self, part: str, arguments: list[str]) -> bool:
        """Run the fast tests of a part, and note it if all passed."""
        python = self.folder / ("Scripts" if os.name == "nt" else "bin") / "python"
        paths = sorted(TESTS.glob("test_*.py")) if part == TOP else [TESTS / part]
        command = [str(python), "-m", "pytest", "-q", "-m", MARKERS, *QUIET, *arguments]
        print("== tests of", part, flush=True)
        done = subprocess.run(
            [*command, *map(str, paths)], cwd=TESTS, env=self.environment(), check=False
        )
        passed = done.returncode in (0, NO_TESTS)
        if passed and not arguments:
            kept = self.read()
            kept["passed"][part] = time.strftime("%Y-%m-%d")
            self.write(kept)
        return passed

    def run(self, *command: str) -> None:
        print("==", *command, flush=True)
        done = subprocess.run(command, cwd=ROOT, env=self.environment(), check=False)
        if done.returncode:
            sys.exit(done.returncode)

    def environment(self) -> dict[str, str]:
        kept = {**os.environ, "VIRTUAL_ENV": str(self.folder), "OMP_NUM_THREADS": "1"}
        kept.pop("PYTHONPATH", None)
        # Old triton imports setuptools, which finds that pytest's plugins have brought distutils.
        kept["SETUPTOOLS_USE_DISTUTILS"] = "stdlib"
        return kept

    def read(self) -> dict[str, Any]:
        if not self.record.exists():
            return {}
        kept: dict[str, Any] = json.loads(self.record.read_text("utf-8"))
        return kept

    def write(self, kept: dict[str, Any]) -> None:
        self.record.write_text(json.dumps(kept, indent=1), "utf-8")


def main() -> None:
    options = read_options()
    if options.environment:
        check(Floors(options.environment.resolve(), options.python), options)
        return
    with tempfile.TemporaryDirectory(prefix="wsisam-qupath-floors-") as folder:
        check(Floors(Path(folder), options.python), options)


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--python", default="3.10")
    parser.add_argument("--environment", type=Path, metavar="FOLDER")
    parser.add_argument("--minutes", type=float, default=float("inf"))
    parser.add_argument("--parts", nargs="*", choices=list_parts())
    parser.add_argument("pytest_arguments", nargs="*")
    return parser.parse_args()


def list_parts() -> list[str]:
    """The folders of tests that hold test files, and those that lie in none."""
    folders = (path for path in sorted(TESTS.iterdir()) if path.is_dir())
    return [TOP, *(path.name for path in folders if any(path.rglob("test_*.py")))]


def check(floors: Floors, options: argparse.Namespace) -> None:
    """Install, run each part that is asked for or did not pass yet, and tell what became of all.

    Exits with 1 where a part failed or was not run.
    """
    until = time.monotonic() + 60 * options.minutes
    floors.install()
    failed = set()
    for part in options.parts or list_parts():
        if time.monotonic() > until or (part in floors.read()["passed"] and not options.parts):
            continue
        if not floors.test(part, options.pytest_arguments):
            failed.add(part)
    passed = floors.read()["passed"]
    for part in list_parts():
        print(f"{part:12} {'failed' if part in failed else passed.get(part, 'not run')}")
    if failed or passed.keys() < set(list_parts()):
        sys.exit(1)


if __name__ == "__main__":
    main()
