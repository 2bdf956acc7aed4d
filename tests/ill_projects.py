"""A project with every ill that an image may have."""

from __future__ import annotations

import json
import math
import random
import shutil
from collections.abc import Mapping
from pathlib import Path

from command_line import GLAND, Feature, annotation, identity, rectangle, ring
from odd_objects import Odd, add_odd_annotations, odd_objects_in
from project_files import QPDATA_HEAD, QPDATA_TAIL, altered
from qupath_fixtures import Seen, add_objects, add_tma_grid, make_project, objects_in
from wsisam_qupath.qupath.process import QuPathProcess

GONE, CUT, EMPTY, TEXT, NOISE, FOREIGN = "weg", "gekürzt", "leer", "Text", "Rauschen", "fremd"
MISCOUNTED, LEFTOVER, ROTATED, GREY = "verzählt", "mitten drin", "gedreht", "grau"
WITHOUT_SUMMARY, UNSEEN, ODD_ONES, CROWDED, MANY = "ohne", "nie offen", "seltsam", "voll", "viele"

TROUBLES = {
    GONE: r"Its slide .* is not there: put it back, or say with --remap OLD=NEW which folder",
    CUT: r"data\.qpdata is cut short\. ",
    EMPTY: r"data\.qpdata is empty\. ",
    TEXT: r"data\.qpdata is not what QuPath writes\. ",
    NOISE: r"failed in QuPath \(StreamCorrupted.*\): put back a copy of data\.qpdata",
    FOREIGN: r"data\.qpdata reads as 1 objects, but summary\.json counts 2\. ",
    MISCOUNTED: r"data\.qpdata reads as 2 objects, but summary\.json counts 77\. ",
    LEFTOVER: r"QuPath was stopped while it saved the image, for .*data\.qpdata\.bkp is still",
    ROTATED: r"QuPath shows its slide rotated.*: add the slide to the project as it is",
    GREY: r"Its slide is not RGB, and only brightfield can be outlined: leave it out",
}
"""Images that fail, and how batch says why."""

NAMES = (*TROUBLES, WITHOUT_SUMMARY, UNSEEN, ODD_ONES, CROWDED, MANY)
N_MANY = 5000

BOX, CELL, BARE_CELL, SPOT, HIGH = map(identity, range(1, 6))
NUCLEUS = "POLYGON ((310 60, 312 70, 320 62, 310 60))"


def build(folder: Path, qupath: QuPathProcess, slide: Path) -> tuple[Path, dict[str, str]]:
    """The project and the ids of its images by their names; each has a rectangle."""
    slides = folder / "Schöne Bilder"
    slides.mkdir()
    for name in NAMES:
        shutil.copy(slide, slides / f"{name}.tif")
    paths = [slides / f"{name}.tif" for name in NAMES]
    project = qupath.run(make_project, folder / "Prüfung 1, neu", paths)
    ids = {name: str(number) for number, name in enumerate(NAMES, start=1)}
    qupath.run(add_objects, project, ids[GONE], [rectangle(BOX, GLAND, "Gland")])
    data = project.parent / "data"
    for name in NAMES:
        if name not in (GONE, UNSEEN):
            shutil.copytree(data / ids[GONE], data / ids[name], dirs_exist_ok=True)
    qupath.run(add_odd_annotations, project, ids[ODD_ONES])
    crowd(qupath, project, ids[CROWDED])
    qupath.run(add_objects, project, ids[MANY], many_outlines())
    (slides / f"{GONE}.tif").rename(folder / f"{GONE}.tif")
    damage({name: data / ids[name] for name in NAMES})
    alter(project, ids)
    return project, ids


def crowd(qupath: QuPathProcess, project: Path, entry_id: str) -> None:
    """All else that an image may hold: cores, cells, detections, and objects on other planes."""
    qupath.run(add_tma_grid, project, entry_id)
    cells = [
        annotation(CELL, "Polygon", [ring((300, 50), (330, 55), (310, 90))], "Gland"),
        annotation(BARE_CELL, "Polygon", [ring((400, 50), (430, 55), (410, 90))]),
    ]
    for cell in cells:
        cell["properties"] |= {"objectType": "cell", "measurements": {"DAB: mean": 0.25}}
    corners = [[*map(float, corner.split())] for corner in NUCLEUS[10:-2].split(", ")]
    cells[0]["nucleusGeometry"] = {"type": "Polygon", "coordinates": [corners]}
    spot = annotation(SPOT, "Polygon", [ring((350, 50), (380, 55), (360, 90))], "Tumor")
    spot["properties"] |= {"objectType": "detection", "name": "von Hand"}
    high = annotation(HIGH, "Polygon", [ring((20, 300), (120, 310), (60, 420))], "Tumor")
    high["geometry"]["plane"] = {"c": -1, "z": 3, "t": 1}
    qupath.run(add_objects, project, entry_id, [*cells, spot, high])


def many_outlines() -> list[Feature]:
    """Stars of 20 corners, as somebody's work looks like; and two more rectangles."""
    turns = [math.tau * n / 20 for n in range(20)]
    features = []
    for number in range(N_MANY - 3):
        x, y = 10 + 5 * (number % 98), 10 + 9 * (number // 98)
        corners = [
            (x + (2 + n % 2) * math.cos(turn), y + (2 + n % 2) * math.sin(turn))
            for n, turn in enumerate(turns)
        ]
        features.append(annotation(identity(100 + number), "Polygon", [ring(*corners)], "Zelle"))
    boxes = [(0, 0, 280, 266), (10, 300, 240, 500)]
    return [*features, *(rectangle(identity(50 + n), box) for n, box in enumerate(boxes))]


def damage(data: Mapping[str, Path]) -> None:
    """Of the folders of images' data."""
    whole = (data[GONE] / "data.qpdata").read_bytes()
    noise = random.Random(1).randbytes(len(whole) - len(QPDATA_HEAD + QPDATA_TAIL))
    damaged = {
        CUT: whole[: len(whole) // 2],
        EMPTY: b"",
        TEXT: "Das war einmal ein Präparat.\n".encode() * 100,
        NOISE: QPDATA_HEAD + noise + QPDATA_TAIL,
        FOREIGN: whole.replace(b"PathRootObject", b"PathR00tObject"),  # of an extension, say
    }
    for name, content in damaged.items():
        (data[name] / "data.qpdata").write_bytes(content)
    (data[WITHOUT_SUMMARY] / "summary.json").unlink()
    summary = json.loads((data[MISCOUNTED] / "summary.json").read_bytes())
    summary["hierarchy"]["nObjects"] = 77
    (data[MISCOUNTED] / "summary.json").write_text(json.dumps(summary), encoding="utf-8")
    shutil.copy(data[LEFTOVER] / "data.qpdata", data[LEFTOVER] / "data.qpdata.bkp")


def alter(project: Path, ids: Mapping[str, str]) -> None:
    """Have QuPath show some slides otherwise than they are."""
    content = json.loads(project.read_bytes())
    by_id = {str(entry["entryID"]): entry for entry in content["images"]}
    rotated, grey = by_id[ids[ROTATED]], by_id[ids[GREY]]
    rotated["serverBuilder"] = altered("rotated", rotated["serverBuilder"])
    grey["serverBuilder"]["metadata"]["isRGB"] = False
    project.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")


def seen_in(
    qupath: QuPathProcess, project: Path, ids: Mapping[str, str]
) -> dict[str, dict[str, Seen]]:
    """Every object but the roots by its id, by the names of the images that are whole."""
    return {
        name: {one.id: one for one in qupath.run(objects_in, project, ids[name])}
        for name in (WITHOUT_SUMMARY, CROWDED)
    }


def odd_in(qupath: QuPathProcess, project: Path, ids: Mapping[str, str]) -> dict[str, Odd]:
    return qupath.run(odd_objects_in, project, ids[ODD_ONES])
