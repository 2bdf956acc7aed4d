"""Slides are added to a new project one by one, and one that hangs QuPath costs itself alone."""

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fixtures.qupath_fixtures import objects_in, write_slide
from wsisam_qupath.project.create import adding
from wsisam_qupath.project.create.adding import Adder, Addition
from wsisam_qupath.qupath.jvm.process import QuPathProcess

pytestmark = pytest.mark.qupath

RECTANGLE: dict[str, Any] = {
    "type": "Feature",
    "id": "1b4e28ba-2fa1-51d2-883f-0016d3cca427",
    "geometry": {"type": "Polygon", "coordinates": [[[5, 5], [40, 5], [40, 40], [5, 40], [5, 5]]]},
    "properties": {"objectType": "annotation"},
}


@pytest.mark.skipif(os.name == "nt", reason="Windows has no named pipes in folders")
@pytest.mark.walk
def test_a_slide_on_which_qupath_hangs_costs_itself_alone(
    tmp_path: Path, qupath: QuPathProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adding, "_SLIDE_SECONDS_MAX", 25.0)
    project = tmp_path / "project" / "project.qpproj"
    project.parent.mkdir()
    pipe = tmp_path / "hangs.tif"
    os.mkfifo(pipe)  # whoever opens it waits for a writer, for ever
    adder = Adder(qupath, project, "unset")

    adder.start()
    first = adder.add(Addition(write_slide(tmp_path / "a.tif", 64), "", lambda: (RECTANGLE,)))
    hanging = adder.add(Addition(pipe))
    last = adder.add(Addition(write_slide(tmp_path / "b.tif", 64)))
    adder.save()

    assert first.ids and last.ids
    assert "did not answer within 25 s" in hanging.reason
    images = json.loads(project.read_text("utf-8"))["images"]
    assert [image["imageName"] for image in images] == ["a.tif", "b.tif"]
    folders = {str(image["entryID"]) for image in images}
    assert {one.name for one in (project.parent / "data").iterdir() if one.is_dir()} <= folders
    with_objects = [
        one for one in folders if (project.parent / "data" / str(one) / "data.qpdata").exists()
    ]
    assert len(with_objects) == 1


def test_a_slide_that_fails_in_its_second_piece_costs_itself_alone(
    tmp_path: Path, qupath: QuPathProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adding, "_OBJECTS_AT_ONCE", 1)
    project = tmp_path / "project" / "project.qpproj"
    project.parent.mkdir()
    adder = Adder(qupath, project, "unset")

    def fail() -> Iterator[dict[str, Any]]:
        yield RECTANGLE
        # QuPath cannot read what it wrote of the first piece.
        shutil.rmtree(project.parent / "data" / "2")
        (project.parent / "data" / "2" / "data.qpdata" / "x").mkdir(parents=True)
        yield {**RECTANGLE, "id": "2b4e28ba-2fa1-51d2-883f-0016d3cca427"}

    adder.start()
    first = adder.add(Addition(write_slide(tmp_path / "a.tif", 64), "", lambda: (RECTANGLE,)))
    failing = adder.add(Addition(write_slide(tmp_path / "b.tif", 64), "", fail))
    last = adder.add(Addition(write_slide(tmp_path / "c.tif", 64)))
    adder.save()

    assert first.ids and last.ids
    assert "QuPath fails at b.tif" in failing.reason
    images = json.loads(project.read_text("utf-8"))["images"]
    assert [image["imageName"] for image in images] == ["a.tif", "c.tif"]
    assert adder.entry_ids[tmp_path / "a.tif"] == (str(images[0]["entryID"]),)
    assert len(qupath.run(objects_in, project, str(images[0]["entryID"]))) == 1
