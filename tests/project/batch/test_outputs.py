"""What the files and names that a user gives must not do to what is there."""

from __future__ import annotations

from pathlib import Path

import pytest

from fixtures.command_line import Feature, features_of, rectangle, write_prompts
from fixtures.project_files import contents, make_project
from wsisam_qupath.errors import OptionError, OutputError
from wsisam_qupath.geojson.provenance import PROMPT_KEY
from wsisam_qupath.options import OutlineOptions
from wsisam_qupath.project.batch.geojson_folder import GeoJsonFolder
from wsisam_qupath.project.batch.request import BatchRequest
from wsisam_qupath.qupath.files.classes import spell_class
from wsisam_qupath.qupath.files.entries import ImageEntry
from wsisam_qupath.qupath.files.reading import read_project
from wsisam_qupath.report.writing import check_report_path


def image(folder: Path) -> ImageEntry:
    return ImageEntry(id="1", name="a.svs", folder=folder, uri="", slide=None)


def ours(result_id: str) -> Feature:
    feature = rectangle(result_id, (0, 0, 9, 9))
    feature["properties"]["metadata"] = {PROMPT_KEY: "r1"}
    return feature


def test_an_export_replaces_an_earlier_one(tmp_path: Path) -> None:
    entry = image(tmp_path)
    path = write_prompts(tmp_path / "a.svs.geojson", [ours("o1")])

    GeoJsonFolder(tmp_path, [entry]).write(entry, [])

    assert features_of(path) == []


@pytest.mark.parametrize("others", [[rectangle("r1", (0, 0, 9, 9))], [ours("o1"), 7]])
def test_an_export_does_not_replace_annotations_of_somebody(
    tmp_path: Path, others: list[Feature]
) -> None:
    path = write_prompts(tmp_path / "a.svs.geojson", others)
    before = path.read_bytes()

    with pytest.raises(OutputError, match="would be replaced, but is not from this program"):
        GeoJsonFolder(tmp_path, [image(tmp_path)])

    assert path.read_bytes() == before


def test_an_export_does_not_replace_what_is_no_geojson(tmp_path: Path) -> None:
    (tmp_path / "a.svs.geojson").write_text("notes")

    with pytest.raises(OutputError, match="choose another folder"):
        GeoJsonFolder(tmp_path, [image(tmp_path)])


@pytest.mark.parametrize("name", ["classifiers/classes.json", "data/1/server.json"])
def test_a_report_does_not_replace_files_of_the_project(tmp_path: Path, name: str) -> None:
    project = read_project(make_project(tmp_path / "project", classes=[]))
    before = contents(project.folder)

    with pytest.raises(OptionError, match="would lie among the project's own files"):
        check_report_path(project.folder / name, project=project)

    assert contents(project.folder) == before


def test_a_report_may_lie_beside_the_project_file(tmp_path: Path) -> None:
    project = read_project(make_project(tmp_path / "project"))
    before = contents(project.folder)

    check_report_path(project.folder / "report.json", project=project)

    assert contents(project.folder) == before


@pytest.mark.parametrize("name", ["", " ", "A:", "A: ", ": A", "A\nB"])
def test_a_class_that_qupath_would_call_otherwise_is_refused(name: str) -> None:
    with pytest.raises(OptionError, match="class_name: QuPath has no class of this name"):
        BatchRequest(Path("project.qpproj"), options=OutlineOptions(class_name=name))


def test_a_class_is_spelled_as_qupath_spells_it() -> None:
    assert spell_class(" Tumor:Positive ") == "Tumor: Positive"
