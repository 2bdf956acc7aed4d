"""Files on this machine: checksums, atomic writes, and the folder of what can be had again."""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path

from .errors import OutputError

CACHE_VARIABLE = "WSISAM_QUPATH_CACHE"
"""Environment variable that names another cache folder."""

_BLOCK_BYTES = 1 << 20


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, 64 lower-case hexadecimal digits (0.05 s for 39 MB).

    Raises:
        OSError: the file cannot be read.
    """
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def cache_folder() -> Path:
    """Where downloads and compiled models are kept; not created here.

    The user's cache folder of the platform, unless ``WSISAM_QUPATH_CACHE`` names another one.
    """
    named = os.environ.get(CACHE_VARIABLE)
    if named:
        return Path(named).expanduser()
    import platformdirs  # noqa: PLC0415 - 0.04 s, which `--help` need not spend

    return platformdirs.user_cache_path("wsisam-qupath", appauthor=False)


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file whole or not at all: what stood there before stays until the last moment.

    Raises:
        OutputError: it cannot be written there.
    """
    try:
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            _open_to_others(Path(temporary))
            Path(temporary).replace(path)
        except BaseException:  # an interrupt too must leave nothing half-written behind
            Path(temporary).unlink(missing_ok=True)
            raise
    except OSError as exc:
        raise OutputError(
            f"{path} cannot be written ({exc.strerror or exc}). Choose another place for the "
            "output, or free space and permissions there."
        ) from exc


def _open_to_others(path: Path) -> None:
    # mkstemp makes files for the owner alone; a result gets the mode that any new file gets.
    umask = os.umask(0)
    os.umask(umask)
    path.chmod(0o666 & ~umask)
