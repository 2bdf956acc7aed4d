"""Decide which files a server may open, and open exactly the files that were checked.

A path is resolved, looked at and then opened part by part from its allowed folder on, without
following links: whoever swaps a name for a link meanwhile gets an error. Libraries that want a name
get one in a folder of the server's own, which leads to the open file.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path, PurePath
from typing import BinaryIO

from ..errors import SlideError
from ..files import SafeFolder, name_of_open, process_folder
from ..files.names import compose
from ..geometry import Mpp
from ..slide import Slide, open_slide
from ..slide.names import find_existing
from .config import ServerConfig

_OF_MANY_FILES = (".mrxs", ".vms", ".vmu", ".dcm", ".svslide")
"""Suffixes of slides for which the library looks for more files beside the given one."""

_DICOM_AT, _DICOM = 128, b"DICM"

_THIS_SYSTEM = type(PurePath())


class FileAccess:
    """The files that clients may have opened.

    Args:
        config: configuration; see :attr:`.ServerConfig.slides`; its folders need not exist yet.
    """

    def __init__(self, config: ServerConfig) -> None:
        self._folders = config.slides
        self.is_free = config.reads_anywhere
        self._pins: Path | None = None

    def find_allowed(self, path: PurePath) -> Path | None:
        """Find the real path of a file, if it may be opened; see :func:`find_allowed`."""
        return find_allowed(path, self._folders, anywhere=self.is_free)

    def folder_of(self, path: Path) -> SafeFolder | None:
        """Open the allowed folder that a file lies in; None if any file may be opened.

        Args:
            path: path that is allowed, without links.

        Raises:
            OSError: it lies in none.
        """
        if self.is_free:
            return None
        for folder in self._folders:
            real = Path(os.path.realpath(folder))
            if path.is_relative_to(real):
                return SafeFolder(real)
        raise PermissionError(f"{path} is in none of the allowed folders")

    def open_slide(
        self,
        path: Path,
        *,
        mpp: float | Mpp | None = None,
        mpp_if_unstated: float | None = None,
    ) -> Slide:
        """Open a slide; see :func:`..slide.open_slide`.

        Args:
            path: path that is allowed, without links.
        """
        folder = self.folder_of(path)
        if folder is None:
            return open_slide(path, mpp=mpp, mpp_if_unstated=mpp_if_unstated)
        try:
            file = folder.open(path)
        except OSError as exc:
            raise SlideError(
                f"{path} cannot be opened ({exc.strerror or exc}): pass an ordinary file that is "
                "no link."
            ) from exc
        name = self._pinned(file, path)
        try:
            slide = open_slide(name, mpp=mpp, mpp_if_unstated=mpp_if_unstated)
            _check_same(folder, path, file)
        except SlideError as exc:
            _let_go(file, name, path)
            # Errors name the file by the name that it was opened by.
            raise type(exc)(str(exc).replace(str(name), str(path))) from exc
        except BaseException:
            _let_go(file, name, path)
            raise
        weakref.finalize(slide, _let_go, file, name, path)
        slide.reference = replace(slide.reference, location=str(path))
        slide.identity = replace(slide.identity, location=str(path))
        return slide

    def _pinned(self, file: BinaryIO, path: Path) -> Path:
        """Name an open file with its suffix; by its own name if it needs the files beside it."""
        if _has_companions(file, path):
            return path
        opened = name_of_open(file, path)
        if opened == path:
            return path
        if self._pins is None:
            self._pins = process_folder("slides", self)
        # The number is the file's as long as it is open, which is as long as this name is used.
        name = self._pins / f"{file.fileno()}-{path.name[-100:]}"
        name.symlink_to(opened)
        return name


def find_allowed(path: PurePath, folders: Sequence[Path], *, anywhere: bool) -> Path | None:
    """Find the real path of a file, if it may be read; else None. The file need not exist.

    Args:
        path: path as a client states it, perhaps of another system.
        folders: folders in which files may be read.
        anywhere: whether any file may be read.
    """
    if not isinstance(path, _THIS_SYSTEM) or not path.is_absolute():
        return None
    # A share is asked only where it is named: the question alone tells its server who we are.
    is_share = path.drive.startswith("\\\\")
    if is_share and not anywhere and not any(map(path.is_relative_to, folders)):
        return None
    try:
        real = _find_real(_respell(Path(path), folders), folders, anywhere=anywhere)
        if real is None or is_there(real):
            return real
        # As macOS spells it; what that leads to is looked at again.
        alike = find_existing(real)
        return real if alike is None else _find_real(alike, folders, anywhere=anywhere)
    except (OSError, ValueError):  # as of what is below /proc/1, or of names with a NUL
        return None


def _respell(path: Path, folders: Sequence[Path]) -> Path:
    """Spell the folder that a path begins with as its letters are composed here."""
    composed = Path(compose(str(path)))
    for folder in folders:
        if composed.is_relative_to(compose(str(folder))):
            return folder.joinpath(*path.parts[len(folder.parts) :])
    return path


def _find_real(path: Path, folders: Sequence[Path], *, anywhere: bool) -> Path | None:
    """Resolve links in a path, if it then lies in one of the folders or may lie anywhere."""
    real = Path(os.path.realpath(path))
    if anywhere or any(real.is_relative_to(os.path.realpath(folder)) for folder in folders):
        return real
    return None


def is_there(path: Path) -> bool:
    """Whether anything is at a path; False for impossible names and if looking is not allowed.

    Not ``Path.exists``, which raises for some of those.
    """
    try:
        os.stat(path)  # noqa: PTH116
    except (OSError, ValueError):
        return False
    return True


def _has_companions(file: BinaryIO, path: Path) -> bool:
    file.seek(_DICOM_AT)
    is_dicom = file.read(len(_DICOM)) == _DICOM
    file.seek(0)
    return is_dicom or path.suffix.lower() in _OF_MANY_FILES


def _check_same(folder: SafeFolder, path: Path, file: BinaryIO) -> None:
    """Check that a name still leads to the file that was opened.

    Raises:
        SlideError: it does not.
    """
    with suppress(OSError):
        if os.path.samestat(folder.state(path), os.fstat(file.fileno())):
            return
    raise SlideError(f"{path} was replaced while it was being opened. Try again.")


def _let_go(file: BinaryIO, name: Path, path: Path) -> None:
    if name != path:
        with suppress(OSError):
            name.unlink()
    file.close()
