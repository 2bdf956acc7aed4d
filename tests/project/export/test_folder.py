"""The folder of an export: its manifest, its names, and what it replaces."""

from __future__ import annotations

import unicodedata
from dataclasses import replace
from pathlib import Path

import pytest

from fixtures.export_examples import IMAGE
from fixtures.letters import FORMS
from wsisam_qupath.errors import FormatError, OptionError, OutputError, PromptError
from wsisam_qupath.geojson.manifest import (
    MANIFEST_NAME,
    Manifest,
    file_names,
    read_manifest,
    write_manifest,
)
from wsisam_qupath.project.export.command import Exported, ExportRequest, run_export, summary
from wsisam_qupath.project.export.folder import check_out, replace_whole


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
        ('{"schema_version": 1}', "is damaged"),
        ('{"schema_version": 1, "images": [{"id": 3}]}', "is damaged"),
        ('{"schema_version": 1', "is not JSON"),
    ],
)
def test_a_damaged_manifest_is_refused_in_words(tmp_path: Path, content: str, words: str) -> None:
    (tmp_path / MANIFEST_NAME).write_text(content)

    with pytest.raises(PromptError, match=f"{words}.*(Export|export) the project again"):
        read_manifest(tmp_path)


def test_a_manifest_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    (tmp_path / MANIFEST_NAME).write_text('{"schema_version": 2, "images": []}')

    with pytest.raises(FormatError, match="is the list of an export in format 2"):
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


def test_images_with_the_same_letters_have_files_of_their_own() -> None:
    names = [(form, unicodedata.normalize(form, "Präparat")) for form in FORMS]

    files = file_names(names)

    assert len({unicodedata.normalize("NFC", file) for file in files.values()}) == 2


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
        with replace_whole(out) as folder:
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

    with replace_whole(earlier) as folder:
        write_manifest(folder, Manifest(()))
        assert (earlier / IMAGE.file).is_file()

    assert [path.name for path in earlier.iterdir()] == [MANIFEST_NAME]
    assert list(tmp_path.iterdir()) == [earlier]


def test_after_an_error_the_earlier_export_is_as_it_was(tmp_path: Path) -> None:
    earlier = export_to(tmp_path / "out")

    with pytest.raises(KeyboardInterrupt), replace_whole(earlier) as folder:
        write_manifest(folder, Manifest(()))
        raise KeyboardInterrupt

    assert read_manifest(earlier).images == (IMAGE,)
    assert list(tmp_path.iterdir()) == [earlier]


def test_the_summary_counts_and_names_the_cures() -> None:
    image = replace(IMAGE, regions=0, left_out={"points": 2, "unreviewed results": 3})
    told = summary(Exported(Path("out"), Manifest((image,)))).splitlines()

    assert told[0] == "2 objects (Gland 2) and 0 regions of 1 image in out, in 0.0 s."
    assert told[1] == "Not exported: 2 points."
    assert told[2].startswith("No area of class Region* marks where every object is annotated")
    assert told[3].startswith("Not exported: 3 results that no user has reviewed. In QuPath, turn")


def test_a_folder_that_is_not_kept_is_not_named() -> None:
    told = summary(Exported(Path("temporary"), Manifest((IMAGE,)), is_kept=False))

    assert told.startswith("2 objects (Gland 2) and")
    assert "of 1 image, in 0.0 s." in told


def test_a_wrong_scale_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="mpp: 0 is out of range"):
        run_export(ExportRequest(tmp_path / "none.qpproj", tmp_path / "out", mpp=0))
