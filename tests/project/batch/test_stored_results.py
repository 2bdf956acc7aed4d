"""Results from elsewhere are taken for the prompts that they answer, and for no others."""

from __future__ import annotations

import gzip
from dataclasses import replace
from pathlib import Path

import pytest

from fixtures.command_line import Feature, rectangle, write_prompts
from wsisam_qupath.errors import ImageError, OptionError
from wsisam_qupath.files import compute_sha256
from wsisam_qupath.geojson.provenance import PROMPT_KEY
from wsisam_qupath.geometry import Box
from wsisam_qupath.project.batch.selection import Task
from wsisam_qupath.project.batch.stored_results import StoredResults
from wsisam_qupath.project.slide_table.status import EmptyResult, SlideFiles, SlideStatus
from wsisam_qupath.prompts import PathClass, Prompt
from wsisam_qupath.qupath.files.entries import ImageEntry


def outline(number: int, class_name: str | None = "Gland") -> Feature:
    feature = rectangle(f"result {number}", (0, 0, 9, 9), class_name)
    feature["properties"]["objectType"] = "detection"
    feature["properties"]["metadata"] = {PROMPT_KEY: f"prompt {number}"}
    return feature


def task(number: int, class_name: str | None = "Gland") -> Task:
    path_class = None if class_name is None else PathClass(class_name)
    prompt = Prompt(f"prompt {number}", l0_box=Box(0, 0, 9, 9), path_class=path_class)
    return Task(prompt, f"result {number}", f"prompt {number}")


@pytest.fixture
def entry(tmp_path: Path) -> ImageEntry:
    return ImageEntry(id="1", name="a.svs", folder=tmp_path, uri="", slide=None)


@pytest.fixture
def files(tmp_path: Path) -> SlideFiles:
    """A slide that is done: results 1 and 2 have outlines, 3 is empty."""
    files = SlideFiles(tmp_path, "a.svs")
    write_prompts(files.path(".geojson"), [outline(1), outline(2, None)])
    empty = (EmptyResult("result 3", "prompt 3", "nothing there"),)
    outputs = {".geojson": compute_sha256(files.path(".geojson"))}
    files.write_status(SlideStatus("a.svs", "/a.svs", "done", empty=empty, outputs=outputs))
    return files


def find(entry: ImageEntry, files: SlideFiles, *tasks: Task) -> list[str]:
    stored = StoredResults(files.folder, [entry], "detection")
    return [one.id for one in stored.find(entry, tasks)]


def change(files: SlideFiles, **fields: object) -> None:
    status = files.read_status()
    assert status is not None
    files.write_status(replace(status, **fields))  # type: ignore[arg-type]


def test_prompts_get_their_results_and_new_ones_get_none(
    entry: ImageEntry, files: SlideFiles
) -> None:
    found = find(entry, files, task(1), task(2, None), task(3), task(4))

    assert found == ["result 1", "result 2", "result 3"]


def test_a_result_of_another_class_is_not_taken(entry: ImageEntry, files: SlideFiles) -> None:
    assert find(entry, files, task(1, "Stroma"), task(2, None)) == ["result 2"]


def test_a_slide_that_no_job_knows_gets_nothing(entry: ImageEntry, files: SlideFiles) -> None:
    other = replace(entry, name="b.svs")

    assert find(other, files, task(1)) == []
    assert find(entry, files) == []


def test_results_of_another_model_or_other_options_are_refused(
    entry: ImageEntry, files: SlideFiles
) -> None:
    with pytest.raises(ImageError, match="Give the model and the options"):
        find(entry, files, task(7))
    with pytest.raises(ImageError, match="Give the model and the options"):
        StoredResults(files.folder, [entry], "annotation").find(entry, [task(1)])


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"state": "failed", "reason": "It is damaged."}, "the slide failed there. It is damaged."),
        ({"state": "running"}, "the slide is not done"),
        ({"outputs": {".geojson": "0" * 64}}, "was changed after it was written"),
        ({"outputs": {".geojson.gz": "0" * 64}}, "is gone, or was changed"),
        ({"outputs": {".parquet": "0" * 64}}, "again with the format geojson"),
    ],
)
def test_what_is_not_done_or_was_changed_is_refused(
    entry: ImageEntry, files: SlideFiles, fields: dict[str, object], words: str
) -> None:
    change(files, **fields)

    with pytest.raises(ImageError, match=words):
        find(entry, files, task(1))


def test_compressed_results_are_taken_where_plain_ones_were_changed(
    entry: ImageEntry, files: SlideFiles
) -> None:
    plain, packed = files.path(".geojson"), files.path(".geojson.gz")
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    plain.write_text("{}")
    change(files, outputs={".geojson": "0" * 64, ".geojson.gz": compute_sha256(packed)})

    assert find(entry, files, task(1), task(3)) == ["result 1", "result 3"]


def test_a_folder_that_is_not_there_is_an_error_of_the_option(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="there is no folder"):
        StoredResults(tmp_path / "none", [], "detection")
