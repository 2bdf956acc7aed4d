"""Files on this machine: checksums, atomic writes, JSON, and the cache folder."""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from functools import partial
from pathlib import Path

from .errors import OutputError, PromptError

CACHE_VARIABLE = "WSISAM_QUPATH_CACHE"
"""Environment variable that names another cache folder."""

_BLOCK_BYTES = 1 << 20


def compute_sha256(path: Path) -> str:
    """Compute the SHA-256 of a file, 64 lower-case hexadecimal digits (0.05 s for 39 MB).

    Raises:
        OSError: the file cannot be read.
    """
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def cache_folder() -> Path:
    """Return the folder for downloads and compiled models; not created here.

    The user's cache folder of the platform, unless ``WSISAM_QUPATH_CACHE`` names another one.
    """
    named = os.environ.get(CACHE_VARIABLE)
    if named:
        return Path(named).expanduser()
    import platformdirs  # 0.04 s, which `--help` need not spend

    return platformdirs.user_cache_path("wsisam-qupath", appauthor=False)


def write_atomically(path: Path, content: bytes, *, private: bool = False) -> None:
    """Write a file completely or not at all; an earlier file stays until the last moment.

    A link is followed: what it names is replaced, not the link.

    Args:
        private: whether only this user may read it.

    Raises:
        OutputError: it cannot be written there.
    """
    check_writable(path)
    target = Path(os.path.realpath(path))
    unfinished = target.with_name(f".{uuid.uuid4().hex}.tmp")
    try:
        try:
            # Not `chmod` afterwards: others could open it before.
            opener = partial(os.open, mode=0o600) if private else None
            with open(unfinished, "xb", opener=opener) as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            unfinished.replace(target)
        finally:
            unfinished.unlink(missing_ok=True)
    except OSError as exc:
        raise OutputError(
            f"{path} cannot be written ({exc.strerror or exc}). Choose another place for the "
            "output, or free space and permissions there."
        ) from exc


def check_writable(path: str | os.PathLike[str]) -> None:
    """Check before the work starts that a file can be written. Touches nothing.

    Raises:
        OutputError: no such folder, no permission, or something else is there.
    """
    target = Path(os.path.realpath(path))
    try:
        target.exists()
    except OSError as exc:  # a name too long, or a folder that may not be entered
        raise OutputError(
            f"{path} cannot be written ({exc.strerror}): choose another name or folder."
        ) from exc
    if target.is_dir():
        raise OutputError(f"{path} is a folder: name a file in it.")
    if target.exists() and not target.is_file():
        raise OutputError(f"{path} is not an ordinary file: name another one.")
    if not target.parent.is_dir():
        raise OutputError(f"There is no folder {target.parent}: create it, or name another one.")
    if target.exists() and not os.access(target, os.W_OK):
        raise OutputError(f"{path} is write-protected: allow writing, or name another file.")
    if not os.access(target.parent, os.W_OK | os.X_OK):
        raise OutputError(
            f"The folder {target.parent} is write-protected: choose one that you may write to."
        )


def read_json(path: Path, *, fix: str) -> object:
    """Read the JSON of a file, UTF-8 with or without a byte order mark.

    Args:
        fix: what to do about a damaged file; ends the message.

    Raises:
        PromptError: it is missing, cannot be read, or is not JSON in UTF-8.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError as exc:
        raise PromptError(f"There is no file {path}: check the name and the folder.") from exc
    except OSError as exc:
        # Not Path.is_dir(), which raises where the name is too long.
        is_folder = os.path.isdir(path)  # noqa: PTH112
        wanted = "name a file in it" if is_folder else "check that you may read it"
        raise PromptError(f"{path} cannot be read ({exc.strerror}): {wanted}.") from exc
    try:
        return json.loads(content.decode("utf-8-sig"), parse_int=_number)
    except UnicodeDecodeError as exc:
        raise PromptError(f"{path} is not UTF-8 text. {fix}") from exc
    except json.JSONDecodeError as exc:
        raise PromptError(
            f"{path} is not JSON: {exc.msg} at line {exc.lineno}, column {exc.colno}. {fix}"
        ) from exc
    except RecursionError as exc:
        raise PromptError(f"{path} is nested too deep. {fix}") from exc


def _number(digits: str) -> int | float:
    """Parse an int, or a float if there are more digits than int() takes."""
    return int(digits) if len(digits) < 300 else float(digits)
