"""Reads ``project.qpproj`` and locates its slides; opens no other file."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...errors import ProjectError, SlideError, escape
from ...files import SafeFolder, read_file
from ...geometry import Mpp
from .entries import ImageEntry, Project
from .json_text import PROJECT_BYTES_MAX, as_object, parse
from .locations import Locations, locations

SUFFIX = ".qpproj"

NEWEST_VERSION = (0, 7)
"""Newest version of QuPath with a project format that is known."""

_OLDEST_VERSION = (0, 2)
_REFUSED_BY_QUPATH = ("0.2.0-m1", "0.2.0-m2")
_VERSION = re.compile(r"v?((\d{1,4})\.(\d{1,4})([.-].*)?)")

_MICROMETRES = ("\N{MICRO SIGN}m", "\N{GREEK SMALL LETTER MU}m")

_LARGEST_UM = 1e9
"""Largest pixel size, µm: no pixel is a kilometer wide."""

_SAME_PIXELS = "pyramidize"
"""Type of builder that leaves level 0 as it is: QuPath adds levels to a slide that has one."""

_ALTERED = {
    "rotated": "rotated",
    "channels": "as channels of several slides",
    "color": "with its channels transformed",
    "affine": "turned or moved by an affine transform",
    "sparse": "pieced together from several",
    "cropped": "cropped",
    "swapRedBlue": "with red and blue swapped",
    "color_deconvolved": "with its stains separated",
    "normalized": "with normalized colors",
    "typeConvert": "with pixels of another type",
    "sliced": "as a part of its stack",
    "z_projected": "as a projection of its stack",
    "z_concatenated": "as a stack of several slides",
}


def read_project(
    path: str | os.PathLike[str],
    *,
    remap: Sequence[tuple[str, str]] = (),
    within: SafeFolder | None = None,
) -> Project:
    """Read a project, which may have no images.

    An image that cannot be used states the reason in its ``trouble``; the others stay usable.

    Args:
        path: the ``.qpproj`` file, or the folder that holds it.
        remap: (OLD, NEW) beginnings of the paths or URIs of slides that were moved, see
            :func:`.locations.locations`.
        within: a folder that the project lies in, and below which no link is followed; None follows
            links, as for a user's own project.

    Raises:
        ProjectError: there is no project, or it is damaged, too old or too new.
        OptionError: ``remap`` holds what cannot be a path.
    """
    given = Path(path).absolute()
    try:
        file = _project_file(given)
        raw = _read(file, within)
    except (OSError, ValueError) as exc:  # ValueError: a NUL in the path
        raise _make_unreadable_error(given, exc) from exc
    content = _content(file, raw)
    version = _check_version(content.get("version"), file)
    places = locations(file.parent, content.get("uri"), remap)
    data = file.parent / "data"
    images = [
        _entry(number, raw, data, places) for number, raw in enumerate(content["images"], start=1)
    ]
    _check_ids(images, file)
    return Project(file, version, tuple(images))


def _read(file: Path, within: SafeFolder | None) -> bytes:
    if within is None:
        return read_file(file, bytes_max=PROJECT_BYTES_MAX)
    return within.read(file, bytes_max=PROJECT_BYTES_MAX)


def _project_file(path: Path) -> Path:
    if not path.is_dir():
        if path.suffix.lower() != SUFFIX and path.exists():
            raise ProjectError(
                f"{path} is not a QuPath project: pass the file that ends in {SUFFIX}, or its "
                "folder."
            )
        return path
    found = sorted(
        file for file in path.iterdir() if file.suffix.lower() == SUFFIX and file.is_file()
    )
    if len(found) > 1:
        names = ", ".join(escape(file.name) for file in found[:5])
        raise ProjectError(f"{path} holds {len(found)} projects ({names}): pass the one you mean.")
    if not found:
        hint = _backup_hint(path / f"project{SUFFIX}")
        raise ProjectError(
            f"There is no QuPath project ({SUFFIX}) in {path}: "
            + (hint or "pass the folder or the file of one.")
        )
    return found[0]


def _make_unreadable_error(path: Path, exc: OSError | ValueError) -> ProjectError:
    if isinstance(exc, FileNotFoundError):
        hint = _backup_hint(path) or "check the name and the folder."
        return ProjectError(f"There is no project {path}: {hint}")
    reason = (exc.strerror if isinstance(exc, OSError) else None) or exc
    return ProjectError(
        f"The project {path} cannot be read ({reason}): check that you may read it."
    )


def _content(file: Path, raw: bytes) -> dict[str, Any]:
    """Parse the JSON object of a project, with a list of images."""
    hint = _backup_hint(file) or "put back a backup of yours."
    try:
        content = parse(raw)
    except UnicodeDecodeError as exc:
        raise ProjectError(f"The project {file} is damaged (not UTF-8 text): {hint}") from exc
    except ValueError as exc:
        what = "is damaged" if raw.rstrip().endswith(b"}") else "is damaged or cut short"
        raise ProjectError(f"The project {file} {what} (not JSON): {hint}") from exc
    if not isinstance(content, dict) or not isinstance(content.get("images"), list):
        raise ProjectError(
            f"{file} is not a QuPath project, for it lists no images: pass another file, or {hint}"
        )
    return content


def _backup_hint(file: Path) -> str:
    """Name the copy that QuPath keeps from before its last save; empty if there is none."""
    backup = file.with_name(f"{file.name}.backup")
    if not backup.is_file():
        return ""
    return (
        f"QuPath keeps the one from before its last save in {backup.name}; copy that to "
        f"{file.name}."
    )


def _check_version(stated: object, file: Path) -> str:
    hint = "open it in QuPath 0.6 and save it"
    if not isinstance(stated, str):
        raise ProjectError(f"The project {file} does not say which QuPath wrote it: {hint}.")
    found = _VERSION.fullmatch(stated.strip())
    if found is None:
        raise ProjectError(
            f"The project {file} says that QuPath {escape(stated, 50)!r} wrote it, which is no "
            f"version: {hint}."
        )
    version = (int(found[2]), int(found[3]))
    if version < _OLDEST_VERSION or found[1] in _REFUSED_BY_QUPATH:
        raise ProjectError(
            f"QuPath {found[1]} wrote the project {file}, and newer ones cannot read it: make a "
            "new project of its slides with QuPath 0.6."
        )
    if version > NEWEST_VERSION:
        raise ProjectError(
            f"QuPath {escape(found[1], 50)} wrote the project {file}, which is newer than this "
            f"program knows ({'.'.join(map(str, NEWEST_VERSION))}): update wsisam-qupath."
        )
    return found[1]


def _check_ids(images: Sequence[ImageEntry], file: Path) -> None:
    (most,) = Counter(image.id for image in images).most_common(1) or [("", 0)]
    if most[1] > 1:
        names = ", ".join(escape(i.name, 60) for i in images if i.id == most[0])
        raise ProjectError(
            f"{most[1]} images of {file} have the same id {most[0]} and would share one file of "
            f"objects ({escape(names, 300)}): remove all but one of them in QuPath."
        )


def _entry(number: int, raw: object, data: Path, places: Locations) -> ImageEntry:
    """Make the entry of one image; ``number`` counts from 1 and replaces a missing id."""
    content = as_object(raw)
    stated_id = _entry_id(content.get("entryID"))
    entry_id = stated_id or f"no-id-{number}"
    name = content.get("imageName")
    builder, metadata = _builder(content.get("serverBuilder"))
    uri = builder.get("uri")
    trouble = _trouble(stated_id, builder, metadata)
    slide = None
    is_sound = trouble is None
    if is_sound:
        slide, trouble = _slide(builder["uri"], places)
    return ImageEntry(
        id=entry_id,
        name=_writable(name) if isinstance(name, str) else f"Image {entry_id}",
        folder=data / entry_id,
        uri=_writable(uri) if isinstance(uri, str) else "",
        slide=slide,
        mpp=_mpp(as_object(metadata.get("pixelCalibration"))),
        size_px=_size(metadata),
        z_count=_count(metadata.get("sizeZ")) or 1,
        t_count=_count(metadata.get("sizeT")) or 1,
        with_arguments=bool(builder.get("args")),
        trouble=trouble,
        slide_is_missing=is_sound and slide is None,
    )


def _entry_id(stated: object) -> str | None:
    """Parse an entry id as QuPath's integer; None if it is none."""
    if isinstance(stated, str) and stated.isascii() and stated.isdigit():
        return stated.lstrip("0") or "0"
    if isinstance(stated, int) and not isinstance(stated, bool) and stated >= 0:
        return str(stated)
    return None


def _builder(stated: object) -> tuple[dict[str, Any], dict[str, Any]]:
    """Find how QuPath opens the slide, and the metadata that it then shows."""
    builder = as_object(stated)
    metadata = as_object(builder.get("metadata"))
    while builder.get("builderType") == _SAME_PIXELS:
        builder = as_object(builder.get("builder"))
        metadata = metadata or as_object(builder.get("metadata"))
    return builder, metadata


def _trouble(
    stated_id: str | None, builder: dict[str, Any], metadata: dict[str, Any]
) -> str | None:
    """Describe what is wrong with an entry, apart from the location of its slide."""
    again = "remove it in QuPath and add its slide again."
    kind = builder.get("builderType")
    if stated_id is None:
        return f"Its entry in the project is damaged (no entryID): {again}"
    if not isinstance(kind, str):
        return f"Its entry in the project does not say how to open a slide: {again}"
    if kind != "uri":
        how = _ALTERED.get(kind, f"through its {escape(kind, 50)!r}, which is not known here")
        return (
            f"QuPath shows its slide {how}, so that places in it are not those of the file: add "
            "the slide to the project as it is, and use that image."
        )
    if not isinstance(builder.get("uri"), str) or not builder["uri"]:
        return f"Its entry in the project names no slide: {again}"
    if metadata.get("isRGB") is False:
        return "Its slide is not RGB, and only brightfield can be outlined: leave it out."
    return None


def _slide(uri: str, places: Locations) -> tuple[Path | None, str | None]:
    """Find the slide, or describe what is wrong with it."""
    try:
        return places.find(uri), None
    except SlideError as exc:
        return None, str(exc)


def _mpp(calibration: dict[str, Any]) -> Mpp | None:
    x, y = (_micrometres(calibration.get(side)) for side in ("pixelWidth", "pixelHeight"))
    return None if x is None or y is None else Mpp(x, y)


def _micrometres(quantity: object) -> float | None:
    """Read a length that QuPath states in µm; None if in pixels or not a number."""
    content = as_object(quantity)
    value = content.get("value")
    if content.get("unit") not in _MICROMETRES or isinstance(value, bool):
        return None
    if not isinstance(value, int | float) or not 0 < value < _LARGEST_UM:
        return None
    return float(value)


def _size(metadata: dict[str, Any]) -> tuple[int, int] | None:
    width, height = _count(metadata.get("width")), _count(metadata.get("height"))
    return None if width is None or height is None else (width, height)


def _count(stated: object) -> int | None:
    """Read a count of at least one."""
    usable = isinstance(stated, int) and not isinstance(stated, bool) and stated >= 1
    return stated if usable else None  # type: ignore[return-value]


def _writable(text: str) -> str:
    """Replace lone surrogates, which Java allows and no file can hold."""
    return text.encode("utf-8", "replace").decode("utf-8")
