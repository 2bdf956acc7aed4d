"""Records which images a stopped ``restore`` has done: the next one leaves those alone.

Without that, one that was given again would go one command further back in some images than in
the others.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from ..errors import ProjectError
from ..files.checked_lines import make_line, parse_line
from ..files.formats import UNFINISHED_RESTORE
from ..qupath.files.backups import find_present, list_backups
from ..qupath.files.entries import ImageEntry, Project


class UnfinishedRestore:
    """The states that were restored, in ``<own folder>/restore.jsonl``; under the project's lock.

    Args:
        images: names, patterns or ids, as the user gave them.
    """

    def __init__(self, project: Project, images: Sequence[str]) -> None:
        self._path = project.own_folder / "restore.jsonl"
        self._files = project.files
        self._header = {**UNFINISHED_RESTORE.stated, "images": list(images)}
        with self._translate_os_errors("read"):
            self._numbers = self._read()

    def has_done(self, entry: ImageEntry) -> bool:
        """Tell whether an image, which is recovered, was restored and is still as it was then.

        Raises:
            OSError: a file of it cannot be read.
        """
        number = self._numbers.get(entry.id)
        backups = [one for one in list_backups(entry) if one.number == number]
        return find_present(entry, backups) is not None

    def add(self, entry: ImageEntry, number: int) -> None:
        """Note which state an image will get: a kill may come before or after the change.

        Raises:
            ProjectError: it cannot be written.
        """
        self._numbers[entry.id] = number
        lines = [{"id": name, "state": state} for name, state in self._numbers.items()]
        content = b"".join(make_line(one) for one in (self._header, *lines))
        with self._translate_os_errors("written"):
            self._files.write_atomically(self._path, content)

    def finish(self) -> None:
        """Remove the record: nothing is left to do.

        Raises:
            ProjectError: the file cannot be removed.
        """
        with self._translate_os_errors("removed"):
            self._files.remove(self._path)

    def _read(self) -> dict[str, int]:
        content = self._files.read_if_there(self._path) or b""
        first, *lines = content.splitlines(keepends=True) or [b""]
        header = parse_line(first)
        if header is None:
            return {}
        UNFINISHED_RESTORE.check(self._path, header)
        if header != self._header:
            return {}
        found = (parse_line(line) for line in lines)
        return {one["id"]: one["state"] for one in found if one is not None}

    @contextmanager
    def _translate_os_errors(self, verb: str) -> Iterator[None]:
        try:
            yield
        except OSError as exc:
            raise ProjectError(
                f"{self._path} cannot be {verb} ({exc.strerror or exc}): check the free space and "
                "permissions there, then run this again."
            ) from exc
