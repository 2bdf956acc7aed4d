"""The command line as a user has it, in a process of its own; and GeoJSON as QuPath has it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import wsisam_qupath

GLAND = (262, 0, 470, 302)
LARGE_GLAND = (0, 0, 280, 266)
"""Rectangles on the tissue of conftest.py, level-0 px."""

Feature: TypeAlias = dict[str, Any]
Corners: TypeAlias = tuple[float, float, float, float]

_COLOURS = ("FORCE_COLOR", "CLICOLOR_FORCE", "TTY_COMPATIBLE")


@dataclass(frozen=True)
class Answer:
    """How a command ended, and what it wrote; the streams are UTF-8."""

    code: int
    out: str
    err: str

    @property
    def words(self) -> list[str]:
        """The lines on stderr that are not blank."""
        return [line for line in self.err.splitlines() if line.strip()]


def environment(**variables: str) -> dict[str, str]:
    """Ours with these variables; the package is found from any folder, and pipes get no colours."""
    root = str(Path(wsisam_qupath.__file__).parents[1])
    inherited = {name: value for name, value in os.environ.items() if name not in _COLOURS}
    return {**inherited, "PYTHONPATH": root, "PYTHONIOENCODING": "utf-8", **variables}


def run(*arguments: object, cwd: Path | None = None, **variables: str) -> Answer:
    """``python -m wsisam_qupath`` with these arguments, to its end."""
    return run_python("-m", "wsisam_qupath", *arguments, cwd=cwd, **variables)


def run_python(*arguments: object, cwd: Path | None = None, **variables: str) -> Answer:
    """This Python with these arguments, to its end."""
    done = subprocess.run(
        [sys.executable, *map(str, arguments)],
        check=False,
        capture_output=True,
        cwd=cwd,
        env=environment(**variables),
        stdin=subprocess.DEVNULL,
        timeout=300,
    )
    out, err = (stream.decode("utf-8") for stream in (done.stdout, done.stderr))
    # On Windows, text streams end their lines with two characters.
    return Answer(done.returncode, out.replace("\r\n", "\n"), err.replace("\r\n", "\n"))


def identity(number: int) -> str:
    """QuPath keeps ids that are UUIDs."""
    return f"{number:08d}-2fa1-51d2-883f-0016d3cca427"


def rectangle(id: str, corners: Corners, class_name: str | None = None) -> Feature:
    """An annotation as QuPath exports a rectangle."""
    x0, y0, x1, y1 = corners
    ring = [[x0, y0], [x1, y0], [x1, y1], [x0, y1], [x0, y0]]
    return annotation(id, "Polygon", [ring], class_name)


def annotation(id: str, kind: str, coordinates: object, class_name: str | None = None) -> Feature:
    """An annotation as QuPath exports it."""
    properties: dict[str, Any] = {"objectType": "annotation"}
    if class_name is not None:
        properties["classification"] = {"name": class_name, "color": [0, 122, 255]}
    geometry = {"type": kind, "coordinates": coordinates}
    return {"type": "Feature", "id": id, "geometry": geometry, "properties": properties}


def ring(*corners: tuple[float, float]) -> list[list[float]]:
    """Closed, as GeoJSON has it."""
    return [[*corner] for corner in (*corners, corners[0])]


def write_prompts(path: Path, features: Iterable[Feature]) -> Path:
    """A FeatureCollection in UTF-8."""
    document = {"type": "FeatureCollection", "features": list(features)}
    path.write_text(json.dumps(document, ensure_ascii=False), encoding="utf-8")
    return path


def features_of(path: Path) -> list[Feature]:
    """The features of a file that we wrote."""
    document = json.loads(path.read_bytes())
    assert document["type"] == "FeatureCollection"
    found: list[Feature] = document["features"]
    return found


def vertices(feature: Feature) -> int:
    """How many positions its geometry has."""
    return _positions(feature["geometry"]["coordinates"])


def _positions(coordinates: Sequence[Any]) -> int:
    if isinstance(coordinates[0], (int, float)):
        return 1
    return sum(_positions(part) for part in coordinates)
