"""A folder of slides and its annotations become a QuPath project, whole or not at all."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from PIL import Image
from shapely import from_wkt

from fixtures.coco_files import CATCH_CLASSES, coco
from fixtures.command_line import annotation, rectangle, write_prompts
from fixtures.qupath_fixtures import Seen, objects_in, write_slide
from wsisam_qupath.errors import OptionError, OutputError, PromptError, SlideError
from wsisam_qupath.project.create.command import (
    Created,
    CreateRequest,
    label_slides,
    run_create,
    summary,
)
from wsisam_qupath.project.create.folder import build_beside, check_free, find_project_folder
from wsisam_qupath.project.create.unfinished import PROJECT_FILE
from wsisam_qupath.qupath.files.entries import Project
from wsisam_qupath.qupath.files.reading import read_project
from wsisam_qupath.qupath.jvm.process import QuPathProcess

pytestmark = pytest.mark.slow

BOW_TIE = [[[10, 10], [110, 110], [110, 10], [10, 110], [10, 10]]]
TRIANGLE = [[[20, 20], [90, 30], [50, 90], [20, 20]]]
GLAND, CHILD, POINTS, CELL = (f"{n}b4e28ba-2fa1-51d2-883f-0016d3cca427" for n in range(4))


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")
    return folder


def test_slides_of_the_same_name_are_told_apart_by_their_folders_or_numbers() -> None:
    slides = [Path(one) for one in ("x/a.svs", "y/A.svs", "b.svs", "1/x/c.svs", "2/x/c.svs")]

    assert list(label_slides(slides).values()) == ["x", "y", "", "1", "2"]


def test_a_project_is_named_by_its_folder_or_its_file(tmp_path: Path) -> None:
    assert find_project_folder(tmp_path / "p") == find_project_folder(tmp_path / "p" / PROJECT_FILE)


def test_qupath_has_one_name_for_the_file(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"name the folder, such as .*mine"):
        find_project_folder(tmp_path / "mine.qpproj")


@pytest.mark.parametrize(
    ("name", "words"),
    [(PROJECT_FILE, "There is a project in"), ("notes.txt", r"There is notes\.txt in")],
)
def test_nothing_is_ever_replaced(tmp_path: Path, name: str, words: str) -> None:
    touch(tmp_path, name)

    with pytest.raises(OutputError, match=f"{words}.*nothing is ever replaced"):
        check_free(tmp_path)


def test_a_file_or_a_missing_parent_is_refused(tmp_path: Path) -> None:
    touch(tmp_path, "file")

    with pytest.raises(OutputError, match="is no folder"):
        check_free(tmp_path / "file")
    with pytest.raises(OutputError, match="There is no folder"):
        check_free(tmp_path / "gone" / "p")


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may write anywhere")
def test_a_write_protected_parent_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)

    with pytest.raises(OutputError, match="is write-protected"):
        check_free(tmp_path / "p")


def test_it_appears_at_the_end_and_says_where_it_is(tmp_path: Path) -> None:
    folder = tmp_path / "Präparate 1"
    with build_beside(folder) as unfinished:
        (unfinished.path / PROJECT_FILE).write_text('{"uri": "file:/x", "mpp": 0.25, "n": "ü"}')
        touch(unfinished.path, f"{PROJECT_FILE}.backup")
        assert not folder.exists()

    assert [path.name for path in tmp_path.iterdir()] == ["Präparate 1"]
    assert [path.name for path in folder.iterdir()] == [PROJECT_FILE]
    content = json.loads((folder / PROJECT_FILE).read_text(encoding="utf-8"))
    assert content == {
        "uri": (folder / PROJECT_FILE).as_uri().replace("///", "/"), "mpp": 0.25, "n": "ü"
    }  # fmt: skip


def test_an_empty_folder_is_taken(tmp_path: Path) -> None:
    folder = tmp_path / "p"
    folder.mkdir()
    with build_beside(folder) as unfinished:
        (unfinished.path / PROJECT_FILE).write_text("{}")

    assert (folder / PROJECT_FILE).is_file()


def test_after_a_stop_before_the_first_slide_nothing_is_left(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), build_beside(tmp_path / "p") as unfinished:
        touch(unfinished.path, PROJECT_FILE, "data/1/data.qpdata")
        raise KeyboardInterrupt

    assert not list(tmp_path.iterdir())


def test_what_a_kill_left_is_swept_away_by_the_next_try(tmp_path: Path) -> None:
    touch(tmp_path, ".p.unfinished/data/1/data.qpdata", ".p.unfinished.lock")

    with build_beside(tmp_path / "p") as unfinished:
        assert not list(unfinished.path.iterdir())
        (unfinished.path / PROJECT_FILE).write_text("{}")

    assert [path.name for path in tmp_path.iterdir()] == ["p"]


def test_two_programs_do_not_make_the_same_project(tmp_path: Path) -> None:
    touch(tmp_path, ".p.unfinished/mine")
    with (
        FileLock(tmp_path / ".p.unfinished.lock"),
        pytest.raises(OutputError, match="Another program is making"),
        build_beside(tmp_path / "p"),
    ):
        pass

    assert (tmp_path / ".p.unfinished" / "mine").is_file()


def test_the_summary_says_what_is_missing() -> None:
    created = Created(
        Path("p"), 1, 2, repaired=1, without_slide=("a", "b", "c", "d"), without_annotations=("e",)
    )

    assert summary(created).splitlines() == [
        "1 image and 2 objects in p, made in 0.0 s.",
        "Made valid: 1 outline that crossed itself.",
        "Annotations of 4 slides that are not among these: a, b, c and 1 more.",
        "1 slide without annotations: e.",
    ]


def test_a_wrong_image_type_is_refused_before_anything_is_done(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"image_type: H&E is none of brightfield-h-e"):
        run_create(CreateRequest(tmp_path / "p", (str(tmp_path),), image_type="H&E"))


def test_annotations_of_other_slides_are_refused_before_qupath_starts(tmp_path: Path) -> None:
    touch(tmp_path, "slides/a.svs", "annotations/b.geojson")

    with pytest.raises(PromptError, match=r"holds annotations of b\.geojson, and the first of"):
        run_create(
            CreateRequest(tmp_path / "p", (str(tmp_path / "slides"),), tmp_path / "annotations")
        )

    assert not (tmp_path / "p").exists()


@dataclass(frozen=True)
class Made:
    """A project that ``create`` made, and what it said of it."""

    created: Created
    project: Project

    @property
    def path(self) -> Path:
        return self.project.path


def classes_of(project: Path) -> dict[str, int]:
    """Names and colors of the class list."""
    document = json.loads((project.parent / "classifiers" / "classes.json").read_bytes())
    return {one["name"]: one["color"] for one in document["pathClasses"]}


def drawn(id: str, kind: str, coordinates: Any, **properties: Any) -> dict[str, Any]:
    feature = annotation(id, kind, coordinates)
    feature["properties"] |= properties
    return feature


def write_annotations(folder: Path) -> Path:
    """One whole file with all that can be, one that is cut short, one of no slide."""
    folder.mkdir()
    child = drawn(CHILD, "Polygon", TRIANGLE, classification={"name": "Lumen"}, isLocked=True)
    gland = drawn(
        GLAND,
        "Polygon",
        BOW_TIE,
        classification={"name": "Gland", "color": [1, 2, 3]},
        name="The first",
        childObjects=[child],
        metadata={"key": "value"},
    )
    points = drawn(POINTS, "MultiPoint", [[5, 6], [7, 8]])
    points["geometry"]["plane"] = {"c": -1, "z": 2, "t": 1}
    cell = drawn(CELL, "Polygon", TRIANGLE, objectType="cell", measurements={"Area": 3})
    nameless = {**rectangle("no uuid", (200, 200, 300, 260)), "properties": None}
    useless = drawn("line", "LineString", [[0, 0]])
    write_prompts(folder / "b10.geojson", [gland, points, cell, nameless, useless])
    (folder / "plain.png.geojson").write_text('{"type": "FeatureCollection", "features": [')
    write_prompts(folder / "gone.svs.geojson", [])
    return folder


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, qupath: QuPathProcess) -> Made:
    folder = tmp_path_factory.mktemp("create") / "Präparate 1"
    slides, sub = folder / "slides", folder / "slides" / "sub"
    sub.mkdir(parents=True)
    for path in (slides / "b10.tif", slides / "b2.tif", sub / "b2.tif"):
        write_slide(path)
    Image.new("RGB", (300, 200), "white").save(slides / "plain.png")
    (slides / "broken.svs").write_text("This is no slide.")
    (slides / "notes.txt").write_text("Nor is this.")
    created = run_create(
        CreateRequest(
            folder / "Projekt",
            (str(slides), str(sub / "*.tif")),
            write_annotations(folder / "annotations"),
            "brightfield-h-e",
        )
    )
    return Made(created, read_project(created.project))


@pytest.fixture
def seen(made: Made, qupath: QuPathProcess) -> dict[str, Seen]:
    """What QuPath reads of the annotated image, by id."""
    return {one.id: one for one in qupath.run(objects_in, made.path, "2")}


@pytest.mark.qupath
def test_every_slide_that_opens_is_an_image_in_the_order_of_counting(made: Made) -> None:
    assert [one.name for one in made.project.images] == [
        "b2.tif (slides)", "b10.tif", "plain.png", "b2.tif (sub)"
    ]  # fmt: skip
    assert made.created.n_images == 4


@pytest.mark.qupath
def test_images_state_size_and_scale_and_have_no_trouble(made: Made) -> None:
    b2, _, plain, _ = made.project.images

    assert [one.trouble for one in made.project.images] == [None] * 4
    assert (b2.size_px, plain.size_px) == ((512, 512), (300, 200))
    assert b2.mpp is not None
    assert b2.mpp.x == pytest.approx(0.5)
    assert plain.mpp is None


@pytest.mark.qupath
def test_what_cannot_be_used_is_named_and_the_rest_is_in(made: Made) -> None:
    created = made.created

    assert [one.id for one in created.failed] == ["broken.svs", "plain.png.geojson"]
    assert "QuPath cannot open" in created.failed[0].reason
    assert "is not JSON" in created.failed[1].reason
    assert not created.is_complete
    assert [(one.id, one.reason) for one in created.skipped] == [
        ("b10.geojson: line", "its coordinates are not those of a line")
    ]
    assert created.without_slide == ("gone.svs.geojson",)
    assert created.without_annotations == ("b2.tif", "broken.svs", "b2.tif")
    assert created.repaired == 1


@pytest.mark.qupath
def test_objects_keep_ids_classes_names_locks_and_metadata(
    made: Made, seen: dict[str, Seen]
) -> None:
    gland, child, cell = seen[GLAND], seen[CHILD], seen[CELL]

    assert len(seen) == made.created.n_objects == 5
    assert (gland.path_class, gland.name, gland.metadata) == (
        "Gland",
        "The first",
        {"key": "value"},
    )
    assert (child.path_class, child.is_locked) == ("Lumen", True)
    assert (cell.type, cell.measurements) == ("PathCellObject", {"Area": 3.0})


@pytest.mark.qupath
def test_children_stay_below_and_planes_are_kept(seen: dict[str, Seen]) -> None:
    assert (seen[CHILD].parent, seen[GLAND].parent) == (GLAND, None)
    assert seen[POINTS].plane == (-1, 2, 1)


@pytest.mark.qupath
def test_outlines_are_valid_in_qupath(seen: dict[str, Seen]) -> None:
    outline = from_wkt(seen[GLAND].wkt)

    assert outline.is_valid
    assert outline.area == 5000


@pytest.mark.qupath
def test_annotated_images_have_data_and_a_summary(made: Made) -> None:
    image = made.project.images[1]

    assert image.qpdata.is_file()
    summary = json.loads(image.summary.read_bytes())
    assert (summary["imageType"], summary["hierarchy"]["nObjects"]) == ("BRIGHTFIELD_H_E", 6)


@pytest.mark.qupath
def test_the_class_list_has_the_classes_and_qupaths_own_two(made: Made) -> None:
    assert list(classes_of(made.path)) == ["Gland", "Lumen", "Region*", "Ignore*"]
    assert classes_of(made.path)["Gland"] & 0xFFFFFF == 0x010203


@pytest.mark.qupath
def test_the_project_says_where_it_is_and_nothing_is_beside_it(made: Made) -> None:
    folder = made.path.parent
    uri = json.loads(made.path.read_bytes())["uri"]

    assert uri == made.path.as_uri().replace("file:///", "file:/")
    assert {path.name for path in folder.parent.iterdir()} == {"slides", "annotations", "Projekt"}
    assert {path.name for path in folder.iterdir()} == {"data", "classifiers", PROJECT_FILE}


@pytest.mark.qupath
def test_a_second_create_changes_nothing(made: Made) -> None:
    before = {path: path.read_bytes() for path in made.path.parent.rglob("*") if path.is_file()}

    with pytest.raises(OutputError, match="There is a project in"):
        run_create(CreateRequest(made.path, (str(made.path.parents[1] / "slides"),)))

    assert before == {p: p.read_bytes() for p in made.path.parent.rglob("*") if p.is_file()}


@pytest.mark.qupath
def test_without_annotations_qupath_keeps_its_own_classes_and_images_have_only_their_type(
    tmp_path: Path, qupath: QuPathProcess
) -> None:
    slide = write_slide(tmp_path / "a.tif")

    created = run_create(CreateRequest(tmp_path / "p", (str(slide),)))

    (image,) = read_project(created.project).images
    assert image.qpdata.exists()  # else QuPath asks for the type at each image
    assert qupath.run(objects_in, created.project, image.id) == []
    assert not (tmp_path / "p" / "classifiers" / "classes.json").exists()
    assert created.is_complete
    assert created.without_annotations == ()


@pytest.mark.qupath
def test_catch_becomes_annotations_of_13_classes(tmp_path: Path, qupath: QuPathProcess) -> None:
    write_slide(tmp_path / "PNST_02_1.tif")
    annotations = [
        {"id": 1, "image_id": 9, "category_id": 13, "segmentation": [5, 5, 90, 5, 90, 90.5]},
        {"id": 2, "image_id": 9, "category_id": 6, "segmentation": [5, 5, 90]},
        {"id": 3, "image_id": 7, "category_id": 1, "segmentation": [5, 5, 90, 5, 90, 90]},
    ]
    (tmp_path / "CATCH.json").write_text(json.dumps(coco(*annotations)))

    created = run_create(CreateRequest(tmp_path / "p", (str(tmp_path),), tmp_path / "CATCH.json"))

    (seen,) = qupath.run(objects_in, created.project, "1")
    assert (seen.type, seen.path_class) == ("PathAnnotationObject", "Histiocytoma")
    assert from_wkt(seen.wkt).area == 85 * 85.5 / 2
    assert list(classes_of(created.project)) == [*CATCH_CLASSES, "Region*", "Ignore*"]
    assert [one.id for one in created.skipped] == ["PNST_02_1.svs: annotation 2"]
    assert created.without_slide == ("Histiocytoma_01_1.svs",)


@pytest.mark.qupath
def test_slides_of_which_none_opens_leave_nothing(tmp_path: Path, qupath: QuPathProcess) -> None:
    (tmp_path / "broken.svs").write_text("This is no slide.")

    with pytest.raises(SlideError, match=r"QuPath opened none of 1 slide\. QuPath cannot open"):
        run_create(CreateRequest(tmp_path / "p", (str(tmp_path),)))

    assert [path.name for path in tmp_path.iterdir()] == ["broken.svs"]
