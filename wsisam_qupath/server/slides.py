"""Opens slides that clients refer to, if this server may read them."""

from __future__ import annotations

import threading
from pathlib import Path, PurePath

from cachetools import LRUCache

from ..errors import PixelSizeError, SlideError, escape
from ..geometry import Mpp
from ..qupath.files.locations import Moves, apply_moves, parse_moves, parse_pure_path
from ..slide import Slide
from .access import FileAccess, is_there
from .config import ServerConfig
from .problems import ProblemError
from .schemas import SlideAsOpen

_OPEN_SLIDES = 8
"""Most slides that stay open for the next click. Each holds a file, and OpenSlide up to 32 MB of
its tiles."""

_PATH_MAX = 200

Key = tuple[Path, Mpp | None, int, int]


class Slides:
    """Opens slides for clients.

    Args:
        config: configuration; see :attr:`.ServerConfig.slides`; its folders need not exist yet.
    """

    def __init__(self, config: ServerConfig) -> None:
        self._access = FileAccess(config)
        self._moves = parse_moves(config.maps, "maps")
        self._open: LRUCache[Key, Slide] = LRUCache(_OPEN_SLIDES)
        self._lock = threading.Lock()

    def open(self, wanted: SlideAsOpen) -> Slide:
        """Open the slide of a client. Do not close it: the next request may use it.

        Raises:
            ProblemError: it may not be read, is not there, cannot be read, states no µm/px, or is
                not what the client has open.
        """
        slide = self.open_location(wanted.uri, pixel_size(wanted))
        stated, found = (wanted.width, wanted.height), (slide.width_px, slide.height_px)
        if stated != found:
            raise ProblemError(
                "slide-differs",
                f"The slide is {found[0]} x {found[1]} px here, and {stated[0]} x {stated[1]} px "
                "where you have it open. Open it from the file itself, as its first image and "
                "without rotation.",
            )
        return slide

    def open_location(self, uri: str, mpp: Mpp | None = None) -> Slide:
        """Open a slide of any size. Do not close it: the next request may use it.

        Args:
            mpp: µm per level-0 px, in place of what the file states.

        Raises:
            ProblemError: it may not be read, is not there, cannot be read, or states no µm/px.
        """
        try:
            return self._open_cached(self.find(uri), mpp)
        except PixelSizeError as exc:
            raise no_pixel_size() from exc
        except SlideError as exc:
            raise ProblemError("slide-unreadable", str(exc)) from exc

    def find(self, uri: str) -> Path:
        """Find the existing file of a location on this computer.

        Raises:
            ProblemError: it may not be read, or is not there.
        """
        try:
            stated = locate(uri, self._moves)
        except SlideError as exc:
            raise _make_outside_problem(uri, "names no file on this computer") from exc
        path = self._access.find_allowed(stated)
        if path is None:
            raise _make_outside_problem(uri, "is not in a folder that this server may read")
        if not is_there(path):
            raise ProblemError(
                "slide-missing",
                f"There is no slide {escape(str(path), _PATH_MAX)} where the server runs. Check "
                "where it is now, or map its folder when the server is started.",
            )
        return path

    def _open_cached(self, path: Path, mpp: Mpp | None) -> Slide:
        try:
            status = path.stat()
        except OSError as exc:
            raise SlideError(f"{path} cannot be reached ({exc}). Check the path.") from exc
        key = (path, mpp, status.st_size, status.st_mtime_ns)
        with self._lock:
            slide: Slide | None = self._open.get(key)
        if slide is None:  # two that come at once may both open it, which does no harm
            slide = self._access.open_slide(path, mpp=mpp)
            with self._lock:
                self._open[key] = slide
        return slide


def pixel_size(wanted: SlideAsOpen) -> Mpp | None:
    """Read the pixel size that the client states; None without one."""
    x, y = wanted.mpp_x or wanted.mpp_y, wanted.mpp_y or wanted.mpp_x
    return None if x is None or y is None else Mpp(x, y)


def no_pixel_size() -> ProblemError:
    """Make the error for a slide without a pixel size."""
    return ProblemError(
        "no-pixel-size",
        "Nothing states how large a pixel of this slide is. Set its pixel width and height in "
        "µm, in QuPath in the Image tab: 0.25 for a 40x scan, 0.5 for 20x.",
    )


def locate(location: str, moves: Moves) -> PurePath:
    """Find the path that a client means by the server's maps; it may be of another system.

    Raises:
        SlideError: it names no file.
    """
    stated = parse_pure_path(location)
    return apply_moves(moves, stated) or stated


def _make_outside_problem(uri: str, why: str) -> ProblemError:
    return ProblemError(
        "slide-outside",
        f"{escape(uri, _PATH_MAX)} {why}. Add its folder to the server's slides when it is "
        "started, and map the folder if it has another name there.",
    )
