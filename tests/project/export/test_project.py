"""A project's annotations as a folder to train on: by the command, and by QuPath's script."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely
from PIL import Image
from shapely.geometry import Point, box

from fixtures.command_line import features_of, identity, write_prompts
from fixtures.export_examples import (
    BOW_TIE,
    GREEN,
    REGION,
    RING,
    ROUND,
    TWO_PARTS,
    drawn,
    result,
)
from fixtures.qupath_fixtures import write_slide
from wsisam_qupath.errors import ProjectError
from wsisam_qupath.geojson.manifest import (
    read_manifest,
)
from wsisam_qupath.project.create.command import CreateRequest, run_create
from wsisam_qupath.project.export.command import Exported, ExportRequest, run_export
from wsisam_qupath.qupath.jvm.process import QuPathProcess

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Made:
    """A project with two images of truth and one that was never opened."""

    path: Path

    def copy_to(self, folder: Path) -> Path:
        """The project file of a copy beside the same slides."""
        shutil.copytree(self.path.parent, folder)
        return folder / self.path.name

    @property
    def slides(self) -> Path:
        return self.path.parents[1] / "slides"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, qupath: QuPathProcess) -> Made:
    folder = tmp_path_factory.mktemp("export") / "Präparate 1"
    slides, annotations = folder / "slides", folder / "annotations"
    slides.mkdir(parents=True)
    annotations.mkdir()
    for name in ("a.tif", "never opened.tif"):
        write_slide(slides / name)
    Image.fromarray(np.full((200, 300, 3), 200, np.uint8)).save(slides / "no scale.png")
    write_prompts(annotations / "a.geojson", every_kind())
    write_prompts(annotations / "no scale.png.geojson", [drawn(1, classification=GREEN)])
    first = run_create(
        CreateRequest(folder / "project", (f"{slides}/*.tif", f"{slides}/*.png"), annotations)
    )
    assert first.n_objects == len(every_kind()) + 1
    return Made(first.project)


def every_kind() -> list[dict[str, Any]]:
    """Truth, and everything that is none."""
    stacked = drawn(5, Point(90, 400).buffer(30), name="deep")
    stacked["geometry"]["plane"] = {"c": -1, "z": 1, "t": 0}
    ellipse = drawn(6, Point(300, 90).buffer(25), isLocked=True)
    ellipse["geometry"]["isEllipse"] = True
    return [
        drawn(1, RING, classification=GREEN),
        drawn(2, TWO_PARTS, classification={"names": ["Tumor", "Positive"], "color": [9, 9, 9]}),
        drawn(3, BOW_TIE, classification="Gland"),
        drawn(4, box(0, 0, 512, 512), classification=REGION),
        stacked,
        ellipse,
        result(7, isLocked=True),
        result(8, name="checked"),
        drawn(11, Point(5, 5)),
        drawn(12, shapely.MultiPoint([(5, 5), (6, 6)]), classification="Ignore*"),
        drawn(13, shapely.LineString([(5, 5), (60, 60)])),
        drawn(14, box(10, 10, 90, 90), classification=GREEN),
        drawn(15, ROUND, classification="Ignore*"),
        result(1000),
        result(1001, "detection"),
        {**result(1002, "detection"), "properties": {"objectType": "detection"}},
    ]


LEFT_OUT = {
    "points": 2,
    "lines": 1,
    "rectangles, which are prompts": 1,
    "class ends in *": 1,
    "unreviewed results": 2,
}


@pytest.fixture(scope="module")
def exported(made: Made, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    return run_export(ExportRequest(made.path.parent, tmp_path_factory.mktemp("out") / "out"))


@pytest.mark.qupath
def test_truth_of_a_project_is_exported(exported: Exported) -> None:
    image = exported.manifest.images[0]

    assert image.classes == {"Gland": 4, "Tumor: Positive": 1, "Unclassified": 2}
    assert (image.objects, image.regions) == (7, 1)
    assert image.left_out == LEFT_OUT
    assert {one["id"] for one in features_of(exported.folder / image.file)} == {
        identity(number) for number in range(1, 9)
    }


@pytest.mark.qupath
def test_every_image_is_in_the_manifest_as_it_was_read(made: Made, exported: Exported) -> None:
    images = exported.manifest.images

    assert [one.name for one in images] == ["a.tif", "never opened.tif", "no scale.png"]
    assert [one.objects for one in images] == [7, 0, 1]
    assert [(one.width, one.height) for one in images] == [(512, 512), (512, 512), (300, 200)]
    assert images[0].mpp_x == images[0].mpp_y == pytest.approx(0.5)
    assert (images[2].mpp_x, images[2].mpp_y) == (None, None)
    assert read_manifest(exported.folder) == exported.manifest
    assert exported.is_complete


@pytest.mark.qupath
def test_an_image_without_a_scale_is_told_and_takes_the_users(
    made: Made, exported: Exported, tmp_path: Path
) -> None:
    assert [(one.id, one.reason[:37]) for one in exported.warnings] == [
        ("no scale.png", "nothing states its µm per pixel: set ")
    ]

    again = run_export(ExportRequest(made.path, tmp_path / "out", mpp=0.25))

    assert [one.mpp_x for one in again.manifest.images] == [
        exported.manifest.images[0].mpp_x, exported.manifest.images[1].mpp_x, 0.25
    ]  # fmt: skip
    assert again.warnings == ()


@pytest.mark.qupath
def test_damaged_images_are_named_and_do_not_stop_the_rest(made: Made, tmp_path: Path) -> None:
    project = made.copy_to(tmp_path / "copy")
    data = project.parent / "data" / "1" / "data.qpdata"
    data.write_bytes(data.read_bytes()[:-40])

    done = run_export(ExportRequest(project, tmp_path / "out"))

    assert [one.id for one in done.failed] == ["a.tif"]
    assert [one.name for one in done.manifest.images] == ["never opened.tif", "no scale.png"]
    assert not (tmp_path / "out" / "a.tif.geojson").exists()
    assert not done.is_complete


@pytest.mark.qupath
def test_where_no_image_can_be_read_nothing_is_written(made: Made, tmp_path: Path) -> None:
    project = made.copy_to(tmp_path / "copy")
    for number in (1, 2, 3):
        (project.parent / "data" / str(number)).mkdir(exist_ok=True)
        (project.parent / "data" / str(number) / "data.qpdata").write_text("text")

    with pytest.raises(ProjectError, match=r"None of 3 images .* can be exported\. a\.tif: "):
        run_export(ExportRequest(project, tmp_path / "out"))

    assert not (tmp_path / "out").exists()


@pytest.mark.qupath
def test_slides_that_moved_are_exported_with_a_note_or_remapped(made: Made, tmp_path: Path) -> None:
    moved = tmp_path / "moved"
    shutil.copytree(made.slides, moved)
    project = made.copy_to(tmp_path / "copy")
    content = json.loads(project.read_bytes())
    text = json.dumps(content).replace("Pr%C3%A4parate", "Gone").replace("Präparate", "Gone")
    project.write_text(text)
    old = made.slides.parent.with_name(made.slides.parent.name.replace("Präparate", "Gone"))

    lost = run_export(ExportRequest(project, tmp_path / "lost"))
    found = run_export(
        ExportRequest(project, tmp_path / "found", remap=((str(old / "slides"), str(moved)),))
    )

    assert [one.objects for one in lost.manifest.images] == [7, 0, 1]
    assert "is not there" in lost.warnings[0].reason
    assert found.manifest.images[0].uri == (moved / "a.tif").as_uri()
