"""Prompts in, outlines out, over HTTP: by slide reference, by pixels, corrected, and streamed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tifffile

from fixtures.command_line import Feature, annotation, rectangle
from fixtures.formula import formula_rgb
from fixtures.segmenting import BOX, LARGE, features, iou
from fixtures.servers import Client, asked, client_of, json_of, problem_name, records_of
from wsisam_qupath.inference.predictor import Predictor
from wsisam_qupath.inference.segmenter import Segmenter
from wsisam_qupath.server.config import Limits
from wsisam_qupath.server.metrics import Metrics
from wsisam_qupath.server.schemas import GEOJSON, GEOJSON_SEQ, STREAMED_PROMPTS_MIN

LINE = annotation("line", "LineString", [[0, 0], [5, 5]])
OFF = rectangle("off", (600, 600, 700, 700))


# What comes back


def test_an_answer_names_its_prompt_and_has_its_class(answer_to_box: Feature) -> None:
    properties = answer_to_box["properties"]

    assert properties["metadata"]["wsisam_prompt_id"] == BOX["id"]
    assert properties["classification"]["name"] == "Gland"
    assert properties["objectType"] == "detection"


def test_options_choose_class_and_type(client: Client, tissue_path: Path) -> None:
    options = {"object_type": "annotation", "class": "Tumor"}

    (feature,) = features(client, asked(tissue_path, [BOX], options=options))

    assert feature["properties"]["objectType"] == "annotation"
    assert feature["properties"]["classification"] == "Tumor"


@pytest.mark.parametrize("name", [" ", "two\nlines", ":"])
def test_a_class_that_qupath_would_not_take_is_refused(
    client: Client, tissue_path: Path, name: str
) -> None:
    answer = client.segment(asked(tissue_path, [BOX], options={"class": name}))

    assert problem_name(answer) == "invalid"
    assert json_of(answer)["errors"][0]["field"] == "options.class"


def test_points_can_mark_an_object_each(client: Client, tissue_path: Path) -> None:
    points = annotation("points", "MultiPoint", [[320, 400], [100, 100]])

    together = features(client, asked(tissue_path, [points]))
    each = features(client, asked(tissue_path, [points], options={"points_as": "each"}))

    assert (len(together), len(each)) == (1, 2)


def test_what_gives_no_outline_says_why(client: Client, tissue_path: Path) -> None:
    found = features(client, asked(tissue_path, [LINE, BOX, OFF]))

    reasons = {one["id"]: one["properties"]["reason"] for one in found if not one["geometry"]}
    assert reasons["off"] == "it lies outside of the slide"
    assert "a straight line" in reasons["line"]
    assert len(found) == 3


def test_nothing_usable_is_no_error(client: Client, tissue_path: Path) -> None:
    (feature,) = features(client, asked(tissue_path, [LINE]))

    assert feature["geometry"] is None


def test_a_collection_is_taken_as_well_as_a_list(client: Client, tissue_path: Path) -> None:
    body = asked(tissue_path, [])
    body["prompts"] = {"type": "FeatureCollection", "features": [BOX], "name": "from QuPath"}

    assert len(features(client, body)) == 1


def test_a_negative_click_corrects_an_earlier_answer(
    client: Client, tissue_path: Path, answer_to_box: Feature
) -> None:
    clicks = [
        annotation("in", "Point", [320, 400]),
        annotation("out", "Point", [320, 330], "Ignore*"),
    ]

    (feature,) = features(client, asked(tissue_path, clicks, refine=answer_to_box))

    assert feature["properties"]["metadata"]["wsisam_prompt_id"] == "in"
    assert feature["id"] != answer_to_box["id"]


def test_an_area_without_clicks_is_refined_as_an_outline(
    client: Client, tissue_path: Path, answer_to_box: Feature
) -> None:
    (feature,) = features(client, asked(tissue_path, [], refine=answer_to_box))

    assert feature["properties"]["metadata"]["wsisam_prompt_id"] == answer_to_box["id"]
    assert iou(feature, answer_to_box) > 0.5


def test_what_is_no_area_cannot_be_refined(client: Client, tissue_path: Path) -> None:
    answer = client.segment(asked(tissue_path, [BOX], refine=LINE))

    assert problem_name(answer) == "invalid"


# A record at a time


def test_a_stream_has_the_records_of_the_collection(client: Client, tissue_path: Path) -> None:
    body = asked(tissue_path, [BOX, LARGE, LINE])

    answer = client.segment(body, Accept=GEOJSON_SEQ)

    assert (answer.status_code, answer.content_type) == (200, GEOJSON_SEQ)
    assert records_of(answer.data) == features(client, body)
    assert client.service.device_queue.in_hand == 0


@pytest.mark.walk
def test_of_many_prompts_a_collection_is_sent_feature_by_feature(
    client: Client, tissue_path: Path
) -> None:
    body = asked(tissue_path, many_boxes(STREAMED_PROMPTS_MIN, (0, 470)))

    answer = client.segment(body)
    pieces = answer.iter_encoded()
    begin = next(pieces) + next(pieces)

    assert client.service.device_queue.in_hand == 1
    collection = json.loads(begin + b"".join(pieces))
    assert (answer.status_code, answer.content_type) == (200, GEOJSON)
    assert collection == {"type": "FeatureCollection", "features": collection["features"]}
    assert len(collection["features"]) == STREAMED_PROMPTS_MIN
    assert collection["features"] == records_of(client.segment(body, Accept=GEOJSON_SEQ).data)
    answer.close()
    assert client.service.device_queue.in_hand == 0


def many_boxes(count: int, x_range: tuple[float, float]) -> list[Feature]:
    start, stop = x_range
    xs = [start + (stop - start) * number / count for number in range(count)]
    return [rectangle(f"{x}", (x, 20, x + 40, 60)) for x in xs]


def test_a_collection_that_breaks_off_ends_with_the_problem(
    segmenter: Segmenter, tmp_path: Path
) -> None:
    path = tmp_path / "damaged.ome.tif"
    write_with_damage_at_the_right(path, width=2048, height=256)
    half = STREAMED_PROMPTS_MIN // 2
    body = asked(path, [*many_boxes(half, (20, 120)), *many_boxes(half, (1800, 1900))])
    body["slide"] |= {"width": 2048, "height": 256}
    client = client_of(segmenter, slides=[tmp_path])

    answer = client.segment(body)

    collection = json.loads(answer.data)
    assert answer.status_code == 200
    assert list(collection) == ["type", "features", "problem"]
    assert len(collection["features"]) == half
    problem = collection["problem"]
    assert (problem["status"], problem["type"]) == (
        422,
        "urn:wsisam-qupath:problem:slide-unreadable",
    )
    assert problem["instance"] == f"urn:uuid:{answer.headers['X-Request-Id']}"


def test_a_stream_that_cannot_begin_is_a_problem_with_its_status(client: Client) -> None:
    answer = client.segment(asked("/nowhere.svs", [BOX]), Accept=GEOJSON_SEQ)

    assert problem_name(answer) == "slide-outside"
    assert client.service.device_queue.in_hand == 0


def test_a_stream_that_breaks_off_ends_with_the_problem(
    segmenter: Segmenter, tmp_path: Path
) -> None:
    path = tmp_path / "damaged.ome.tif"
    write_with_damage_at_the_right(path, width=2048, height=256)
    body = asked(path, [rectangle("a", (20, 20, 120, 120)), rectangle("b", (1800, 20, 1900, 120))])
    body["slide"] |= {"width": 2048, "height": 256}
    client = client_of(segmenter, slides=[tmp_path])

    answer = client.segment(body, Accept=GEOJSON_SEQ)

    first, last = records_of(answer.data)
    assert first["type"] == "Feature"
    assert (last["status"], last["type"]) == (422, "urn:wsisam-qupath:problem:slide-unreadable")
    assert last["instance"] == f"urn:uuid:{answer.headers['X-Request-Id']}"
    assert client.service.device_queue.in_hand == 0


def write_with_damage_at_the_right(path: Path, width: int, height: int) -> None:
    rgb = formula_rgb(range(width), range(height))
    metadata = {"axes": "YXS", "PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5}
    tifffile.imwrite(
        path, rgb, tile=(64, 64), photometric="rgb", compression="zlib", metadata=metadata
    )
    with tifffile.TiffFile(path) as tiff:
        offsets = tiff.pages.first.dataoffsets
    content = bytearray(path.read_bytes())
    columns = width // 64
    for number, offset in enumerate(offsets):
        if number % columns > columns // 2:
            content[offset : offset + 20] = bytes(20)
    path.write_bytes(content)


# When there is too much to do


def test_a_full_server_is_busy(segmenter: Segmenter, tissue_path: Path) -> None:
    client = client_of(segmenter, slides=[tissue_path.parent], limits=Limits(requests_at_once=1))
    slot = client.service.device_queue.acquire(lambda: False, 9)

    answer = client.segment(asked(tissue_path, [BOX]))

    assert (problem_name(answer), answer.headers["Retry-After"]) == ("busy", "1")
    slot.release()
    assert client.segment(asked(tissue_path, [BOX])).status_code == 200


def test_what_takes_too_long_is_given_up(segmenter: Segmenter, tissue_path: Path) -> None:
    limits = Limits(request_seconds=0.0)
    client = client_of(segmenter, slides=[tissue_path.parent], limits=limits)

    answer = client.segment(asked(tissue_path, [BOX]))

    assert (problem_name(answer), answer.status_code) == ("too-slow", 504)


def test_a_slide_that_is_no_slide_here_is_a_problem_or_a_wish_for_pixels(client: Client) -> None:
    body = asked("/nowhere.svs", [BOX])

    assert problem_name(client.segment(body)) == "slide-outside"
    del body["slide"]["mpp_x"], body["slide"]["mpp_y"]
    unknown = client.segment({**body, "on_unreadable": "regions"})
    assert problem_name(unknown) == "no-pixel-size"


# What it tells of itself


def test_the_server_says_what_it_is(client: Client, plain_openvino: Predictor) -> None:
    info = json_of(client.get("/v1/info"))

    assert info["state"] == "ready"
    assert info["model"]["base"] == "lite-medsam"
    assert info["model"]["base_sha256"] == plain_openvino.base.sha256
    assert info["device"] == plain_openvino.backend.name
    assert info["limits"]["body_bytes"] == 64 << 20


def test_metrics_tell_stages_cache_and_queue(plain_openvino: Predictor, tissue_path: Path) -> None:
    metrics = Metrics()
    segmenter = Segmenter(plain_openvino, tally=metrics.tally)
    client = client_of(segmenter, slides=[tissue_path.parent])
    for _ in range(2):
        client.segment(asked(tissue_path, [BOX])).close()

    text = metrics.text().decode()
    served = client.get("/metrics").text

    for stage, count in (("read", 1), ("encode", 1), ("decode", 2), ("outline", 2)):
        assert f'wsisam_stage_seconds_count{{stage="{stage}"}} {count}.0' in text
    assert 'wsisam_pairs_total{embedding="cached"} 1.0' in text
    assert 'wsisam_pairs_total{embedding="computed"} 1.0' in text
    assert 'wsisam_stage_seconds_count{stage="queue"} 2.0' in served
    assert 'wsisam_requests_total{route="/v1/segment",status="200"} 2.0' in served
    assert "wsisam_queue_length 0.0" in served


def test_the_status_page_shows_the_last_requests(client: Client, tissue_path: Path) -> None:
    client.segment(asked(tissue_path, [BOX, LARGE])).close()

    page = client.get("/").text

    assert "lite-medsam" in page
    assert "<td>2</td>" in page
    assert str(tissue_path.parent) not in page
    assert json.dumps(BOX["id"]) not in page
