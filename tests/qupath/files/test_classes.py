from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest

from fixtures.project_files import Json, contents, make_project
from wsisam_qupath.errors import ProjectError
from wsisam_qupath.qupath.files.classes import add_classes, read_class_names
from wsisam_qupath.qupath.files.entries import Project
from wsisam_qupath.qupath.files.reading import read_project

RED = -65536
BLUE = -16776961

DAMAGED = ["", "{", "[]", "{}", '{"pathClasses": {}}', '{"pathClasses": ["Tumor"]}', "\ud83d"]


def project_with(folder: Path, classes: list[Json] | None) -> Project:
    return read_project(make_project(folder, classes=classes))


def listed(project: Project) -> list[Json]:
    """What the file says, as JSON."""
    path = project.folder / "classifiers" / "classes.json"
    found: list[Json] = json.loads(path.read_text(encoding="utf-8"))["pathClasses"]
    return found


def test_new_classes_come_last(tmp_path: Path) -> None:
    old = [{"name": "Größe", "color": RED}, {"name": "Tumor: Positive", "color": BLUE}]
    project = project_with(tmp_path, old)

    new = add_classes(project, {"Gland": 0xFF00_00FF, "Größe": BLUE, "Vessel": RED})

    assert new == ("Gland", "Vessel")
    assert listed(project) == [
        *old,
        {"name": "Gland", "color": BLUE},
        {"name": "Vessel", "color": RED},
    ]
    assert read_class_names(project) == ("Größe", "Tumor: Positive", "Gland", "Vessel")


def test_what_was_in_the_list_stays_as_it_is(tmp_path: Path) -> None:
    old: list[Json] = [
        {"name": "A", "color": None, "later": [1.0, {"x": "µ"}]},
        {"color": 5},
        {"name": 7},
    ]
    project = project_with(tmp_path, old)

    add_classes(project, {"B": RED})

    assert listed(project) == [*old, {"name": "B", "color": RED}]


def test_the_file_looks_as_qupath_writes_it(tmp_path: Path) -> None:
    project = project_with(tmp_path, [])

    add_classes(project, {"Drüse": RED})

    assert (tmp_path / "classifiers" / "classes.json").read_text(encoding="utf-8") == (
        '{\n  "pathClasses": [\n    {\n      "name": "Drüse",\n      "color": -65536\n    }\n  ]\n}'
    )


@pytest.mark.parametrize(
    "known", [{}, {"A": BLUE}, {" A ": BLUE}, {"B:C": RED}, {"Unclassified": RED, "": RED}]
)
def test_nothing_is_written_for_known_classes(tmp_path: Path, known: dict[str, int]) -> None:
    old = [{"name": "A", "color": RED}, {"name": "B: C", "color": RED}]
    project = project_with(tmp_path, old)
    path = tmp_path / "classifiers" / "classes.json"
    os.utime(path, ns=(0, 0))

    assert add_classes(project, known) == ()

    assert path.stat().st_mtime_ns == 0


def test_a_project_without_a_list_keeps_the_usual_classes(tmp_path: Path) -> None:
    project = project_with(tmp_path, None)
    assert read_class_names(project) == ()

    assert add_classes(project, {"Gland": RED, "Tumor": BLUE}) == ("Gland",)

    assert read_class_names(project) == (
        "Tumor",
        "Stroma",
        "Immune cells",
        "Necrosis",
        "Other",
        "Region*",
        "Ignore*",
        "Positive",
        "Negative",
        "Gland",
    )
    assert listed(project)[0] == {"name": "Tumor", "color": BLUE}


def test_a_project_without_a_list_gets_none_for_the_usual_classes(tmp_path: Path) -> None:
    project = project_with(tmp_path, None)

    assert add_classes(project, {"Tumor": BLUE}) == ()

    assert "classifiers" not in contents(tmp_path)


@pytest.mark.parametrize("content", DAMAGED, ids=ascii)
def test_a_damaged_list_is_refused_and_untouched(tmp_path: Path, content: str) -> None:
    project = project_with(tmp_path, [])
    path = tmp_path / "classifiers" / "classes.json"
    path.write_bytes(content.encode("utf-8", "surrogatepass"))
    before = contents(tmp_path)

    for use in (read_class_names, lambda found: add_classes(found, {"A": RED})):
        with pytest.raises(ProjectError, match=r"The class list .* is damaged") as caught:
            use(project)
        assert str(path) in str(caught.value)
        assert "delete it, and QuPath makes a new list" in str(caught.value)

    assert contents(tmp_path) == before


@pytest.mark.skipif(os.name == "nt", reason="Windows has no modes")
def test_colleagues_keep_the_right_to_write_the_list(tmp_path: Path) -> None:
    project = project_with(tmp_path, [])
    path = tmp_path / "classifiers" / "classes.json"
    path.chmod(0o664)

    add_classes(project, {"A": RED})

    assert stat.S_IMODE(path.stat().st_mode) == 0o664


@pytest.mark.skipif(os.name == "nt", reason="the flag means something else on Windows")
def test_a_list_that_cannot_be_written_is_as_it_was(tmp_path: Path) -> None:
    project = project_with(tmp_path, None)
    (tmp_path / "classifiers").write_text("not a folder")

    with pytest.raises(ProjectError, match=r"cannot be (read|written)"):
        add_classes(project, {"A": RED})

    assert (tmp_path / "classifiers").read_text() == "not a folder"
