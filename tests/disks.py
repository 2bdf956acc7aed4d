"""Disks that are soon full."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def small_disk(parent: Path, size_kib: int) -> Iterator[Path]:
    """A folder on a disk of its own, in memory; skips the test where there can be none."""
    folder = parent / "small disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size_kib}k", "tmpfs", str(folder)]
    if (
        sys.platform != "linux"
        or subprocess.run(mount, capture_output=True, check=False).returncode
    ):
        pytest.skip("only root can mount a small disk (tmpfs), and on Linux only")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def fill_up(disk: Path, pages_left: int) -> Path:
    """A file that leaves so many pages of a disk free."""
    filler = disk / "filler"
    room = os.statvfs(disk)
    filler.write_bytes(b"\0" * (room.f_bavail - pages_left) * room.f_frsize)
    return filler
