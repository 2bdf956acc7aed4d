"""A whole image is sent: the server says whose object a click is, and what an answer replaces."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from shapely.geometry import shape

from fixtures.command_line import GLAND, Feature, annotation, identity, rectangle
from fixtures.servers import Client, asked, client_of, json_of, problem_name
from wsisam_qupath.inference.loading import resolve
from wsisam_qupath.inference.segmenter import Segmenter
from wsisam_qupath.options import ModelSpec, OutlineOptions
from wsisam_qupath.server.choosing import choose_refinement
from wsisam_qupath.server.schemas import Choice

BOX = rectangle(identity(1), GLAND, "Gland")
X, Y = (GLAND[0] + GLAND[2]) / 2, (GLAND[1] + GLAND[3]) / 2
INSIDE = annotation(identity(2), "MultiPoint", [[X, Y]])
FAR = annotation(identity(3), "MultiPoint", [[370, 360]])
AWAY = annotation(identity(6), "Point", [20, 500])
OUTSIDE = annotation(identity(4), "MultiPoint", [[X, Y + 20], [385, 400]], "Ignore*")
LIVE = {"follow": True}

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def segmenter(cache: Path) -> Segmenter:
    """With the adapter that ships: without it, clicks mean nothing to the model."""
    return Segmenter(resolve(ModelSpec(device="cpu", backend="openvino")).load())


@pytest.fixture(scope="module")
def client(segmenter: Segmenter, tissue_path: Path) -> Client:
    return client_of(segmenter, slides=[tissue_path.parent])


def records(client: Client, slide: Path, drawn: list[Feature], **select: Any) -> list[Feature]:
    answer = client.segment(asked(slide, drawn, select=select))
    assert answer.status_code == 200, answer.data
    found: list[Feature] = json_of(answer)["features"]
    return sorted(found, key=lambda one: one.get("prompt", ""))


def answers(
    client: Client, slide: Path, drawn: list[Feature], ids: list[str] | None = None, **options: Any
) -> list[Feature]:
    """What is answered with options."""
    answer = client.segment(asked(slide, drawn, select={"ids": ids}, options=options))
    found: list[Feature] = json_of(answer)["features"]
    return sorted(found, key=lambda one: one.get("prompt", ""))


def as_result(record: Feature) -> Feature:
    """What QuPath has of an answer."""
    return {key: record[key] for key in ("type", "id", "geometry", "properties")}


def moved(feature: Feature, *points: list[float]) -> Feature:
    return {**feature, "geometry": {"type": "MultiPoint", "coordinates": list(points)}}


def test_each_answer_says_its_prompt_its_sources_and_its_parent(
    client: Client, tissue_path: Path
) -> None:
    found = records(client, tissue_path, [BOX, INSIDE, FAR, OUTSIDE])

    assert [(one["prompt"], one["parent"]) for one in found] == [
        (identity(1), identity(1)),
        (identity(3), identity(3)),
    ]
    assert found[0]["sources"] == [identity(1), identity(2), identity(4)]
    assert found[1]["sources"] == [identity(3), identity(4)]
    assert [one["replaces"] for one in found] == [[], []]


def test_what_was_answered_is_replaced_and_what_a_user_took_over_is_left(
    client: Client, tissue_path: Path
) -> None:
    first, second = map(as_result, records(client, tissue_path, [BOX, FAR]))
    locked = {**second, "properties": {**second["properties"], "isLocked": True}}

    drawn = [BOX, FAR, first, locked]
    again = records(client, tissue_path, drawn, ids=[identity(1), identity(3)])

    assert again[0]["replaces"] == [first["id"]]
    assert (again[1]["geometry"], again[1]["state"]) == (None, "reviewed")


def test_without_names_what_is_answered_by_this_model_stays(
    client: Client, tissue_path: Path
) -> None:
    first, second = map(as_result, records(client, tissue_path, [BOX, FAR]))
    metadata = {**first["properties"]["metadata"], "wsisam_adapter_sha256": "another"}
    by_another = {**first, "id": identity(9)}
    by_another["properties"] = {**first["properties"], "metadata": metadata}

    same = records(client, tissue_path, [BOX, FAR, first, second])
    mixed = records(client, tissue_path, [BOX, FAR, by_another, second])
    turned = answers(client, tissue_path, [BOX, FAR, first, second], object_type="annotation")

    assert [one.get("state") for one in same] == ["answered", "answered"]
    assert [one.get("replaces") for one in mixed] == [[identity(9)], None]
    assert [one["replaces"] for one in turned] == [[first["id"]], [second["id"]]]


def test_what_a_user_chose_among_the_candidates_stays_whatever_the_size_is_now(
    client: Client, tissue_path: Path
) -> None:
    (clicked,) = map(as_result, answers(client, tissue_path, [FAR]))
    measured = {**clicked["properties"]["measurements"], "Rank": 2}
    chosen = {**clicked, "id": identity(9)}
    chosen["properties"] = {**clicked["properties"], "measurements": measured}

    (kept,) = answers(client, tissue_path, [FAR, chosen], object_size_um=10)
    (again,) = answers(client, tissue_path, [FAR, chosen], [identity(3)], object_size_um=10)
    (named,) = records(client, tissue_path, [FAR, chosen], ids=[identity(3)], again=False)

    assert kept["state"] == named["state"] == "answered"
    assert again["replaces"] == [chosen["id"]], "unless it is asked for again"


def test_an_accepted_outline_is_answered_until_its_prompt_changes(
    client: Client, tissue_path: Path
) -> None:
    (first,) = map(as_result, records(client, tissue_path, [FAR]))
    accepted = {**first, "properties": {**first["properties"], "objectType": "annotation"}}

    (same,) = records(client, tissue_path, [FAR, accepted])
    (other,) = records(client, tissue_path, [moved(FAR, [370, 360], [380, 372]), accepted])

    assert same["state"] == "reviewed"
    assert other["geometry"] is not None
    assert other["replaces"] == []


def test_live_mode_answers_only_what_changed_and_corrects_its_outline(
    client: Client, tissue_path: Path
) -> None:
    drawn = [BOX, FAR]
    results = [as_result(one) for one in records(client, tissue_path, drawn, **LIVE)]

    unchanged = records(client, tissue_path, [*drawn, *results], **LIVE)
    drawn[1] = moved(FAR, [370, 360], [380, 372])
    (changed,) = [
        one
        for one in records(client, tissue_path, [*drawn, *results], ids=[identity(3)], **LIVE)
        if one["geometry"]
    ]
    (fresh,) = records(client, tissue_path, [drawn[1]])

    assert [one["state"] for one in unchanged] == ["answered", "answered"]
    assert changed["replaces"] == [results[1]["id"]]
    assert changed["id"] != fresh["id"], "it corrects the answer to fewer clicks"


def test_a_click_far_away_in_a_shared_annotation_asks_for_nothing_else(
    client: Client, tissue_path: Path
) -> None:
    drawn = [BOX, FAR, OUTSIDE]
    area = {"x": 380, "y": 395, "width": 10, "height": 10}

    found = records(client, tissue_path, drawn, ids=[identity(4)], area=area, **LIVE)

    assert [one["prompt"] for one in found] == [identity(3)]


def test_an_outline_whose_last_point_was_taken_away_goes(client: Client, tissue_path: Path) -> None:
    (result,) = map(as_result, records(client, tissue_path, [FAR]))

    (gone,) = records(client, tissue_path, [BOX, result], ids=[identity(3)], **LIVE)

    assert (gone["geometry"], gone["state"], gone["replaces"]) == (None, "gone", [result["id"]])


def test_a_rectangle_around_a_click_takes_its_outline_over(
    client: Client, tissue_path: Path
) -> None:
    (result,) = map(as_result, records(client, tissue_path, [INSIDE]))

    (taken,) = records(client, tissue_path, [BOX, INSIDE, result], ids=[identity(1)], **LIVE)

    assert (taken["prompt"], taken["replaces"]) == (identity(1), [result["id"]])


def test_a_rough_outline_is_a_prompt_where_it_is_asked_for(
    client: Client, tissue_path: Path
) -> None:
    x0, y0, x1, y1 = GLAND
    ring = [[x0, y0], [x1, y0 + 5], [x1 - 5, y1], [x0, y1], [x0, y0]]
    rough = annotation(identity(5), "Polygon", [ring])

    assert records(client, tissue_path, [rough, FAR])[0]["prompt"] == identity(3)
    assert records(client, tissue_path, [rough], ids=[identity(5)])[0]["prompt"] == identity(5)


def test_a_corrected_outline_keeps_its_class_and_type_and_is_replaced(
    client: Client, tissue_path: Path
) -> None:
    (result,) = map(as_result, records(client, tissue_path, [BOX]))
    properties = {"objectType": "annotation", "classification": {"name": "Mine"}}
    mine = {**result, "properties": properties}

    (found,) = json_of(
        client.segment(asked(tissue_path, [INSIDE, AWAY], refine=mine, select={"ids": None}))
    )["features"]

    assert found["sources"] == [identity(2)], "the other one is far away"
    assert found["replaces"] == [result["id"]]
    assert found["properties"]["objectType"] == "annotation"
    assert found["properties"]["classification"] == "Mine"


def refined(*drawn: Feature, ids: list[str] | None = None) -> dict[str, Any]:
    """What corrects a square of 100 to 200."""
    square = rectangle(identity(9), (100, 100, 200, 200), "Gland")
    chosen = choose_refinement(list(drawn), square, Choice(ids=ids), OutlineOptions())
    (prompt,) = chosen.prompts.prompts or (None,)
    if prompt is None:
        return {"reason": chosen.rows[0].reason}
    return {"inside": prompt.l0_positives, "outside": prompt.l0_negatives}


def test_scribbles_and_background_near_an_outline_correct_it() -> None:
    line = [[120, 120], [150, 160], [180, 120]]
    scribble = annotation(identity(7), "LineString", line)
    outside = annotation(identity(7), "LineString", line, "Ignore*")
    background = rectangle(identity(8), (160, 0, 300, 300), "Ignore*")

    assert len(refined(scribble)["inside"]) == len(refined(outside)["outside"]) == 5
    assert all(160 < x < 200 for x, _ in refined(background)["outside"])
    assert len(refined(scribble, background)["outside"]) == 3


def test_what_is_far_straight_or_around_it_does_not_correct_it() -> None:
    far = annotation(identity(7), "LineString", [[900, 900], [950, 960], [980, 920]])
    straight = annotation(identity(7), "LineString", [[120, 120], [180, 120]])
    odd = annotation(identity(7), "LineString", [["x", 1], [2, 3], [4, 9]])
    region = rectangle(identity(8), (0, 0, 500, 500), "Region*")
    other = rectangle(identity(8), (160, 0, 300, 300), "Tumor")

    for mark in (far, straight, odd, region, other):
        assert "no point corrects it" in refined(mark)["reason"]


def test_what_is_selected_and_corrects_nothing_hides_no_clicks() -> None:
    near, other = (annotation(identity(n), "Point", [n * 10, 150]) for n in (12, 13))
    prompt = rectangle(identity(8), (100, 100, 200, 200), "Gland")

    assert len(refined(near, other, prompt, ids=[identity(8)])["inside"]) == 2
    assert refined(near, other, prompt, ids=[identity(8), identity(12)])["inside"] == ((120, 150),)


def test_a_spot_can_be_asked_for_ahead_of_time(client: Client, tissue_path: Path) -> None:
    answer = client.post("/v1/prepare", asked(tissue_path, [FAR]))

    assert json_of(answer)["features"][0]["geometry"] is not None
    assert 'wsisam_prepared_total{outcome="answered"} 1.0' in client.get("/metrics").text


def test_a_model_that_the_server_lacks_is_named(client: Client, tissue_path: Path) -> None:
    answer = client.segment(asked(tissue_path, [FAR], adapter="mine"))

    assert problem_name(answer) == "invalid"
    assert json_of(answer)["errors"][0]["field"] == "adapter"


def test_background_is_cut_out_of_what_is_outlined_beside_it(
    client: Client, tissue_path: Path
) -> None:
    half = rectangle(identity(8), (X, 0, 512, 512), "Ignore*")

    (whole,) = records(client, tissue_path, [BOX])
    cut, *others = records(client, tissue_path, [BOX, half])

    background = shape(half["geometry"])
    assert shape(whole["geometry"]).intersection(background).area > 100
    assert shape(cut["geometry"]).intersection(background).area < 1
    assert others == []
    assert cut["sources"] == [identity(1), identity(8)]
    assert cut["id"] != whole["id"]
