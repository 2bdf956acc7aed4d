"""Installs QuPath with paquo's downloader, completely or not at all."""

from __future__ import annotations

import contextlib
import io
import platform
import socket
import tempfile
import warnings
from collections.abc import Callable, Iterator
from http.client import HTTPException
from pathlib import Path
from typing import TypeAlias

from ...errors import QuPathError

VERSION = "0.6.0"
"""Version of QuPath that this package is tested with most."""

Progress: TypeAlias = Callable[[int], None]
"""Is called with the bytes that have come since the last call."""

_SILENCE_S_MAX = 60.0
"""Time after which a silent connection counts as lost, seconds."""

_SYSTEMS = {"Linux": ("Linux", "tar.xz"), "Darwin": ("Mac", "pkg"), "Windows": ("Windows", "zip")}
"""QuPath's names of operating systems, and the type of its archive for each."""


def find_default_folder() -> Path:
    """Give a folder where users may install programs and paquo finds QuPath by itself."""
    places = {"Darwin": ("Applications",), "Windows": ("AppData", "Local")}
    return Path.home().joinpath(*places.get(platform.system(), ()))


def find_installed_path(folder: Path) -> Path:
    """Give the path at which :func:`install` puts QuPath in a folder."""
    return folder / (f"QuPath-{VERSION}" + (".app" if platform.system() == "Darwin" else ""))


def holds_qupath(folder: Path) -> bool:
    """Whether paquo recognizes a folder as a QuPath."""
    from paquo.jpype_backend import find_qupath  # imports jpype

    try:
        find_qupath(qupath_dir=folder, java_opts=[])
    except FileNotFoundError:
        return False
    return True


def is_searched_for() -> bool:
    """Whether paquo searches for QuPath; otherwise its settings name the folder."""
    from dynaconf import ValidationError  # half a second, as paquo below
    from paquo import settings
    from paquo._config import to_kwargs

    try:
        settings.reload()
        named = to_kwargs(settings)
    except (ValidationError, ValueError, OSError):  # which finding a QuPath tells of
        return False
    return not (named["qupath_dir"] or named["jvm_path_override"])


def install(folder: Path, progress: Progress | None = None) -> Path:
    """Download and unpack QuPath; unpack only if its archive is in the folder already.

    Args:
        folder: folder to install in; created if needed.
        progress: called while the download is under way.

    Returns:
        The folder that ``PAQUO_QUPATH_DIR`` would have to name.

    Raises:
        QuPathError: no network, no room, or the archive is damaged. Nothing is left in place.
    """
    target, archive = find_installed_path(folder), folder / _archive_name()
    if target.exists():
        raise QuPathError(f"{target} is there, but holds no QuPath: remove it and run this again.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # Beside the target, so that the last step is a rename.
        with tempfile.TemporaryDirectory(prefix=".qupath-", dir=folder) as unfinished:
            if not archive.is_file():
                archive = _download(Path(unfinished), folder, progress)
            _unpack(archive, Path(unfinished)).rename(target)
    except OSError as exc:
        raise QuPathError(
            f"QuPath cannot be installed in {folder} ({exc.strerror or exc}): free space and "
            "permissions there, or choose another folder."
        ) from exc
    return target


def _archive_name() -> str:
    system, ending = _system()
    if system == "Mac":
        system += "-arm64" if platform.machine() == "arm64" else "-x64"
    return f"QuPath-v{VERSION}-{system}.{ending}"


def _system() -> tuple[str, str]:
    try:
        return _SYSTEMS[platform.system()]
    except KeyError as exc:
        raise QuPathError(
            f"QuPath is not made for {platform.system()}: use Linux, macOS or Windows."
        ) from exc


def _download(unfinished: Path, folder: Path, progress: Progress | None) -> Path:
    import paquo._utils  # takes half a second

    fetch: Callable[..., str] = paquo._utils.download_qupath

    def count_bytes(chunks: Iterator[bytes], name: str) -> Iterator[bytes]:  # noqa: ARG001
        for chunk in chunks:
            if progress is not None:
                progress(len(chunk))
            yield chunk

    try:
        # paquo prints the address that it failed at.
        with _patience(), contextlib.redirect_stderr(io.StringIO()):
            return Path(fetch(VERSION, unfinished, callback=count_bytes))
    except (OSError, HTTPException) as exc:
        reason = getattr(exc, "reason", None) or exc
        raise QuPathError(
            f"QuPath {VERSION} cannot be downloaded from github.com ({reason}). Where the network "
            f"does not allow it, bring the file {_archive_name()} from QuPath's releases there "
            f"into {folder} and run this again, or install QuPath yourself and set "
            "PAQUO_QUPATH_DIR to its folder."
        ) from exc


@contextlib.contextmanager
def _patience() -> Iterator[None]:
    """Limit the time to wait for a server, which paquo does not."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_SILENCE_S_MAX)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _unpack(archive: Path, unfinished: Path) -> Path:
    import lzma  # some builds of Python lack it
    import tarfile  # needed once
    import zipfile

    import paquo._utils  # takes half a second

    unpack: Callable[..., str] = paquo._utils.extract_qupath
    damage = (tarfile.TarError, lzma.LZMAError, zipfile.BadZipFile, EOFError)
    try:
        with warnings.catch_warnings():
            # Python 3.12 and 3.13 announce a change in how tarfile unpacks.
            warnings.simplefilter("ignore", DeprecationWarning)
            app = Path(unpack(archive, unfinished))
    except damage as exc:
        raise QuPathError(
            f"{archive} is damaged ({exc}), as after a download that broke off: delete it if it "
            "is still there, and run this again."
        ) from exc
    except RuntimeError as exc:  # what it lacks, on macOS a program to unpack with
        raise QuPathError(f"{archive.name} cannot be unpacked: {exc}.") from exc
    if not holds_qupath(app):
        raise QuPathError(f"{archive} holds no QuPath that paquo can use: install QuPath yourself.")
    return app
