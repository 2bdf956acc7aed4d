"""Real projects for the tests of batch, what QuPath says of them, and what lies in them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pytest
import tifffile

from command_line import (
    GLAND,
    LARGE_GLAND,
    Answer,
    annotation,
    identity,
    rectangle,
    ring,
    run,
    write_prompts,
)
from qupath_fixtures import Seen, objects_in
from wsisam_qupath.backends import ImageArray
from wsisam_qupath.project.reading import read_project
from wsisam_qupath.pyramid import write_pyramid
from wsisam_qupath.qupath.process import QuPathProcess

SECTION, MIRRORED, STACK, BLANK = "Schnitt 1.tif", "Schnitt 2.tif", "Stapel.tif", "leer.tif"

BOX, CLICKS, NEGATIVE, NEAR, OUTLINE, REGION, CELL = map(identity, range(1, 8))
PLAIN_BOX, OUTSIDE, LOW_BOX, HIGH_BOX = map(identity, range(8, 12))

Objects: TypeAlias = Mapping[str, Mapping[str, Seen]]
"""What QuPath sees in a project, by the names of the images and the ids."""


@pytest.fixture(scope="module")
def created(
    tmp_path_factory: pytest.TempPathFactory, qupath: QuPathProcess, tissue: ImageArray
) -> Path:
    """A project that ``create`` made; not to be changed."""
    folder = tmp_path_factory.mktemp("created") / "Präparate 1"
    folder.mkdir()
    return create_project(folder, tissue)


@pytest.fixture
def project(created: Path, tmp_path: Path) -> Path:
    """A copy of the project as it was made, be it the one above or a module's own."""
    return copy_of(created, tmp_path / "Projekt")


def create_project(folder: Path, tissue: ImageArray) -> Path:
    """A project of the slides with the annotations on them, and both beside it."""
    slides, drawn = write_slides(folder / "Scans", tissue), write_annotations(folder / "drawn")
    answer = run("create", folder / "Projekt", "--images", slides, "--annotations", drawn)
    assert answer.code == 0, answer.err
    return folder / "Projekt" / "project.qpproj"


def write_slides(folder: Path, tissue: ImageArray) -> Path:
    """A section, its mirror image, both as the planes of a stack, and a slide nobody drew on."""
    folder.mkdir()
    write_pyramid(folder / SECTION, tissue, mpp=0.5)
    write_pyramid(folder / MIRRORED, mirrored(tissue), mpp=0.5)
    write_pyramid(folder / BLANK, np.full((512, 512, 3), 240, np.uint8), mpp=0.5)
    tifffile.imwrite(
        folder / STACK,
        np.stack([tissue, mirrored(tissue)]),
        imagej=True,
        photometric="rgb",
        resolution=(2.0, 2.0),
        metadata={"axes": "ZYXS", "unit": "um"},
    )
    return folder


def mirrored(tissue: ImageArray) -> ImageArray:
    return np.ascontiguousarray(tissue[:, ::-1])


def write_annotations(folder: Path) -> Path:
    """Prompts of each kind, and what is none, as GeoJSON files named as the slides."""
    folder.mkdir()
    box = rectangle(BOX, GLAND, "Gland")
    box["properties"] |= {"isLocked": True, "name": "die erste"}
    cell = annotation(CELL, "Polygon", [ring((300, 60), (330, 70), (310, 90))], "Gland")
    cell["properties"] |= {"objectType": "detection", "measurements": {"DAB": 0.5}}
    section = [
        box,
        annotation(CLICKS, "MultiPoint", [[140, 130], [150, 140]], "Tumor"),
        annotation(NEGATIVE, "MultiPoint", [[440, 20], [455, 280]], "Ignore*"),
        annotation(NEAR, "Point", [20, 250], "Ignore*"),
        annotation(
            OUTLINE, "Polygon", [ring((300, 20), (440, 60), (420, 250), (290, 260))], "Rand"
        ),
        annotation(REGION, "Polygon", [ring((0, 0), (512, 0), (512, 510), (0, 512))], "Region*"),
        cell,
    ]
    high = rectangle(HIGH_BOX, LARGE_GLAND, "Gland")
    high["geometry"]["plane"] = {"c": -1, "z": 1, "t": 0}
    write_prompts(folder / f"{SECTION}.geojson", section)
    outside = rectangle(OUTSIDE, (600, 600, 700, 700), "Gland")
    write_prompts(folder / f"{MIRRORED}.geojson", [rectangle(PLAIN_BOX, LARGE_GLAND), outside])
    write_prompts(folder / f"{STACK}.geojson", [rectangle(LOW_BOX, GLAND, "Gland"), high])
    return folder


def copy_of(project: Path, folder: Path) -> Path:
    """The project in another folder, file times and all; its slides stay where they are."""
    shutil.copytree(project.parent, folder)
    return folder / project.name


@dataclass(frozen=True)
class Batched:
    """What QuPath sees in a project before and after a run that nobody disturbed."""

    before: Objects
    after: Objects


def batched_copy(qupath: QuPathProcess, project: Path, folder: Path, *options: str) -> Batched:
    """What a batch does to the project, by a copy of it in another folder."""
    copy = copy_of(project, folder)
    answer = run("batch", copy, *options)
    assert answer.code == 0, answer.err
    return Batched(seen_by(qupath, project), seen_by(qupath, copy))


def seen_by(qupath: QuPathProcess, project: Path) -> dict[str, dict[str, Seen]]:
    """Every object but the roots by its id, by the names of the images."""
    return {
        entry.name: {one.id: one for one in qupath.run(objects_in, project, entry.id)}
        for entry in read_project(project).images
    }


def data_of(project: Path, name: str) -> Path:
    """Where the objects of an image lie."""
    (entry,) = (one for one in read_project(project).images if one.name == name)
    return entry.qpdata


def files_of(project: Path, *, ours: bool = True) -> dict[str, tuple[bytes, int]]:
    """Content and time of each file of a project.

    Args:
        ours: with those in the folder of this program.
    """
    folder = project.parent
    return {
        path.relative_to(folder).as_posix(): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in folder.rglob("*")
        if path.is_file() and (ours or path.relative_to(folder).parts[0] != "wsisam-qupath")
    }


def leftovers(project: Path) -> list[str]:
    """What only the middle of a change needs."""
    return [
        path.name
        for path in project.parent.rglob("*wsisam*")
        if path.is_file() and ".wsisam-backup." not in path.name
    ]


def journal_of(project: Path, name: str) -> Path:
    """Where the answers of an image are kept until they are written."""
    entry_id = data_of(project, name).parent.name
    return project.parent / "wsisam-qupath" / "journal" / f"{entry_id}.jsonl"


def journaled(project: Path, name: str) -> list[str]:
    """Ids of the answers in the journal of an image, those of whole lines."""
    try:
        lines = journal_of(project, name).read_bytes().splitlines(keepends=True)[1:]
    except FileNotFoundError:
        return []
    return [json.loads(line)[1]["id"] for line in lines if line.endswith(b"]\n")]


def words_of(answer: Answer) -> list[str]:
    """What is on stderr, but for the news that somebody has a QuPath open on this computer."""
    return [line for line in answer.words if not line.startswith("QuPath is running")]
