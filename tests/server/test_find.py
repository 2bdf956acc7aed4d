"""Examples in, all objects like them out, over HTTP, each when it is found."""

from __future__ import annotations

from math import cos, pi, sin
from pathlib import Path

import pytest
from shapely.geometry import box, shape

from fixtures.command_line import annotation, rectangle, ring
from fixtures.servers import Client, Json, asked, client_of, json_of, problem_name, records_of
from wsisam_qupath import Segmenter, load_segmenter
from wsisam_qupath.server.config import Limits
from wsisam_qupath.server.openapi import openapi
from wsisam_qupath.server.schemas import GEOJSON_SEQ

pytestmark = [pytest.mark.slow, pytest.mark.walk]

GLAND = rectangle("gland", (248, 298, 392, 510), "gland")
LEFT = annotation("left", "Polygon", [ring((0, 0), (256, 0), (256, 512), (0, 512))])


@pytest.fixture(scope="module")
def segmenter() -> Segmenter:
    return load_segmenter()


@pytest.fixture
def client(segmenter: Segmenter, tissue_path: Path) -> Client:
    return client_of(segmenter, slides=[tissue_path.parent])


@pytest.fixture
def body(tissue_path: Path) -> Json:
    return {"slide": asked(tissue_path, [])["slide"], "examples": [GLAND]}


def find(client: Client, body: Json) -> list[Json]:
    answer = client.post("/v1/find", body)
    assert answer.status_code == 200, answer.text
    found: list[Json] = json_of(answer)["features"]
    return found


def test_objects_like_an_example_are_found(client: Client, body: Json) -> None:
    found = find(client, body)

    assert len(found) >= 3
    assert {one["properties"]["classification"]["name"] for one in found} == {"gland"}
    assert all(one["properties"]["measurements"]["Predicted IoU"] >= 0.75 for one in found)


def test_they_can_be_sent_as_they_are_found(client: Client, body: Json) -> None:
    whole = find(client, body)

    answer = client.post("/v1/find", body, Accept=GEOJSON_SEQ)

    assert records_of(answer.data) == whole


def test_areas_known_objects_and_negatives_leave_out_what_they_say(
    client: Client, body: Json
) -> None:
    whole = find(client, body)
    there = whole[0]

    inside = find(client, {**body, "within": [LEFT]})
    others = find(client, {**body, "known": [there]})
    unlike = find(client, {**body, "negatives": [there]})

    left = box(0, 0, 256, 512)
    assert inside
    assert all(left.intersects(shape(one["geometry"])) for one in inside)
    assert ({one["parent"] for one in inside}, whole[0]["parent"]) == ({"left"}, None)
    for found in (others, unlike):
        assert there["id"] not in {one["id"] for one in found}


@pytest.mark.walk
def test_everything_of_a_size_needs_no_example(client: Client, body: Json) -> None:
    found = find(client, {"slide": body["slide"], "options": {"object_size_um": 100.0}})

    assert len(found) >= 3


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"examples": []}, "examples"),
        ({"examples": [rectangle("far", (9000, 9000, 9100, 9100))]}, "examples"),
        ({"examples": [annotation("line", "LineString", [[0, 0], [9, 9]])]}, "examples"),
        ({"min_score": 2.0}, "min_score"),
        ({"adapter": "none"}, "adapter"),
        ({"what": 1}, "what"),
    ],
)
def test_what_cannot_be_looked_for_is_refused(
    client: Client, body: Json, change: Json, field: str
) -> None:
    answer = client.post("/v1/find", {**body, **change})

    assert (answer.status_code, problem_name(answer)) == (422, "invalid")
    assert json_of(answer)["errors"][0]["field"] == field


def test_areas_that_are_none_and_too_many_examples_are_refused(client: Client, body: Json) -> None:
    no_area = client.post("/v1/find", {**body, "within": [annotation("p", "Point", [1, 1])]})
    many = [{**GLAND, "id": f"{number}"} for number in range(11)]
    too_many = client.post("/v1/find", {**body, "examples": many})

    assert "no area to look in" in json_of(no_area)["detail"]
    assert "11 examples are too many" in json_of(too_many)["detail"]
    assert {no_area.status_code, too_many.status_code} == {422}


def test_examples_of_ignored_classes_alone_are_explained(client: Client, body: Json) -> None:
    ignored = rectangle("gland", (248, 298, 392, 510), "gland*")

    answer = client.post("/v1/find", {**body, "examples": [ignored]})

    assert "of classes that end in '*', which are not wanted" in json_of(answer)["detail"]


def test_ten_thousand_known_objects_are_not_too_many(client: Client, body: Json) -> None:
    corners = [(50 + 40 * cos(n / 50 * pi), 50 + 40 * sin(n / 50 * pi)) for n in range(100)]
    many = [annotation(f"{n}", "Polygon", [ring(*corners)]) for n in range(10_000)]
    far = annotation("far", "Polygon", [ring((-9, -9), (-5, -9), (-5, -5))])

    answer = client.post("/v1/find", {**body, "known": many, "within": [far]})

    assert "areas to look in lie outside" in json_of(answer)["detail"]


def test_a_search_that_takes_too_long_between_tiles_ends(
    segmenter: Segmenter, tissue_path: Path, body: Json
) -> None:
    hasty = client_of(segmenter, slides=[tissue_path.parent], limits=Limits(request_seconds=0.001))

    answer = hasty.post("/v1/find", body)

    assert problem_name(answer) == "too-slow"


def test_the_description_says_what_a_search_needs() -> None:
    schema = openapi()["components"]["schemas"]["FindRequest"]

    assert schema["required"] == ["slide"]
    assert len(schema["anyOf"]) == 2
