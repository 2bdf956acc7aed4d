"""Keep the objects of the page as GeoJSON beside the slide, and replace no other file.

A file of ours says so at its beginning, and names its slide. It is replaced only as long as its
content is what the page has loaded or saved last: what was changed since, by anybody, stays.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from ...errors import OutputError, PromptError, WsiSamError
from ...files import SafeFolder, read_file
from ...files.formats import VIEWED_OBJECTS
from ...geojson import Feature, encode_features
from ...slide.names import strip_format
from ..problems import ProblemError
from .schemas import Saved, SavedObjects

BYTES_MAX = 64 << 20
"""Largest file that is loaded; a request to save is no larger by default."""

_HEAD_BYTES = 4096
_HEAD = re.compile(rb'\{"type": "FeatureCollection", (?P<about>.*?), "features": \[')
_SUFFIX = ".geojson"

_NOT_IN_NAMES = '/ \\ : * ? " < > |'
_PLAIN = re.compile(rf"[^{re.escape(_NOT_IN_NAMES.replace(' ', ''))}\x00-\x1f]*")
"""Characters of a name on every system; the slide's own name may have others."""


class ObjectFiles:
    """The files with objects of all slides that a server shows.

    Locks: one, held while a file is compared and replaced.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def load(self, slide: Path) -> SavedObjects:
        """Load what was saved last for a slide; what cannot be used stays as it is.

        Args:
            slide: path of the slide, without links.
        """
        names = _list_names(slide.parent)
        newest = max(_find_ours(slide, names), key=_changed_at, default=None)
        nothing = SavedObjects(
            file=None, sha256=None, free_name=_find_free_name(slide, names), features=[]
        )
        if newest is None:
            return nothing
        try:
            content = read_file(newest, bytes_max=BYTES_MAX)
            features = _parse(newest, content)
        except (OSError, WsiSamError) as exc:
            trouble = f"{newest.name} cannot be loaded ({exc}). A new file is begun."
            return nothing.model_copy(update={"trouble": trouble})
        sha256 = hashlib.sha256(content).hexdigest()
        return nothing.model_copy(
            update={"file": newest.name, "sha256": sha256, "features": features}
        )

    def save(
        self, slide: Path, name: str, features: Iterable[Feature], replaces: str | None
    ) -> Saved:
        """Write the objects of a slide, whole or not at all.

        Args:
            slide: path of the slide, without links.
            name: name of the file beside the slide.
            replaces: SHA-256 of the content that may be replaced; None makes a new file.

        Raises:
            ProblemError: ``file-exists``: something else has that name.
            OutputError: it cannot be written there, or would not be found again.
        """
        stem = strip_format(slide.name)
        if not _is_of_slide(name, slide) or not _PLAIN.fullmatch(name[len(stem) :]):
            raise OutputError(
                f"{name} cannot be the name of the file: let it begin with {stem}, end with "
                f"{_SUFFIX}, and have none of {_NOT_IN_NAMES} between them."
            )
        about = {**VIEWED_OBJECTS.stated, "slide": slide.name}
        content = "".join(encode_features(features, about)).encode("ascii")
        folder, path = SafeFolder(slide.parent), slide.parent / name
        try:
            with self._lock:
                if replaces is not None and _may_replace(folder, path, slide, replaces):
                    folder.write_atomically(path, content)
                else:
                    folder.write_new(path, content)
        except FileExistsError as exc:
            raise ProblemError(
                "file-exists",
                f"{name} holds something else, or was changed since it was opened here. Save under "
                "another name.",
            ) from exc
        except OSError as exc:
            raise OutputError(
                f"{path} cannot be written ({exc.strerror or exc}). Allow writing in the folder of "
                "the slide, free space there, or choose a shorter name."
            ) from exc
        return Saved(file=name, sha256=hashlib.sha256(content).hexdigest())


def _may_replace(folder: SafeFolder, path: Path, slide: Path, sha256: str) -> bool:
    """Whether a file is there and is ours, as the page knows it; False if nothing is there.

    Raises:
        FileExistsError: something else is there.
    """
    there = folder.read_if_there(path)
    if there is None:
        return False
    if hashlib.sha256(there).hexdigest() != sha256 or not _is_ours(there, slide):
        raise FileExistsError(path)
    return True


def _list_names(folder: Path) -> list[str]:
    """List the names of everything in a folder."""
    with suppress(OSError):
        return [one.name for one in folder.iterdir()]
    return []


def _find_ours(slide: Path, names: Iterable[str]) -> list[Path]:
    """Find the files beside a slide that have its name and say that they hold its objects."""
    paths = (slide.parent / name for name in names if _is_of_slide(name, slide))
    return [path for path in paths if _says(path, slide)]


def _is_of_slide(name: str, slide: Path) -> bool:
    """Whether a file is looked at when a slide is shown: a folder may hold thousands of others."""
    return name.startswith(strip_format(slide.name)) and name.endswith(_SUFFIX)


def _says(path: Path, slide: Path) -> bool:
    try:
        with SafeFolder(path.parent).open(path) as file:
            return _is_ours(file.read(_HEAD_BYTES), slide)
    except OSError:
        return False


def _is_ours(content: bytes, slide: Path) -> bool:
    """Whether a file begins as one that the page saved for a slide."""
    about = _read_about(content)
    return VIEWED_OBJECTS.key in about and about.get("slide") == slide.name


def _read_about(content: bytes) -> Mapping[str, Any]:
    head = _HEAD.match(content[:_HEAD_BYTES])
    if head is None:
        return {}
    try:
        return dict(json.loads(b"{" + head["about"] + b"}"))
    except ValueError:
        return {}


def _changed_at(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _find_free_name(slide: Path, names: Iterable[str]) -> str:
    stem = strip_format(slide.name)
    taken = {name.lower() for name in names}
    number, name = 1, f"{stem}{_SUFFIX}"
    while name.lower() in taken:
        number += 1
        name = f"{stem}-{number}{_SUFFIX}"
    return name


def _parse(path: Path, content: bytes) -> list[Any]:
    try:
        document = json.loads(content)
        VIEWED_OBJECTS.check(path, document)
        found = document["features"]
    except (ValueError, KeyError, TypeError, RecursionError) as exc:
        raise PromptError(f"it is damaged: {exc}") from exc
    return [one for one in found if isinstance(one, dict) and one.get("type") == "Feature"]
