"""An unfinished project: a hidden folder, and beside it a record of the slides that are in it.

A record is written once QuPath has saved the project with its slide, so what a stopped ``create``
had done is known, and the next one goes on there.
"""

from __future__ import annotations

import io
import json
import os
import shutil
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from ...errors import OutputError
from ...files import SafeFolder, write_atomically
from ...files.checked_lines import make_line, parse_line, write_all
from ...files.formats import UNFINISHED_PROJECT
from ...files.ordinary import read_file
from ...prompts import PathClass, Skipped
from ...qupath.files.integrity import find_damaged_notes

PROJECT_FILE = "project.qpproj"
"""QuPath's name of the project file."""


@dataclass(frozen=True)
class SlideRecord:
    """Outcome of a slide that is in the project.

    Attributes:
        slide: path of the slide.
        made_of: names the content of the slide, of its annotations, and its label.
        ids: ids of its entries in the project, one for each image in the file.
        n_objects, repaired, failed, skipped: see :class:`.Created`.
        path_classes: classes of its objects.
    """

    slide: str
    made_of: str
    ids: tuple[str, ...]
    n_objects: int = 0
    repaired: int = 0
    failed: tuple[Skipped, ...] = ()
    skipped: tuple[Skipped, ...] = ()
    path_classes: tuple[PathClass, ...] = ()


_RECORD = TypeAdapter(SlideRecord)


@dataclass(frozen=True)
class Plan:
    """What a project is to be made of: an unfinished one of something else is made again.

    Attributes:
        about: settings that hold for all slides.
        made_of: what each slide is made of, by its path; see :class:`SlideRecord`.
    """

    about: str = ""
    made_of: Mapping[str, str] = field(default_factory=dict)


class Unfinished:
    """The hidden folder of a project while it is made; see :func:`.build_beside`.

    Attributes:
        path: path of the hidden folder.
        kept: slides that an earlier run added, by path.
        why_new: why slides of an earlier run are not used; empty if there were none, or if they are
            used.
    """

    def __init__(self, path: Path, plan: Plan, *, resume: bool) -> None:
        """Open what an earlier run left, or begin a new folder.

        Raises:
            OutputError: the record is not of this program.
            FormatError: a newer version of this program wrote it.
            OSError: it cannot be written.
        """
        self.path = path
        self._record_path = path.with_name(f"{path.name}.slides")
        self._about = plan.about
        self.kept: dict[str, SlideRecord] = {}
        self.why_new = ""
        earlier = self._read_records()
        if resume:
            self.kept, self.why_new = self._choose_kept(earlier, plan)
        if self.kept:
            keep_entries(path / PROJECT_FILE, {one for r in self.kept.values() for one in r.ids})
        else:
            shutil.rmtree(path, ignore_errors=True)
            path.mkdir()
        write_atomically(self._record_path, self._encode(self.kept.values()))

    @property
    def is_empty(self) -> bool:
        """Whether no slide is recorded."""
        return not self.kept

    def add(self, records: Iterable[SlideRecord]) -> None:
        """Record slides that are in the saved project.

        Raises:
            OutputError: the disk is full, or gone.
        """
        added = {one.slide: one for one in records}
        try:
            with self._record_path.open("ab", buffering=0) as file:
                for one in added.values():
                    write_all(file, make_line(asdict(one)))
        except OSError as exc:
            raise OutputError(
                f"{self._record_path} cannot be written ({exc.strerror or exc}). Free space there, "
                "and give the same command again: what was added is kept."
            ) from exc
        self.kept |= added

    def remove(self) -> None:
        """Remove the folder and the record."""
        shutil.rmtree(self.path, ignore_errors=True)
        self.remove_record()

    def remove_record(self) -> None:
        """Remove the record, once the folder has its final name."""
        with suppress(OSError):
            self._record_path.unlink()

    def _encode(self, records: Iterable[SlideRecord]) -> bytes:
        header = make_line({**UNFINISHED_PROJECT.stated, "about": self._about})
        return header + b"".join(make_line(asdict(one)) for one in records)

    def _read_records(self) -> tuple[str, list[SlideRecord]]:
        """Read what an earlier run recorded, and the settings that held for all its slides."""
        try:
            lines = io.BytesIO(read_file(self._record_path))
        except FileNotFoundError:
            return self._about, []
        first = lines.readline()
        header = parse_line(first)
        if header is None:
            if first[:2] not in (b"", b'["'):  # a header that a kill cut off begins like this
                raise OutputError(
                    f"{self._record_path} is not from this program: rename or delete it."
                )
            return self._about, []
        UNFINISHED_PROJECT.check(self._record_path, header)
        records = []
        for line in lines:
            content = parse_line(line)
            if content is None:  # a kill or a full disk cut it off
                break
            records.append(_RECORD.validate_python(content))
        return str(header.get("about")), records

    def _choose_kept(
        self, earlier: tuple[str, list[SlideRecord]], plan: Plan
    ) -> tuple[dict[str, SlideRecord], str]:
        """Choose which slides to keep, all or none of them; if none, say why."""
        about, records = earlier
        if records and about != plan.about:
            return {}, "was made with other options or another version of this program"
        for one in records:
            if plan.made_of.get(one.slide) != one.made_of:
                name = Path(one.slide).name
                return {}, f"holds {name}, which or the annotations of which are others now"
        there = list_entries(self.path / PROJECT_FILE)
        return {one.slide: one for one in records if there.issuperset(one.ids)}, ""


def list_entries(project: Path) -> set[str]:
    """List the ids of the entries of a project; QuPath may have been killed while it wrote it."""
    return {str(one.get("entryID")) for one in _read_project(project).get("images", [])}


def keep_entries(project: Path, ids: set[str]) -> None:
    """Remove all other entries from a project, with their folders: QuPath reuses their ids.

    Notes on the project that QuPath was stopped while writing go as well: with them it opens
    no project.
    """
    damaged = find_damaged_notes(SafeFolder(project.parent), project.parent)
    if damaged is not None:
        damaged.unlink()
    content = _read_project(project)
    content["images"] = [one for one in content["images"] if str(one.get("entryID")) in ids]
    write_project(project, content)
    remove_leftovers(project)


def remove_leftovers(project: Path) -> None:
    """Remove the folders of images that the project does not know."""
    known = list_entries(project)
    folder = project.parent / "data"
    for one in folder.iterdir() if folder.is_dir() else ():
        if one.is_dir() and one.name not in known:
            shutil.rmtree(one, ignore_errors=True)


def write_project(project: Path, content: dict[str, Any]) -> None:
    """Write a project file, without the copy that QuPath keeps from between two saves.

    Raises:
        OutputError: it cannot be written.
    """
    write_atomically(project, json.dumps(content, indent=2, ensure_ascii=False).encode("utf-8"))
    project.with_name(f"{project.name}.backup").unlink(missing_ok=True)


def _read_project(project: Path) -> dict[str, Any]:
    """Read a project file, or QuPath's copy of it if the file is not whole."""
    for path in (project, project.with_name(f"{project.name}.backup")):
        with suppress(OSError, ValueError):
            content = json.loads(path.read_text(encoding="utf-8"))
            if isinstance(content, dict) and isinstance(content.get("images"), list):
                return content
    return {}


def name_state(path: Path) -> str:
    """Name the state of a file; a link counts as what it leads to."""
    try:
        status = os.stat(path)  # noqa: PTH116 - Path's own raises where a name is too long
    except (OSError, ValueError):
        return "none"
    return f"{status.st_size} {status.st_mtime_ns}"
