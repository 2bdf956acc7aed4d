"""Install the oldest versions that pyproject.toml allows, and run the fast tests with them.

    python scripts/check_floors.py [--python 3.10] [pytest arguments]

Needs uv and the network, and about 6 GB for a while. What fails here needs a higher version there.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

QUIET = ("-W", "default")
"""Warnings of old versions about other old versions are no faults of ours."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--python", default="3.10")
    options, pytest_arguments = parser.parse_known_args()
    uv = shutil.which("uv") or sys.exit("uv is not installed: see docs.astral.sh/uv")
    with tempfile.TemporaryDirectory(prefix="wsisam-qupath-floors-") as folder:
        environment = {**os.environ, "VIRTUAL_ENV": folder, "OMP_NUM_THREADS": "1"}
        environment.pop("PYTHONPATH", None)
        # Old triton imports setuptools, which finds that pytest's plugins have brought distutils.
        environment["SETUPTOOLS_USE_DISTUTILS"] = "stdlib"
        commands: list[list[str]] = [
            [uv, "venv", "--allow-existing", "--python", options.python, folder],
            # Refreshed, because uv would take the wheel that it built of an older source.
            [
                *(uv, "pip", "install", "--refresh-package", "wsisam-qupath"),
                *("--resolution", "lowest-direct", ".[test]"),
            ],
            [uv, "pip", "list"],
            [
                next_to(folder, "python"),
                "-m",
                "pytest",
                "-m",
                "not slow",
                *QUIET,
                *pytest_arguments,
            ],
        ]
        for command in commands:
            print("==", *command[:6], flush=True)
            where = ROOT / "tests" if "pytest" in command else ROOT
            done = subprocess.run(command, cwd=where, env=environment, check=False)
            if done.returncode:
                sys.exit(done.returncode)


def next_to(environment: str, program: str) -> str:
    return str(Path(environment, "Scripts" if os.name == "nt" else "bin", program))


if __name__ == "__main__":
    main()
