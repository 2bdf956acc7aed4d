"""Objects are saved beside the slide and loaded again, and what others wrote is never replaced."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from fixtures.command_line import GLAND, annotation, features_of, identity, rectangle, ring
from fixtures.servers import Client, Json, json_of, problem_name
from fixtures.viewing import about, save, viewing
from wsisam_qupath.geojson import read_prompts

NAME = "tissue.tif"
FILE = "tissue.geojson"
OBJECTS = [
    rectangle(identity(1), GLAND, "Gland"),
    annotation(identity(2), "Polygon", [ring((0, 0), (90, 0), (40, 70))]),
]


@pytest.fixture
def slide_path(tmp_path: Path, tissue_path: Path) -> Path:
    path = tmp_path / NAME
    path.write_bytes(tissue_path.read_bytes())
    return path


@pytest.fixture
def client(slide_path: Path) -> Client:
    return viewing(slide_path)[0]


def loaded(client: Client) -> Json:
    return json_of(about(client, "objects", NAME))


def test_what_was_saved_is_loaded_again(client: Client, slide_path: Path) -> None:
    before = loaded(client)
    saved = json_of(save(client, NAME, OBJECTS, before["free_name"]))
    after = loaded(client)

    assert before == {
        "file": None, "sha256": None, "free_name": FILE, "features": [], "trouble": None,
    }  # fmt: skip
    assert after["features"] == OBJECTS == features_of(slide_path.with_name(FILE))
    assert (after["file"], after["sha256"]) == (FILE, saved["sha256"])
    assert after["free_name"] == "tissue-2.geojson"


def test_the_file_is_geojson_that_this_program_reads_as_any_other(
    client: Client, slide_path: Path
) -> None:
    save(client, NAME, OBJECTS, FILE)

    found = read_prompts(slide_path.with_name(FILE))

    assert {one.id for one in found.prompts} == {identity(1), identity(2)}


def test_its_own_file_is_replaced_as_long_as_it_is_as_the_page_knows_it(client: Client) -> None:
    first = json_of(save(client, NAME, OBJECTS, FILE))
    second = save(client, NAME, OBJECTS[:1], FILE, first["sha256"])
    stale = save(client, NAME, [], FILE, first["sha256"])

    assert second.status_code == 200
    assert (stale.status_code, problem_name(stale)) == (409, "file-exists")
    assert loaded(client)["features"] == OBJECTS[:1]


def test_what_another_program_wrote_stays(client: Client, slide_path: Path) -> None:
    path = slide_path.with_name(FILE)
    content = json.dumps({"type": "FeatureCollection", "features": OBJECTS}).encode()
    path.write_bytes(content)
    sha256 = "0" * 64

    new, known = save(client, NAME, [], FILE), save(client, NAME, [], FILE, sha256)
    found = loaded(client)

    assert [problem_name(one) for one in (new, known)] == ["file-exists"] * 2
    assert path.read_bytes() == content
    assert (found["file"], found["free_name"]) == (None, "tissue-2.geojson")


def test_what_another_program_wrote_stays_even_where_the_page_names_its_content(
    client: Client, slide_path: Path
) -> None:
    import hashlib

    path = slide_path.with_name(FILE)
    path.write_bytes(b'{"type": "FeatureCollection", "features": []}')
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()

    answer = save(client, NAME, OBJECTS, FILE, sha256)

    assert problem_name(answer) == "file-exists"
    assert path.read_bytes() == b'{"type": "FeatureCollection", "features": []}'


def test_a_file_that_was_removed_meanwhile_is_written_again(
    client: Client, slide_path: Path
) -> None:
    first = json_of(save(client, NAME, OBJECTS, FILE))
    slide_path.with_name(FILE).unlink()

    assert save(client, NAME, OBJECTS, FILE, first["sha256"]).status_code == 200
    assert loaded(client)["features"] == OBJECTS


def test_the_newest_file_of_the_slide_is_loaded_and_those_of_others_are_not(
    client: Client, slide_path: Path
) -> None:
    save(client, NAME, OBJECTS, FILE)
    save(client, NAME, OBJECTS[:1], "tissue second try.geojson")
    os.utime(slide_path.with_name(FILE), (1, 1))
    text = slide_path.with_name(FILE).read_text("ascii").replace(NAME, "tissue.svs")
    slide_path.with_name("tissue-of-other.geojson").write_text(text, encoding="ascii")

    assert loaded(client)["file"] == "tissue second try.geojson"


@pytest.mark.parametrize(
    "file",
    [
        "../tissue.geojson", "/tissue.geojson", "sub/tissue.geojson", "..\\tissue.geojson",
        ".tissue.geojson", "tissue.json", "tissue.tif", "other.geojson", "", "a\0.geojson",
    ],
)  # fmt: skip
def test_a_name_that_leads_elsewhere_or_would_not_be_found_again_is_refused(
    client: Client, slide_path: Path, file: str
) -> None:
    before = sorted(slide_path.parent.rglob("*"))

    answer = save(client, NAME, OBJECTS, file)

    assert (answer.status_code, problem_name(answer)) == (422, "invalid")
    assert json_of(answer)["errors"][0]["field"] == "file"
    assert sorted(slide_path.parent.rglob("*")) == before


def test_a_name_that_is_refused_or_cannot_be_written_gets_a_sentence(client: Client) -> None:
    refused = save(client, NAME, OBJECTS, "tissue: 2.geojson")
    too_long = save(client, NAME, OBJECTS, f"tissue{'x' * 255}.geojson")

    assert json_of(refused)["detail"] == (
        "tissue: 2.geojson cannot be the name of the file: let it begin with tissue, end with "
        '.geojson, and have none of / \\ : * ? " < > | between them.'
    )
    assert json_of(too_long)["detail"].endswith("or choose a shorter name.")
    assert {refused.status_code, too_long.status_code} == {422}


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such names")
@pytest.mark.parametrize(
    "name", ['12:30 "H&E" <1>.tif', "Käse \U0001f9c0 é.tif", "a" * 240 + ".tif"]
)
def test_the_objects_of_a_slide_of_any_name_are_saved(slide_path: Path, name: str) -> None:
    slide = slide_path.rename(slide_path.with_name(name))
    client = viewing(slide)[0]
    free_name = json_of(about(client, "objects", name))["free_name"]

    answer = save(client, name, OBJECTS, free_name)

    assert answer.status_code == 200, answer.text
    assert len(json_of(about(client, "objects", name))["features"]) == len(OBJECTS)


def test_nothing_is_saved_beside_a_slide_that_may_not_be_read(
    client: Client, slide_path: Path
) -> None:
    other = slide_path.parent.parent / "outside.tif"
    other.write_bytes(slide_path.read_bytes())

    answer = save(client, "../outside.tif", OBJECTS, "outside.geojson")

    assert problem_name(answer) == "slide-outside"
    assert not other.with_suffix(".geojson").exists()


@pytest.mark.skipif(os.name == "nt", reason="making links needs a privilege there")
def test_a_link_in_place_of_the_file_is_not_followed(client: Client, slide_path: Path) -> None:
    target = slide_path.parent / "target.txt"
    target.write_text("mine", encoding="utf-8")
    slide_path.with_name(FILE).symlink_to(target)

    new = save(client, NAME, OBJECTS, FILE)
    known = save(client, NAME, OBJECTS, FILE, "0" * 64)

    assert (new.status_code, known.status_code) == (409, 422)
    assert target.read_text("utf-8") == "mine"


@pytest.mark.skipif(os.name == "nt", reason="Windows has no named pipes in folders")
def test_a_pipe_in_place_of_the_file_is_not_waited_for(client: Client, slide_path: Path) -> None:
    os.mkfifo(slide_path.with_name(FILE))

    found = loaded(client)

    assert (found["file"], found["free_name"]) == (None, "tissue-2.geojson")


def test_a_damaged_file_is_left_and_a_new_one_begun(client: Client, slide_path: Path) -> None:
    save(client, NAME, OBJECTS, FILE)
    path = slide_path.with_name(FILE)
    path.write_bytes(path.read_bytes()[:-20])

    found = loaded(client)

    assert (found["file"], found["features"]) == (None, [])
    assert "tissue.geojson cannot be loaded" in found["trouble"]
    assert found["free_name"] == "tissue-2.geojson"


def test_a_file_of_a_newer_version_is_left(client: Client, slide_path: Path) -> None:
    save(client, NAME, OBJECTS, FILE)
    path = slide_path.with_name(FILE)
    path.write_bytes(path.read_bytes().replace(b'"wsisam_view": 1', b'"wsisam_view": 2'))

    assert "Update wsisam-qupath" in loaded(client)["trouble"]


@pytest.mark.slow
def test_ten_thousand_objects_can_be_saved(client: Client) -> None:
    corners = [(float(n), float(n % 7)) for n in range(100)]
    many = [annotation(identity(n), "Polygon", [ring(*corners)]) for n in range(10_000)]

    assert save(client, NAME, many, FILE).status_code == 200
    assert len(loaded(client)["features"]) == 10_000
