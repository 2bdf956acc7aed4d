"""Which slides a user means, and which annotations belong to them."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path

import pytest

from fixtures.coco_files import coco, write_slide_runner
from fixtures.command_line import rectangle, write_prompts
from wsisam_qupath.errors import PromptError, SlideError
from wsisam_qupath.project.create.finding import find_slides
from wsisam_qupath.project.create.matching import Source, find_annotations, match
from wsisam_qupath.slide.names import natural_key, strip_format

HERE = Path("drawn.geojson")
"""Annotations that nobody reads here."""

ID = "1b4e28ba-2fa1-51d2-883f-0016d3cca427"


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")
    return folder


def found_in(*wanted: str | Path) -> list[str]:
    return [path.name for path in find_slides([str(one) for one in wanted])]


def test_people_count_so() -> None:
    names = ["s10", "s2", "S1", "s", "s2b", "10", "9"]

    assert sorted(names, key=natural_key) == ["9", "10", "s", "S1", "s2", "s2b", "s10"]


def test_a_folder_means_its_slides_but_no_other_and_no_hidden_files(tmp_path: Path) -> None:
    touch(tmp_path, "b10.svs", "b2.SVS", "a.ome.tif", "notes.txt", ".hidden.svs", "sub/c.svs")
    (tmp_path / "folder.svs").mkdir()

    assert found_in(tmp_path) == ["a.ome.tif", "b2.SVS", "b10.svs"]


def test_a_pattern_reaches_into_folders_and_means_any_file(tmp_path: Path) -> None:
    touch(tmp_path, "a.svs", "sub/b.svs", "sub/deeper/c.dcm")

    assert found_in(f"{tmp_path}/**/*.*") == ["a.svs", "b.svs", "c.dcm"]


def test_a_name_may_look_like_a_pattern(tmp_path: Path) -> None:
    touch(tmp_path, "a[1].svs", "a1.svs")

    assert found_in(tmp_path / "a[1].svs") == ["a[1].svs"]


def test_a_slide_that_is_meant_twice_is_there_once(tmp_path: Path) -> None:
    touch(tmp_path, "a.svs")

    assert found_in(tmp_path, tmp_path / "*.svs", tmp_path / "a.svs") == ["a.svs"]


@pytest.mark.parametrize("wanted", ["gone.svs", "*.svs", "x" * 5000])
def test_what_means_nothing_is_said(tmp_path: Path, wanted: str) -> None:
    with pytest.raises(SlideError, match="There is no slide"):
        find_slides([str(tmp_path / wanted)])


def test_a_folder_without_slides_is_said(tmp_path: Path) -> None:
    touch(tmp_path, "sub/a.svs")

    with pytest.raises(SlideError, match=r"There are no slides in .* pattern such as"):
        find_slides([str(tmp_path)])


@pytest.mark.parametrize(
    ("name", "bare"),
    [
        ("a.svs", "a"),
        ("a.OME.tif", "a"),
        ("a.b.tiff", "a.b"),
        ("a.dcm", "a"),
        ("a.xyz", "a.xyz"),
        (".svs", ".svs"),
    ],
)
def test_the_bare_name_is_without_what_tells_the_format(name: str, bare: str) -> None:
    assert strip_format(name) == bare


def matched(sources: list[str], slides: list[str]) -> dict[str, str]:
    """Labels by slide, the ambiguous under "ambiguous" and the rest under ""."""
    found = match([Source(one, one, HERE) for one in sources], [Path(one) for one in slides])
    told = {slide.as_posix(): source.label for slide, source in found.by_slide.items()}
    told |= {"": " ".join(found.without_slide)} if found.without_slide else {}
    return told | (
        {"ambiguous": " ".join(one.id for one in found.ambiguous)} if found.ambiguous else {}
    )


@pytest.mark.parametrize("name", ["a.svs", "A.SVS", "a", "a.tif"])
def test_annotations_are_called_like_their_slide(name: str) -> None:
    assert matched([name], ["a.svs", "b.svs"]) == {"a.svs": name}


def test_the_whole_name_comes_first() -> None:
    found = matched(["a", "a.svs"], ["a.svs", "a.ndpi"])

    assert found == {"a.svs": "a.svs", "a.ndpi": "a"}


def test_a_dot_in_a_name_is_no_format() -> None:
    assert matched(["a.1"], ["a.svs"]) == {"": "a.1"}


def test_a_slide_of_an_unknown_format_has_annotations_too() -> None:
    assert matched(["a"], ["a.dcm"]) == {"a.dcm": "a"}


def test_what_may_belong_to_two_slides_belongs_to_none() -> None:
    assert matched(["a"], ["a.svs", "a.ndpi"]) == {"ambiguous": "a"}
    assert matched(["a.svs"], ["x/a.svs", "y/a.svs"]) == {"ambiguous": "a.svs"}


def test_two_files_for_one_slide_are_told() -> None:
    sources = [Source("a.geojson", "a", HERE), Source("a.json", "a", HERE)]

    found = match(sources, [Path("a.svs")])

    assert not found.by_slide
    assert found.ambiguous[0].reason == "a.svs has annotations in a.json too"


def test_a_folder_means_its_geojson_and_no_manifest(tmp_path: Path) -> None:
    names = ("b.svs.geojson", "a.json", "c.svs.geojson.gz", "d.json.gz")
    touch(tmp_path, *names, "manifest.json", ".x.geojson", "notes.txt", "e.gz")

    sources = find_annotations(tmp_path, []).sources

    assert [(one.label, one.slide_name) for one in sources] == [
        ("a.json", "a"), ("b.svs.geojson", "b.svs"),
        ("c.svs.geojson.gz", "c.svs"), ("d.json.gz", "d"),
    ]  # fmt: skip


def test_coco_is_recognized_and_a_folder_in_its_names_left_out(tmp_path: Path) -> None:
    path = tmp_path / "CATCH.json"
    row = {"id": 1, "image_id": 1, "category_id": 1, "segmentation": [0, 0, 9, 0, 9, 9]}
    path.write_text(
        json.dumps(
            {
                "images": [
                    {"id": 1, "file_name": "train\\a.svs"},
                    {"id": 2, "file_name": "empty.svs"},
                ],
                "categories": [{"id": 1, "name": "Bone"}],
                "annotations": [row],
            }
        )
    )

    found = find_annotations(path, [])

    assert [one.slide_name for one in found.sources] == ["a.svs"]
    assert [one.name for one in found.path_classes] == ["Bone"]


def test_a_database_of_slide_runner_is_as_its_coco_file(tmp_path: Path) -> None:
    row = {"id": 1, "image_id": 7, "category_id": 13, "segmentation": [0, 0, 40, 0, 40, 30]}
    file = tmp_path / "CATCH.json"
    file.write_text(json.dumps(coco(row)), encoding="utf-8")

    from_json, from_sqlite = (find_annotations(one, []) for one in (file, write_slide_runner(file)))

    assert [source.slide_name for source in from_sqlite.sources] == ["Histiocytoma_01_1.svs"]
    assert from_sqlite.path_classes == from_json.path_classes
    (ours,), (theirs,) = (found.sources for found in (from_sqlite, from_json))
    assert list(ours.open()) == list(theirs.open())


def test_one_file_for_one_slide_need_not_be_called_like_it(tmp_path: Path) -> None:
    path = write_prompts(tmp_path / "mine.geojson", [rectangle(ID, (0, 0, 9, 9))])

    (source,) = find_annotations(path, [Path("a.svs")]).sources

    assert source.slide_name == "a.svs"
    assert len(tuple(source.open())) == 1


@pytest.mark.parametrize("content", ["{}", '{"type": "Topology"}'])
def test_a_file_that_is_neither_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "x.json"
    path.write_text(content)

    with pytest.raises(PromptError, match="is neither GeoJSON nor COCO"):
        find_annotations(path, [])


def test_a_folder_without_annotations_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PromptError, match=r"There are no \.geojson files in"):
        find_annotations(tmp_path, [])


def test_annotations_belong_to_a_slide_whose_letters_are_decomposed(tmp_path: Path) -> None:
    slide = tmp_path / unicodedata.normalize("NFD", "Präparat.svs")
    source = Source("x", unicodedata.normalize("NFC", "Präparat.svs"), HERE)

    assert match([source], [slide]).by_slide == {slide: source}


def test_a_folder_of_dicom_files_is_one_of_slides(tmp_path: Path) -> None:
    touch(tmp_path, "case1.dcm")

    assert found_in(tmp_path) == ["case1.dcm"]
