"""Locates the slides of a project: as it states, or moved with or without the project."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath, PureWindowsPath
from typing import TypeAlias

from ...errors import OptionError, SlideError, escape
from ...files.names import compose
from ...slide.names import find_existing
from ...slide.uri import path_from_location

_WINDOWS = re.compile(
    r"(file:/{0,3})?[a-z]:|\\\\|//|file:////|file://(?!/|localhost/)", re.IGNORECASE
)
"""Beginning of a location on a Windows computer: a drive, or a server's name."""

_THIS_SYSTEM = type(PurePath())

Moves: TypeAlias = tuple[tuple[PurePath, PurePath], ...]
"""Pairs of folders or files, (old, new)."""


@dataclass(frozen=True)
class Locations:
    """Finds slides; see :func:`locations`.

    Attributes:
        moves: (old, new) folders or files, the most special one first.
        old_folder: folder of the project as the project states it; None if it does not.
        folder: folder of the project now.
    """

    moves: Moves
    old_folder: PurePath | None
    folder: Path

    def find(self, uri: str) -> Path:
        """Find the existing file of a slide, or its folder for formats of many files.

        What the user says wins, then what the project states, then the same way from where the
        project is now as there was from where it used to be.

        Raises:
            SlideError: it is no file of this computer, or not there; one sentence with the hint.
        """
        try:
            stated = parse_pure_path(uri)
        except SlideError as exc:
            raise SlideError(
                f"Its slide {escape(uri)} is not in a folder: download it, add the file to the "
                "project, and use that image."
            ) from exc
        moved = apply_moves(self.moves, stated)
        wanted = self._find_first(stated) if moved is None else moved
        found = None if wanted is None else _find_existing(wanted)
        if found is not None:
            return found
        raise SlideError(
            f"Its slide {escape(str(moved or stated))} is not there: put it back, or map its "
            "old folder to the one where it is now."
        )

    def _find_first(self, stated: PurePath) -> PurePath | None:
        """Find the first path that exists, starting with the original one."""
        return stated if _find_existing(stated) is not None else self._find_moved_along(stated)

    def _find_moved_along(self, stated: PurePath) -> PurePath | None:
        """Find a slide that was moved together with its project."""
        if self.old_folder in (None, self.folder) or type(self.old_folder) is not type(stated):
            return None
        for climbed, shared in enumerate((self.old_folder, *self.old_folder.parents)):
            if _compose(stated).is_relative_to(_compose(shared)):
                steps = (*[".."] * climbed, *stated.parts[len(shared.parts) :])
                return Path(os.path.normpath(self.folder.joinpath(*steps)))
        return None


def locations(folder: Path, stated_uri: object, remap: Sequence[tuple[str, str]] = ()) -> Locations:
    """Collect what is known about where slides were moved.

    Args:
        folder: folder of the project, absolute.
        stated_uri: location of the project as its file states it.
        remap: (OLD, NEW) beginnings of paths or ``file:`` URIs, of whole folders' names; each may
            be of Windows or of POSIX.

    Raises:
        OptionError: an OLD or NEW cannot be a path.
    """
    moves = parse_moves(remap)
    try:
        old_folder = parse_pure_path(stated_uri).parent if isinstance(stated_uri, str) else None
    except SlideError:
        old_folder = None
    return Locations(moves, old_folder, folder)


def parse_moves(remap: Sequence[tuple[str, str]], option: str = "remap") -> Moves:
    """Parse pairs of (OLD, NEW) as paths, the most specific one first.

    Args:
        option: name of the option in messages.

    Raises:
        OptionError: an OLD or NEW cannot be a path.
    """
    moves = [_move(old, new, option) for old, new in remap]
    return tuple(sorted(moves, key=lambda move: -len(move[0].parts)))


def apply_moves(moves: Moves, stated: PurePath) -> PurePath | None:
    """Map a path to its new place as the user states it; None if nothing is stated."""
    for old, new in moves:
        if type(old) is type(stated) and _compose(stated).is_relative_to(_compose(old)):
            return new.joinpath(*stated.parts[len(old.parts) :])
    return None


def _compose(path: PurePath) -> PurePath:
    return type(path)(compose(str(path)))


def parse_pure_path(location: str) -> PurePath:
    """Parse a path of the operating system that wrote it, which need not be this one.

    Raises:
        SlideError: it means no file.
    """
    return path_from_location(location, windows=_WINDOWS.match(location) is not None)


def _find_existing(path: PurePath) -> Path | None:
    """Find what a path of this system leads to, even if its letters are composed otherwise."""
    is_of_here = isinstance(path, _THIS_SYSTEM) and path.is_absolute()
    return find_existing(Path(path)) if is_of_here else None


def _add_drive_root(path: PurePath) -> PurePath:
    """Read a bare Windows drive, with or without the backslash, as all of the drive."""
    is_drive = isinstance(path, PureWindowsPath) and path.drive and not path.root
    return PureWindowsPath(f"{path.drive}\\", *path.parts[1:]) if is_drive else path


def _move(old: str, new: str, option: str) -> tuple[PurePath, PurePath]:
    try:
        source, target = (_add_drive_root(parse_pure_path(one)) for one in (old, new))
    except SlideError as exc:
        raise OptionError(
            option,
            f"{escape(old)}={escape(new)} does not name two folders: give the one where the "
            "slides were and the one where they are now.",
        ) from exc
    return source, Path(target).absolute() if isinstance(target, _THIS_SYSTEM) else target
