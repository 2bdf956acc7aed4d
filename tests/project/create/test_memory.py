"""Objects pass through ``create`` in pieces, so that memory does not grow with their number."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from fixtures.command_line import rectangle, run_python
from fixtures.qupath_fixtures import write_slide
from wsisam_qupath.project.create import adding
from wsisam_qupath.project.create.adding import _divide

POSITIONS = 5000
OBJECTS = 180

MEASURED = """
import re, sys
from pathlib import Path
from wsisam_qupath.project.create.command import CreateRequest, run_create
if __name__ == "__main__":
    project, slide, cells = map(Path, sys.argv[1:])
    created = run_create(CreateRequest(project, (str(slide),), cells))
    status = Path("/proc/self/status").read_text()
    print(created.n_objects, re.search(r"VmHWM:\\s+(\\d+)", status)[1])
"""


def test_pieces_hold_few_objects_and_few_vertices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adding, "_OBJECTS_AT_ONCE", 4)
    monkeypatch.setattr(adding, "_POSITIONS_AT_ONCE", 12)
    small = rectangle("small", (0, 0, 1, 1))
    ring = small["geometry"]["coordinates"][0]
    large = {**small, "geometry": {"type": "MultiPolygon", "coordinates": [[ring], [ring * 4]]}}
    points = {**small, "geometry": {"type": "MultiPoint", "coordinates": [[1, 1], [2, 2]]}}
    parent = {**small, "properties": {"childObjects": [small, small]}}

    def divide(*features: dict[str, object]) -> list[int]:
        return [len(piece) for piece in _divide(features)]

    assert divide(*[points] * 9) == [4, 4, 1]
    assert divide(*[small] * 5) == [2, 2, 1]
    assert divide(small, large, small, points, points) == [1, 1, 3]
    assert divide(parent, small) == [1, 1]
    assert divide() == []


@pytest.mark.walk
@pytest.mark.slow
@pytest.mark.qupath
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.walk
def test_objects_of_a_million_vertices_take_less_than_250_mb(tmp_path: Path) -> None:
    # Long numbers, so that so few make a file that is not read as a whole.
    ring = [[100 + x + 1 / 3, x * x % 7919 / 7 + 1 / 3] for x in range(POSITIONS)]
    path = tmp_path / "cells.geojson"
    with path.open("w") as file:
        file.write('{"type": "FeatureCollection", "features": [')
        for number in range(OBJECTS):
            feature = rectangle(f"{number:08d}-2fa1-51d2-883f-0016d3cca427", (0, 0, 1, 1))
            feature["geometry"] = {"type": "MultiPoint", "coordinates": ring}
            file.write((", " if number else "") + json.dumps(feature))
        file.write("]}")
    script = tmp_path / "measured.py"
    script.write_text(MEASURED)

    answer = run_python(script, tmp_path / "p", write_slide(tmp_path / "a.tif", 64), path)

    assert answer.code == 0, answer.err
    count, peak_kib = map(int, answer.out.split())
    assert count == OBJECTS
    assert peak_kib < 250_000
