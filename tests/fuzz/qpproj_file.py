"""QuPath's project files, and what this program keeps beside them."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

from fixtures.project_files import image, metadata
from fuzz.mutation import changed, damaged, text_of
from wsisam_qupath.errors import WsiSamError
from wsisam_qupath.project.commit import recover
from wsisam_qupath.project.history import History, Written
from wsisam_qupath.project.journal import Journal
from wsisam_qupath.prompts.results import SerializedResult
from wsisam_qupath.qupath.files.classes import add_classes
from wsisam_qupath.qupath.files.integrity import check_data, check_writable_image
from wsisam_qupath.qupath.files.reading import read_project

_OURS = (
    "classifiers/classes.json",
    "data/1/data.qpdata",
    "data/1/summary.json",
    "data/1/data.qpdata.wsisam-new",
    "data/1/data.qpdata.wsisam-commit",
    "wsisam-qupath/ledger/1.json",
    "wsisam-qupath/journal/1.jsonl",
)


def run(seed: int) -> None:
    """Whatever a project holds, it is used or refused in a sentence; nothing outside changes."""
    random = Random(seed)
    with TemporaryDirectory() as name:
        outside, folder = Path(name, "outside"), Path(name, "project")
        outside.write_bytes(b"somebody's")
        folder.mkdir()
        path = folder / "project.qpproj"
        path.write_bytes(text_of(_document(random), random))
        for file in random.sample(_OURS, random.randrange(4)):
            _put(folder / file, outside, random)
        with suppress(WsiSamError):
            project = read_project(path, remap=random.choice([(), (("/a", "/b"),)]))
            with suppress(WsiSamError):
                add_classes(project, {"Tumor": 1})
            for entry in project.images:
                for use in (recover, check_data, check_writable_image):
                    with suppress(WsiSamError):
                        use(entry)
                with suppress(WsiSamError), Journal(project, entry, "key") as journal:
                    journal.read()
                    journal.append([SerializedResult("r", "p", None, "nothing")])
                with suppress(WsiSamError):
                    History(project, entry).add([Written("r", "p", "1", None, "detection")], {})
        assert outside.read_bytes() == b"somebody's"
        assert {one.name for one in Path(name).iterdir()} == {"outside", "project"}


def _document(random: Random) -> Any:
    document: Any = {
        "version": "0.6.0",
        "uri": "file:/elsewhere/project.qpproj",
        "images": [image(n, f"file:/slides/{n}.svs", metadata=metadata()) for n in (1, 2)],
    }
    for _ in range(random.randrange(6)):
        document = changed(document, random)
    return document


def _put(path: Path, outside: Path, random: Random) -> None:
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        match random.randrange(5):
            case 0:
                path.symlink_to(outside)
            case 1:
                path.symlink_to(outside.with_name("new"))
            case 2:
                path.mkdir()
            case 3 if hasattr(os, "mkfifo"):
                os.mkfifo(path)
            case _:
                path.write_bytes(
                    damaged(b'{"sha256": null, "pathClasses": [{"name": "A"}]}', random)
                )
