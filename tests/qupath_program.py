"""QuPath's own program, as its command line starts it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from typing import Any

import pytest

from wsisam_qupath.errors import QuPathError
from wsisam_qupath.qupath.installation import find_installation

QUICK_JAVA = "-XX:TieredStopAtLevel=1"
"""Java machines that live for seconds need no second compiler: a fifth of a short run."""


def run_qupath(
    *arguments: object, java_options: Sequence[str] = ()
) -> subprocess.CompletedProcess[str]:
    """``QuPath ARGUMENTS``, to its end; the test is skipped where there is no QuPath.

    Args:
        java_options: beside those that make it quick and have it print UTF-8.
    """
    try:
        found = find_installation()
    except QuPathError as exc:
        pytest.skip(f"no QuPath here: {exc}")
    java = found.runtime_dir / "bin" / "java"
    if not java.is_file():
        pytest.skip(f"the QuPath at {found.app_dir} brings no java program")
    options = [QUICK_JAVA, "-Dfile.encoding=UTF-8", "-Dstdout.encoding=UTF-8", *java_options]
    command = [java, *options, "-cp", found.app_dir / "*", "qupath.QuPath", *arguments]
    return subprocess.run(
        list(map(str, command)),
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        timeout=300,
        check=False,
    )


def told_by_script(*arguments: object) -> list[dict[str, Any]]:
    """``QuPath script ARGUMENTS``: what the script printed after ``TOLD``, for each image."""
    done = run_qupath("script", *arguments)
    lines = [line for line in done.stdout.splitlines() if line.startswith("TOLD ")]
    assert lines, done.stderr
    return [json.loads(line.removeprefix("TOLD ")) for line in lines]
