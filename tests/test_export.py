"""The annotations of a project as a folder to train on: by the command, and by QuPath's script."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely
from PIL import Image
from shapely.geometry import Point, Polygon, box, mapping, shape

from command_line import features_of, write_prompts
from qupath_fixtures import qupath, write_slide
from wsisam_qupath.create.command import CreateRequest, run_create
from wsisam_qupath.errors import OptionError, OutputError, ProjectError, PromptError
from wsisam_qupath.export.command import Exported, ExportRequest, run_export, summary
from wsisam_qupath.export.folder import check_out, replaced_whole
from wsisam_qupath.export.truth import truth_of
from wsisam_qupath.geojson import to_feature
from wsisam_qupath.geometry import Box
from wsisam_qupath.manifest import (
    MANIFEST_NAME,
    ExportedImage,
    Manifest,
    file_names,
    read_manifest,
    write_manifest,
)
from wsisam_qupath.prompts import PathClass, Prompt
from wsisam_qupath.qupath.installation import find_installation
from wsisam_qupath.qupath.process import QuPathProcess
from wsisam_qupath.qupath.values import ImageContents
from wsisam_qupath.results import Provenance, Result

__all__ = ["qupath"]  # a fixture

SCRIPT = Path(__file__).parents[1] / "groovy" / "export_for_training.groovy"

ROUND = Point(200, 200).buffer(40)
RING = ROUND.difference(Point(200, 200).buffer(20))
TWO_PARTS = ROUND.union(Point(400, 400).buffer(30))
BOW_TIE = Polygon([(10, 10), (110, 110), (110, 10), (10, 110)])
GREEN = {"name": "Gland", "color": [0, 200, 0]}
REGION = {"name": "Region*", "color": [0, 0, 180]}

IMAGE = ExportedImage(
    "7", "a.svs", "a.svs.geojson", "file:/a.svs", 100, 200, 0.5, 0.25, {"Gland": 2}, 2, 1, {}
)


def identity(number: int) -> str:
    return f"{number:08d}-2fa1-51d2-883f-0016d3cca427"


def drawn(number: int, geometry: Any = ROUND, **properties: Any) -> dict[str, Any]:
    """An annotation as QuPath writes it."""
    return {
        "type": "Feature",
        "id": identity(number),
        "geometry": mapping(geometry),
        "properties": {"objectType": "annotation", **properties},
    }


def result(number: int, kind: Any = "annotation", **changed: Any) -> dict[str, Any]:
    """A result of this program, changed by a person."""
    made = Result(
        Prompt("p1", l0_box=Box(0, 0, 10, 10), path_class=PathClass("Gland", (0, 200, 0))),
        identity(number),
        Point(100 + 50 * number, 300).buffer(20),
        0.9,
        0.9,
        1.0,
        Provenance("lite-medsam", "0" * 64, None, None, 1.0, None, "0.1.0"),
    )
    feature = to_feature(made, kind)
    feature["properties"] |= changed
    return feature


def left_out_of(*annotations: dict[str, Any]) -> dict[str, int]:
    return dict(truth_of(ImageContents(9, annotations, ())).left_out)


@pytest.mark.parametrize(
    "geometry", [ROUND, RING, TWO_PARTS, Polygon([(0, 0), (9, 0), (9, 9)])],
    ids=["polygon", "hole", "parts", "triangle"],
)  # fmt: skip
def test_areas_are_objects(geometry: Any) -> None:
    truth = truth_of(ImageContents(2, (drawn(1, geometry, classification=GREEN),), ()))

    (feature,) = truth.features
    assert (truth.objects, truth.classes, truth.regions) == (1, {"Gland": 1}, 0)
    assert shape(feature["geometry"]).hausdorff_distance(geometry) <= 0.01
    assert feature["id"] == identity(1)
    assert feature["properties"]["classification"] == GREEN


def test_an_area_without_a_class_is_an_unclassified_object() -> None:
    assert truth_of(ImageContents(2, (drawn(1),), ())).classes == {"Unclassified": 1}


@pytest.mark.parametrize("geometry", [ROUND, box(0, 0, 90, 90)], ids=["area", "rectangle"])
def test_areas_of_class_region_are_regions_and_no_objects(geometry: Any) -> None:
    truth = truth_of(ImageContents(2, (drawn(1, geometry, classification=REGION),), ()))

    assert (truth.objects, truth.regions, len(truth.features)) == (0, 1, 1)


@pytest.mark.parametrize(
    ("annotation", "reason"),
    [
        (drawn(1, Point(5, 5)), "points"),
        (drawn(1, shapely.MultiPoint([(5, 5), (6, 6)]), classification=REGION), "points"),
        (drawn(1, shapely.LineString([(5, 5), (6, 6)])), "lines"),
        (drawn(1, Polygon([(0, 0), (9, 9), (4, 4)])), "without area"),
        (drawn(1, box(0, 0, 90, 90), classification=GREEN), "rectangles, which are prompts"),
        (drawn(1, box(0, 0, 90, 90), isLocked=True), "rectangles, which are prompts"),
        (drawn(1, classification="Ignore*"), "class ends in *"),
        (drawn(1, classification={"names": ["A", "B*"], "color": [1, 2, 3]}), "class ends in *"),
        (result(1), "unreviewed results"),
    ],
)
def test_what_is_no_truth_is_left_out_and_counted(annotation: dict[str, Any], reason: str) -> None:
    assert left_out_of(annotation) == {reason: 1}
    assert not truth_of(ImageContents(2, (annotation,), ())).features


@pytest.mark.parametrize(
    "reviewed",
    [
        result(1, isLocked=True),
        result(1, name="checked"),
        result(1, classification="Other"),
        result(1, kind="detection", objectType="annotation"),
        {**result(1), "geometry": mapping(ROUND)},
    ],
    ids=["locked", "named", "reclassified", "made of a detection", "edited"],
)
def test_a_result_that_a_person_took_over_is_truth(reviewed: dict[str, Any]) -> None:
    assert truth_of(ImageContents(2, (reviewed,), ())).objects == 1


def test_detections_of_ours_are_unreviewed() -> None:
    contents = ImageContents(4, (drawn(1),), (result(2, "detection"), result(3, "detection")))

    assert truth_of(contents).left_out == {"unreviewed results": 2}


def test_an_outline_that_crosses_itself_is_exported_valid() -> None:
    (feature,) = truth_of(ImageContents(2, (drawn(1, BOW_TIE),), ())).features

    assert shape(feature["geometry"]).is_valid
    assert shape(feature["geometry"]).area == 5000


def test_planes_names_and_locks_are_kept_and_measurements_are_not() -> None:
    annotation = drawn(1, name="one", isLocked=True, measurements={"Area": 3}, color=[1, 2, 3])
    annotation["geometry"]["plane"] = {"c": -1, "z": 2, "t": 0}

    (feature,) = truth_of(ImageContents(2, (annotation,), ())).features

    assert feature["geometry"]["plane"] == {"c": -1, "z": 2, "t": 0}
    assert feature["properties"] == {"objectType": "annotation", "name": "one", "isLocked": True}


def test_a_manifest_is_read_as_it_was_written(tmp_path: Path) -> None:
    unknown = replace(IMAGE, id="8", width=None, height=None, mpp_x=None, mpp_y=None)
    manifest = Manifest((IMAGE, unknown))

    write_manifest(tmp_path, manifest)

    assert read_manifest(tmp_path) == manifest
    assert manifest.classes == {"Gland": 4}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{}", "is no manifest of an export"),
        ("[]", "is no manifest of an export"),
        ('{"schema_version": 2, "images": []}', "written by a newer version"),
        ('{"schema_version": 1}', "is damaged"),
        ('{"schema_version": 1, "images": [{"id": 3}]}', "is damaged"),
        ('{"schema_version": 1', "is not JSON"),
    ],
)
def test_a_damaged_manifest_is_refused_in_words(tmp_path: Path, content: str, words: str) -> None:
    (tmp_path / MANIFEST_NAME).write_text(content)

    with pytest.raises(PromptError, match=f"{words}.*(Export|export) the project again"):
        read_manifest(tmp_path)


def test_a_manifest_names_no_file_elsewhere(tmp_path: Path) -> None:
    write_manifest(tmp_path, Manifest((replace(IMAGE, file="../a.geojson"),)))

    with pytest.raises(PromptError, match=r"names \.\./a\.geojson, which is not in its folder"):
        read_manifest(tmp_path)


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("slide 1.svs", "slide 1.svs.geojson"),
        ('a<b>c:d"e/f\\g|h?i*j', "a_b_c_d_e_f_g_h_i_j.geojson"),
        ("CON", "_CON.geojson"),
        ("com1.svs", "_com1.svs.geojson"),
        ("console.svs", "console.svs.geojson"),
        (" . ", "image.geojson"),
        ("dot.", "dot.geojson"),
        ("ü" * 150, f"{'ü' * 100}.geojson"),
    ],
)
def test_file_names_are_right_on_every_system(name: str, file: str) -> None:
    assert file_names([("1", name)]) == {"1": file}


def test_images_of_the_same_name_have_files_of_their_own() -> None:
    names = [("1", "a"), ("2", "A"), ("3", "b"), ("4", "a (2)"), ("5", "a?"), ("6", "a_")]

    assert file_names(names) == {
        "1": "a (1).geojson",
        "2": "A (2)_.geojson",
        "3": "b.geojson",
        "4": "a (2).geojson",
        "5": "a_ (5).geojson",
        "6": "a_ (6).geojson",
    }


def export_to(folder: Path) -> Path:
    folder.mkdir()
    write_manifest(folder, Manifest((IMAGE,)))
    (folder / IMAGE.file).write_text("{}")
    return folder


def test_an_export_goes_where_nothing_is_or_an_earlier_one(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    earlier = export_to(tmp_path / "earlier")
    (earlier / ".DS_Store").write_text("")

    for out in (tmp_path / "new", tmp_path / "empty", earlier):
        check_out(out)
        with replaced_whole(out) as folder:
            write_manifest(folder, Manifest(()))

        assert [path.name for path in out.iterdir()] == [MANIFEST_NAME]


@pytest.mark.parametrize(
    ("name", "words"),
    [("other", r"holds other files \(notes\.txt\) and is no earlier export"),
     ("mixed", r"is an earlier export .* but adapter\.safetensors in it is not of the export"),
     ("file", "is no folder"),
     ("gone/out", "There is no folder")],
)  # fmt: skip
def test_an_export_replaces_nothing_else(tmp_path: Path, name: str, words: str) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("")
    (export_to(tmp_path / "mixed") / "adapter.safetensors").write_text("")
    (tmp_path / "file").write_text("")

    with pytest.raises(OutputError, match=words):
        check_out(tmp_path / name)


def test_an_earlier_export_is_replaced_as_a_whole(tmp_path: Path) -> None:
    earlier = export_to(tmp_path / "out")

    with replaced_whole(earlier) as folder:
        write_manifest(folder, Manifest(()))
        assert (earlier / IMAGE.file).is_file()

    assert [path.name for path in earlier.iterdir()] == [MANIFEST_NAME]
    assert list(tmp_path.iterdir()) == [earlier]


def test_after_an_error_the_earlier_export_is_as_it_was(tmp_path: Path) -> None:
    earlier = export_to(tmp_path / "out")

    with pytest.raises(KeyboardInterrupt), replaced_whole(earlier) as folder:
        write_manifest(folder, Manifest(()))
        raise KeyboardInterrupt

    assert read_manifest(earlier).images == (IMAGE,)
    assert list(tmp_path.iterdir()) == [earlier]


def test_the_summary_counts_and_names_the_cures() -> None:
    image = replace(IMAGE, regions=0, left_out={"points": 2, "unreviewed results": 3})
    told = summary(Exported(Path("out"), Manifest((image,)))).splitlines()

    assert told[0] == "2 objects (Gland 2) and 0 regions of 1 image in out, in 0.0 s."
    assert told[1] == "Not exported: 2 points."
    assert told[2].startswith("No area of class Region* says where everything is annotated")
    assert told[3].startswith("Not exported: 3 results that nobody has checked. In QuPath, turn")


def test_a_wrong_scale_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="--mpp 0 is out of range"):
        run_export(ExportRequest(tmp_path / "none.qpproj", tmp_path / "out", mpp=0))


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


def run_groovy(project: Path, *arguments: str) -> str:
    """Our script for each image of a project, as *Run for project* does; what it prints."""
    installation = find_installation()
    java = Path(installation.runtime_dir) / "bin" / "java"
    if not java.is_file():
        pytest.skip(f"the QuPath at {installation.app_dir} brings no java program")
    done = subprocess.run(
        [
            *(str(java), "-cp", str(Path(installation.app_dir) / "*"), "qupath.QuPath"),
            *("script", "-p", str(project), str(SCRIPT), *arguments),
        ],
        capture_output=True,
        env={**os.environ, "JAVA_TOOL_OPTIONS": "-Dfile.encoding=UTF-8 -Dstdout.encoding=UTF-8"},
        timeout=300,
        check=False,
    )
    return done.stdout.decode("utf-8", "replace") + done.stderr.decode("utf-8", "replace")


def outlines(folder: Path, image: ExportedImage) -> dict[str, tuple[Any, dict[str, Any]]]:
    """Normalised outlines and properties, by id."""
    return {
        one["id"]: (shapely.normalize(shape(one["geometry"])), one["properties"])
        for one in features_of(folder / image.file)
    }


@pytest.mark.qupath
def test_qupaths_script_writes_what_the_command_writes(
    made: Made, exported: Exported, tmp_path: Path
) -> None:
    folder = tmp_path / "von QuPath"

    told = run_groovy(made.path, "-a", str(folder))

    assert "objects 7, regions 1, left out [class ends in *:1" in told, told
    assert read_manifest(folder) == exported.manifest
    assert {one.name for one in folder.iterdir()} == {one.name for one in exported.folder.iterdir()}
    for image in exported.manifest.images:
        ours, theirs = outlines(exported.folder, image), outlines(folder, image)
        assert list(ours) == list(theirs)
        for identity, (outline, properties) in ours.items():
            assert theirs[identity][1] == properties
            assert theirs[identity][0].hausdorff_distance(outline) <= 0.01


@pytest.mark.qupath
def test_qupaths_script_writes_beside_the_project_and_again_in_place(
    made: Made, tmp_path: Path
) -> None:
    project = made.copy_to(tmp_path / "copy")
    project.write_text(project.read_text("utf-8").replace('"never opened.tif"', '"A.TIF"'), "utf-8")
    folder = project.parent / "training-export"
    gone = replace(IMAGE, id="99", file="gone.geojson")
    stale = replace(IMAGE, id="1", file="old name.geojson")
    folder.mkdir()
    write_manifest(folder, Manifest((gone, stale)))
    for image in (gone, stale):
        (folder / image.file).write_text("{}")
    data = project.parent / "data" / "3" / "data.qpdata"
    data.write_bytes(data.read_bytes()[:200])

    told = run_groovy(project)
    done = run_export(ExportRequest(project, tmp_path / "out"))

    assert "no scale.png was saved with objects (1) and now reads as empty" in told, told
    assert read_manifest(folder) == done.manifest
    assert {one.name for one in folder.iterdir()} == {
        MANIFEST_NAME, "a.tif (1).geojson", "A.TIF (2).geojson"
    }  # fmt: skip


@pytest.mark.qupath
def test_qupaths_script_replaces_nothing_else(made: Made, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("")

    told = run_groovy(made.path, "-a", str(tmp_path))

    assert "holds other files and is no earlier export" in told
    assert [one.name for one in tmp_path.iterdir()] == ["notes.txt"]
