"""Finds QuPath as paquo finds it, without starting a Java virtual machine."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import QuPathError

if TYPE_CHECKING:
    from paquo.jpype_backend import QuPathJVMInfo

_VERSION_MIN = (0, 5)
_VERSION_NEWEST = (0, 7)
"""Newest version that was tested; QuPath's second number is its major one."""

_GET_QUPATH = (
    "Run `wsisam-qupath setup`, install QuPath 0.5.1 or newer from qupath.github.io, or set "
    "PAQUO_QUPATH_DIR to the folder that it is installed in"
)


@dataclass(frozen=True)
class Installation:
    """An installed QuPath and its Java.

    Attributes:
        app_dir: folder with QuPath's jars.
        runtime_dir: folder of the Java that QuPath brings.
        jvm_path: path of the library of the Java virtual machine.
        jvm_options: options of the user and those that QuPath requires.
        version: QuPath's version, such as "0.6.0"; None if unknown.
    """

    app_dir: Path
    runtime_dir: Path
    jvm_path: Path
    jvm_options: tuple[str, ...]
    version: str | None

    @property
    def is_tested(self) -> bool:
        """Whether this program was tested with its version; False for newer and unknown ones."""
        return self.version is not None and _numbers(self.version)[:2] <= _VERSION_NEWEST

    @property
    def java_version(self) -> str | None:
        """Java's version, such as "21.0.5"; None if unknown."""
        return read_java_version(self.runtime_dir)


def find_installation() -> Installation:
    """Find the QuPath that paquo uses: from the environment, ``.paquo.toml`` or usual places.

    Takes half a second on its first call.

    Raises:
        QuPathError: there is none, none where a setting says, or it is too old.
    """
    settings = _settings()
    found = _search(settings)
    version = read_version_from_jar(found.app_dir)
    if version is not None and _numbers(version)[:2] < _VERSION_MIN:
        raise QuPathError(
            f"The QuPath at {found.app_dir} is {version}, which is too old: install 0.5.1 or newer "
            "from qupath.github.io, or set PAQUO_QUPATH_DIR to the folder of a newer one."
        )
    return Installation(
        Path(found.app_dir),
        Path(found.runtime_dir),
        Path(found.jvm_path),
        tuple(found.jvm_options),
        version,
    )


def read_version_from_jar(app_dir: Path) -> str | None:
    """Read QuPath's version from the name of ``qupath-core-0.6.0.jar``."""
    jars = sorted(app_dir.glob("qupath-core-[0-9]*.jar"))
    return jars[-1].stem.removeprefix("qupath-core-") if jars else None


def read_java_version(runtime_dir: Path) -> str | None:
    """Read Java's version from the line ``JAVA_VERSION="21.0.5"`` of its file ``release``."""
    release = runtime_dir / "release"
    text = release.read_text("utf-8", "replace") if release.is_file() else ""
    stated = re.search(r'^JAVA_VERSION="(.+)"', text, re.MULTILINE)
    return stated[1] if stated else None


def _numbers(version: str) -> tuple[int, ...]:
    """Parse a version: (0, 6, 0) for "0.6.0-rc1"."""
    stated = re.match(r"[0-9.]*", version)
    return tuple(int(part) for part in (stated[0] if stated else "").split(".") if part)


def _settings() -> Mapping[str, Any]:
    """Read paquo's settings again.

    Raises:
        QuPathError: they cannot be read.
    """
    from dynaconf import ValidationError  # half a second, as paquo below
    from paquo import settings
    from paquo._config import to_kwargs

    try:
        settings.reload()
        # Reloading checks each setting only once per process.
        settings.validators.validate_all()
        named: dict[str, Any] = to_kwargs(settings)
        stated = named["java_opts"]
        # A copy, because paquo's search appends to the list that it is given.
        named["java_opts"] = shlex.split(stated) if isinstance(stated, str) else list(stated)
    except (ValidationError, ValueError, OSError) as exc:
        first_line = (str(exc).splitlines() or [""])[0]
        raise QuPathError(
            f"paquo's settings cannot be read ({first_line}): correct the file .paquo.toml and "
            "the environment variables PAQUO_…."
        ) from exc
    return {**named, "qupath_dir": _expand(named["qupath_dir"])}


def _expand(folder: str) -> Path | None:
    return Path(folder).expanduser() if folder else None


def _search(settings: Mapping[str, Any]) -> QuPathJVMInfo:
    """Let paquo search for QuPath.

    Raises:
        QuPathError: there is none.
    """
    from paquo.jpype_backend import find_qupath  # imports jpype

    try:
        return find_qupath(**settings)
    except OSError as exc:
        raise QuPathError(_wrong_place(settings)) from exc
    except ValueError as exc:
        raise QuPathError(f"There is no QuPath where paquo looks for it. {_GET_QUPATH}.") from exc


def _wrong_place(settings: Mapping[str, Any]) -> str:
    jvm = settings["jvm_path_override"]
    if jvm and not Path(jvm).is_file():
        return (
            f"PAQUO_JVM_PATH_OVERRIDE names {jvm}, which is not a file: name the library of a Java "
            "machine, or unset it to use the one that QuPath brings."
        )
    return (
        f"PAQUO_QUPATH_DIR, or qupath_dir in .paquo.toml, names {settings['qupath_dir']}, which "
        "has no QuPath: name the folder that QuPath is installed in, or unset it to search the "
        "usual places."
    )
