"""Which images and classes of a project an option names."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest

from fixtures.letters import OTHER_FORM, Form
from wsisam_qupath.errors import OptionError
from wsisam_qupath.project.access import choose_images
from wsisam_qupath.project.batch.selection import PromptFilter
from wsisam_qupath.prompts import PathClass
from wsisam_qupath.qupath.files.entries import ImageEntry, Project


def project_of(*names: str) -> Project:
    entries = (ImageEntry(str(n), name, Path("data"), "", None) for n, name in enumerate(names))
    return Project(Path("project.qpproj"), "0.6.0", tuple(entries))


@pytest.mark.parametrize(("ours", "asked"), OTHER_FORM)
@pytest.mark.parametrize("pattern", ["Präparat.svs", "Prä*", "*ä*.svs", "Pr?parat.svs"])
def test_an_image_is_named_however_letters_are_composed(
    ours: Form, asked: Form, pattern: str
) -> None:
    project = project_of("other.svs", unicodedata.normalize(ours, "Präparat.svs"))

    chosen = choose_images(project, [unicodedata.normalize(asked, pattern)])

    assert [entry.id for entry in chosen] == ["1"]


def test_a_name_in_other_letters_is_none() -> None:
    with pytest.raises(OptionError, match=r"Praparat\.svs is no image of"):
        choose_images(project_of("Präparat.svs"), ["Praparat.svs"])


@pytest.mark.parametrize(
    ("wanted", "ids"),
    [
        (["b [1].svs"], "01"),
        (["b [[]1].svs"], "1"),
        (["b*", "1"], "013"),
        (["2"], "2"),
        (["B 1.svs"], None),
        (["3", "2", "a.svs"], "23"),
    ],
)
def test_images_are_named_by_names_patterns_and_ids_in_the_order_of_the_project(
    wanted: list[str], ids: str | None
) -> None:
    project = project_of("b 1.svs", "b [1].svs", "a.svs", "b")

    if ids is None:
        with pytest.raises(OptionError, match="is no image of"):
            choose_images(project, wanted)
    else:
        assert "".join(entry.id for entry in choose_images(project, wanted)) == ids


@pytest.mark.parametrize(("ours", "asked"), OTHER_FORM)
def test_a_class_is_named_however_letters_are_composed(ours: Form, asked: Form) -> None:
    wanted = PromptFilter(classes=frozenset({unicodedata.normalize(asked, "Drüse")}))

    assert wanted.names(PathClass(unicodedata.normalize(ours, "Drüse")))
    assert not wanted.names(PathClass("Druse"))
    assert not wanted.names(None)
