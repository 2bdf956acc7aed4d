"""How many CPU cores this process may use: on a shared machine not all that it has."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

_CGROUPS = Path("/sys/fs/cgroup")

_SLURM = ("SLURM_CPUS_PER_TASK", "SLURM_CPUS_ON_NODE")
"""Slurm's variables, of which the first that is set counts: cores of the task, else of the job
here."""


def count_usable_cores(
    environment: Mapping[str, str] = os.environ, cgroups: Path = _CGROUPS
) -> int:
    """Count the cores that affinity, the control group (containers) and Slurm leave; at least 1."""
    limits = [float(_count_allowed()), *_read_quotas(cgroups, _find_own_group())]
    given = next((environment[name] for name in _SLURM if environment.get(name)), "")
    if given.isdecimal():
        limits.append(float(given))
    return max(1, math.floor(min(limits)))


def _count_allowed() -> int:
    """Count the cores that this process may be scheduled on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _find_own_group() -> Path:
    """Find the control group of this process, relative to the root of all."""
    with suppress(OSError, ValueError):
        for line in Path("/proc/self/cgroup").read_text(encoding="ascii").splitlines():
            if line.startswith("0::/"):
                return Path(line.removeprefix("0::/"))
    return Path()


def _read_quotas(cgroups: Path, own: Path) -> Iterator[float]:
    """Read the quotas, in cores, of a control group and of those around it; then of version 1."""
    for group in (own, *own.parents):
        with suppress(OSError, ValueError, ZeroDivisionError):
            quota, period = (cgroups / group / "cpu.max").read_text(encoding="ascii").split()
            yield int(quota) / int(period)  # "max" is no number
    with suppress(OSError, ValueError, ZeroDivisionError):
        quota, period = (
            (cgroups / "cpu" / f"cpu.cfs_{name}_us").read_text(encoding="ascii")
            for name in ("quota", "period")
        )
        if int(quota) > 0:
            yield int(quota) / int(period)
