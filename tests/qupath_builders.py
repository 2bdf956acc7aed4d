"""Objects to put into projects, and a project to put them into."""

from __future__ import annotations

import json
import uuid
from pathlib import Path
from typing import Any

import pytest
import shapely
import shapely.geometry

from qupath_fixtures import make_project, write_slide
from wsisam_qupath.qupath.objects import stage_change
from wsisam_qupath.qupath.process import QuPathProcess
from wsisam_qupath.qupath.values import Change, Feature, Placed, Staged

TRIANGLE = [[10.0, 10.0], [60.5, 12.25], [30.0, 55.75], [10.0, 10.0]]
SQUARE = [[100.0, 100.0], [140.0, 100.0], [140.0, 140.0], [100.0, 140.0], [100.0, 100.0]]
HOLE = [[110.0, 110.0], [110.0, 120.0], [120.0, 120.0], [120.0, 110.0], [110.0, 110.0]]

KEPT = {"wsisam_prompt_id": "p", "wsisam_drawn": "1 2 3", "wsisam_base": "lite"}


@pytest.fixture
def project(qupath: QuPathProcess, tmp_path: Path) -> Path:
    """One image without objects, in a folder with a space and an umlaut."""
    slide = write_slide(tmp_path / "Präparat 1.tif")
    return qupath.run(make_project, tmp_path / "Prüf Ordner", [slide])


def feature(
    geometry_type: str = "Polygon", coordinates: Any = None, plane: Any = None, **properties: Any
) -> Feature:
    """An annotation with a new id."""
    geometry: Feature = {"type": geometry_type, "coordinates": coordinates or [TRIANGLE]}
    if plane:
        geometry["plane"] = plane
    return {
        "type": "Feature",
        "id": str(uuid.uuid4()),
        "geometry": geometry,
        "properties": {"objectType": "annotation", **properties},
    }


def result(geometry_type: str = "Polygon", coordinates: Any = None, **properties: Any) -> Feature:
    """A detection as this program makes it."""
    stated = {"objectType": "detection", "isLocked": False, "metadata": KEPT, **properties}
    return feature(geometry_type, coordinates, **stated)


def placed(*features: Feature, below: str | None = None) -> tuple[Placed, ...]:
    return tuple(Placed(one, below) for one in features)


def apply(qupath: QuPathProcess, project: Path, change: Change) -> Staged:
    """Stage a change of image 1 and make it the image's."""
    folder = project.parent / "data" / "1"
    staged = qupath.run(stage_change, project, "1", change, folder / "new")
    staged.path.replace(folder / "data.qpdata")
    summary = {"timestamp": 1, **staged.summary}
    (folder / "summary.json").write_text(json.dumps(summary), encoding="utf-8")
    return staged


def is_same_shape(one: Feature, other: Feature) -> bool:
    shapes = (shapely.geometry.shape(each["geometry"]) for each in (one, other))
    return bool(shapely.equals(*shapes))


def files_of(project: Path) -> dict[str, bytes]:
    """Content of all files below a project, empty for folders."""
    return {
        str(path.relative_to(project.parent)): path.read_bytes() if path.is_file() else b""
        for path in project.parent.rglob("*")
    }
