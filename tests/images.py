"""An image of a QuPath project in every state that a change of it goes through."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from disks import small_disk
from wsisam_qupath.project.commit import commit, staging_path
from wsisam_qupath.project.entries import ImageEntry, Project
from wsisam_qupath.project.guards import Stamps, take_stamps
from wsisam_qupath.qupath.values import Staged

PAGE_BYTES = 4096
OLD = b"\xac\xed\x00\x05" + random.Random(1).randbytes(40 * PAGE_BYTES - 100)
NEW = b"\xac\xed\x00\x05" + random.Random(2).randbytes(42 * PAGE_BYTES - 100)
QUPATHS = b"\xac\xed\x00\x05" + random.Random(3).randbytes(5000)
OLD_SUMMARY = '{"timestamp":1,"hierarchy":{"nObjects":3},"imageType":"Prüfling \ud83d"}'.encode(
    "utf-8", "surrogatepass"
)
NEW_SUMMARY = {"imageType": "BRIGHTFIELD_H_E", "hierarchy": {"nObjects": 5, "Größe": 1}}
DATE = "20200229-235959Z"
BACKUP = {
    f"data-{DATE}.wsisam-backup.qpdata": OLD,
    f"data-{DATE}.wsisam-backup.summary.json": OLD_SUMMARY,
}
STAGED = {"data.qpdata.wsisam-new": NEW}
NEXT_SUMMARY = {"summary.json.wsisam-new": b'{"timestamp":7}'}


@dataclass(frozen=True)
class Image:
    """An image of a real project folder, all names with spaces and umlauts."""

    project: Project
    entry: ImageEntry

    @property
    def files(self) -> dict[str, bytes]:
        folder = self.entry.folder
        return {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file()}

    @property
    def live(self) -> tuple[bytes | None, bytes | None]:
        return self.files.get("data.qpdata"), self.files.get("summary.json")

    @property
    def is_old(self) -> bool:
        return self.live == (OLD, OLD_SUMMARY)

    @property
    def is_new(self) -> bool:
        data, summary = self.live
        if data != NEW or summary is None:
            return False
        written_ms = self.entry.qpdata.stat().st_mtime_ns // 1_000_000
        return bool(json.loads(summary) == {"timestamp": written_ms, **NEW_SUMMARY})

    @property
    def leftovers(self) -> list[str]:
        ours = (name for name in self.files if "wsisam" in name)
        return sorted(name for name in ours if "wsisam-backup." not in name)

    @property
    def stamps(self) -> Stamps:
        return take_stamps(self.project, self.entry)

    def put(self, name: str, content: bytes) -> Path:
        path = self.entry.folder / name
        path.write_bytes(content)
        return path

    def stage(self, content: bytes = NEW, summary: Mapping[str, Any] = NEW_SUMMARY) -> Staged:
        staging_path(self.entry).write_bytes(content)
        return Staged(staging_path(self.entry), 5, summary)

    def commit(self, content: bytes = NEW) -> Path | None:
        stamps = self.stamps
        return commit(self.project, self.entry, self.stage(content), stamps)

    def put_marker(self, content: bytes, **changes: Any) -> None:
        """As the commit of a content leaves it."""
        marker = {
            "sha256": sha256(content).hexdigest(),
            "size_bytes": len(content),
            "summary": '{"timestamp":7}',
            "backup": f"data-{DATE}.wsisam-backup.qpdata",
        }
        self.put("data.qpdata.wsisam-commit", json.dumps({**marker, **changes}).encode())


def make_image(parent: Path) -> Image:
    folder = parent / "Projekt Größe 1"
    data = folder / "data" / "7"
    data.mkdir(parents=True)
    path = folder / "Prüfung neu.qpproj"
    path.write_text("{}")
    entry = ImageEntry("7", "Präparat 7 (alt)", data, "file:/gone.tif", None)
    image = Image(Project(path, "0.6.0", (entry,)), entry)
    image.put("data.qpdata", OLD)
    image.put("summary.json", OLD_SUMMARY)
    image.put("thumbnail.jpg", b"jpg")
    return image


@pytest.fixture
def image(tmp_path: Path) -> Image:
    return make_image(tmp_path)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of one megabyte, on which an image is soon too large."""
    with small_disk(tmp_path, 1024) as folder:
        yield folder
