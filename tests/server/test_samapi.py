"""The requests of the SAM extension for QuPath are answered as it reads answers."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from statistics import fmean

import pytest
from PIL import Image
from shapely.geometry import box
from werkzeug.test import TestResponse

from fixtures.command_line import GLAND, LARGE_GLAND
from fixtures.sam_extension import (
    HEADERS,
    MULTI_ALL,
    MULTI_BEST_QUALITY,
    MULTI_LARGEST,
    MULTI_SMALLEST,
    SINGLE_MASK,
    Found,
    Json,
    View,
    choose,
)
from fixtures.servers import Client, client_of, problem_name, running
from wsisam_qupath import Segmenter, load_segmenter
from wsisam_qupath.geometry import Box
from wsisam_qupath.prompts.results import Result
from wsisam_qupath.server.config import Limits, SamapiAccess
from wsisam_qupath.slide import Slide, open_slide

pytestmark = pytest.mark.slow

MODES = [SINGLE_MASK, MULTI_ALL, MULTI_LARGEST, MULTI_SMALLEST, MULTI_BEST_QUALITY]
INSIDE = (366.0, 150.0)
ELSEWHERE = (140.0, 130.0)


@pytest.fixture(scope="module")
def segmenter() -> Segmenter:
    return load_segmenter(threads=1)


@pytest.fixture(scope="module")
def slide(tissue_path: Path) -> Slide:
    return open_slide(tissue_path)


@pytest.fixture(scope="module")
def view(slide: Slide) -> View:
    """Nearly all of the tissue, a little enlarged, and with a corner that is not (0, 0)."""
    return View(slide, Box(12, 0, 512, 480), 0.8)


@pytest.fixture(scope="module")
def far_view(slide: Slide) -> View:
    """All of the tissue from further away, so that few patches cover it."""
    return View(slide, Box(0, 0, 512, 512), 2.0)


@pytest.fixture(scope="module")
def client(segmenter: Segmenter) -> Client:
    return client_of(segmenter, samapi="local")


def ask(client: Client, body: Json, path: str = "/sam/") -> list[Json]:
    """An answer to the extension, which shows no token."""
    answer = post(client, body, path)
    assert answer.status_code == 200, answer.data
    features: list[Json] = json.loads(answer.data)
    return features


def post(client: Client, body: Json, path: str = "/sam/") -> TestResponse:
    headers = {name: value for name, value in HEADERS.items() if name != "Connection"}
    return client.app.test_client().post(path, data=json.dumps(body), headers=headers)


def overlap(one: Found, other: Found | Result) -> float:
    first = one.outline
    second = other.outline if isinstance(other, Found) else other.polygon
    return float(first.intersection(second).area / first.union(second).area)


@pytest.mark.parametrize("mode", MODES)
def test_a_rectangle_outlines_what_it_surrounds_on_the_image(
    client: Client, view: View, segmenter: Segmenter, slide: Slide, mode: str
) -> None:
    (ours,) = segmenter.segment(slide, boxes=[GLAND])

    found = choose(view.read(ask(client, view.rectangle(Box(*GLAND), mode))), mode)

    assert isinstance(ours, Result)
    (one,) = found
    assert overlap(one, ours) > 0.85
    assert 0 < one.quality <= 1


@pytest.mark.parametrize("mode", MODES)
def test_points_outline_the_object_that_they_are_in(client: Client, view: View, mode: str) -> None:
    all_found = view.read(ask(client, view.points((INSIDE,), mode, outside=(ELSEWHERE,))))

    found = choose(all_found, mode)
    assert 1 <= len(all_found) <= (1 if mode == SINGLE_MASK else 3)
    assert len(found) == (len(all_found) if mode == MULTI_ALL else 1)
    assert box(*INSIDE, *INSIDE).buffer(3).intersects(all_found[0].outline)


def test_the_first_of_several_answers_is_the_single_one(client: Client, view: View) -> None:
    single = view.read(ask(client, view.points((INSIDE,))))
    several = view.read(ask(client, view.points((INSIDE,), MULTI_ALL)))

    assert several[0] == single[0]


def test_a_point_outside_of_the_object_counts(client: Client, view: View) -> None:
    whole = view.rectangle(Box(*LARGE_GLAND))
    less = view.rectangle(Box(*LARGE_GLAND), outside=((60.0, 60.0),))

    (one,), (other,) = view.read(ask(client, whole)), view.read(ask(client, less))

    assert one != other


def test_of_the_many_vertices_of_an_outline_some_are_asked_about(
    client: Client, view: View, segmenter: Segmenter, slide: Slide
) -> None:
    (ours,) = segmenter.segment(slide, boxes=[GLAND])
    assert isinstance(ours, Result)
    ring = ours.polygon.buffer(-15).exterior
    vertices = [
        (p.x, p.y) for p in (ring.interpolate(n / 1000, normalized=True) for n in range(1000))
    ]

    (one,) = view.read(ask(client, view.points(tuple(vertices))))

    assert overlap(one, ours) > 0.7


def test_an_object_without_a_class_gets_none(client: Client, view: View) -> None:
    features = ask(client, view.rectangle(Box(*GLAND)))

    assert [one.path_class for one in view.read(features)] == [None]
    assert [one.path_class for one in view.read(features, "Gland")] == ["Gland"]
    assert set(features[0]["properties"]) >= {"object_idx", "label", "quality", "sam_model"}


def test_a_downsample_moves_no_outline(client: Client, slide: Slide) -> None:
    fine, coarse = (View(slide, Box(0, 0, 512, 512), ds) for ds in (1.0, 2.0))

    (one,) = fine.read(ask(client, fine.rectangle(Box(*GLAND))))
    (other,) = coarse.read(ask(client, coarse.rectangle(Box(*GLAND))))

    assert overlap(one, other) > 0.85


@pytest.mark.parametrize("format", ["JPEG", "PNG"])
def test_images_of_either_kind_are_read(client: Client, view: View, format: str) -> None:
    body = view.rectangle(Box(*GLAND))
    file = io.BytesIO()
    with Image.open(io.BytesIO(base64.b64decode(body["b64img"]))) as image:
        image.convert("L").save(file, format)

    found = ask(client, {**body, "b64img": base64.b64encode(file.getvalue()).decode()})

    assert len(found) == 1


def auto_mask(client: Client, view: View, mode: str, **fields: object) -> list[Found]:
    """Nine clicks, of which nearly all answers are kept unless a field says otherwise."""
    plain = {"points_per_side": 3, "pred_iou_thresh": 0.5, "stability_score_thresh": 0.5}
    body = view.auto_mask(mode, **{**plain, "include_image_edge": True, **fields})
    return view.read(ask(client, body, "/sam/automask/"))


def test_auto_mask_finds_objects_all_over_the_view(client: Client, far_view: View) -> None:
    found = auto_mask(client, far_view, SINGLE_MASK)

    assert len(found) >= 3
    assert [one.quality for one in found] == sorted((one.quality for one in found), reverse=True)
    assert all(one.quality >= 0.5 for one in found)
    boxes = [box(*one.outline.bounds) for one in found]
    assert all(
        one.intersection(other).area / one.union(other).area < 0.21
        for number, one in enumerate(boxes)
        for other in boxes[:number]
    )


def test_auto_mask_asks_at_two_widths_where_several_answers_are_wanted(
    client: Client, far_view: View
) -> None:
    def area(mode: str) -> float:
        found = auto_mask(client, far_view, mode, box_nms_thresh=1.0)
        assert len(found) >= 3
        return fmean(one.outline.area for one in found)

    assert area(MULTI_SMALLEST) < area(MULTI_LARGEST)


def test_auto_mask_leaves_out_what_is_unsure_or_cut_by_the_view(
    client: Client, far_view: View
) -> None:
    edge = box(*far_view.l0_box.corners().ravel()).exterior

    whole = auto_mask(client, far_view, SINGLE_MASK, include_image_edge=False)

    assert all(one.outline.distance(edge) >= far_view.downsample for one in whole)
    assert len(whole) < len(auto_mask(client, far_view, SINGLE_MASK))
    assert auto_mask(client, far_view, SINGLE_MASK, pred_iou_thresh=1.0) == []
    assert auto_mask(client, far_view, SINGLE_MASK, stability_score_thresh=1.0) == []


def test_too_many_clicks_are_refused_before_any_is_asked(client: Client, view: View) -> None:
    answer = post(client, view.auto_mask(points_per_side=100), "/sam/automask/")

    assert answer.status_code == 413
    assert "10000 clicks" in json.loads(answer.data)["detail"]


def test_there_are_weights_for_every_model_and_they_come_back_as_asked(
    client: Client, view: View
) -> None:
    about = client.app.test_client()
    for kind in ("vit_h", "vit_t", "sam2_bp", "sam3"):
        (only,) = about.get(f"/sam/weights/?type={kind}").get_json()
        assert only["type"] == kind

    body = {**view.rectangle(Box(*GLAND)), "checkpoint_url": only["url"]}
    elsewhere = {**body, "checkpoint_url": "https://example.org/sam_vit_h.pth"}

    assert ask(client, body) == ask(client, elsewhere)


def test_what_its_dialogs_show_are_sentences(client: Client) -> None:
    about = client.app.test_client()

    registered = post(client, {"type": "vit_t", "name": "a", "url": "https://x"}, "/sam/weights/")
    progress = about.get("/sam/progress/").get_json()

    assert "WSI-SAM answers with its own weights" in registered.text
    assert progress == {"message": "The model is loaded.", "percent": 100}
    assert about.get("/sam/weights/cancel/").text == "Nothing is being downloaded."
    assert about.get("/sam/version/").text[0].isdigit()


def test_a_server_without_a_model_says_so(view: View) -> None:
    client = client_of(None, samapi="local")

    answer = post(client, view.rectangle(Box(*GLAND)))

    assert answer.status_code == 500
    assert "There are no weights." in json.loads(answer.data)["detail"]
    progress = client.app.test_client().get("/sam/progress/").get_json()
    assert progress == {"message": "There are no weights. Get some.", "percent": -1}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"bbox": None}, "neither a rectangle nor a point"),
        ({"bbox": [5, 5, 5, 50]}, "smaller than a pixel"),
        ({"bbox": [-90, -90, -5, -5]}, "outside of the slide"),
        ({"bbox": None, "point_coords": [[3, 3]], "point_labels": [0]}, "neither a rectangle"),
        ({"point_coords": [[3, 3]]}, "0 for 1 points"),
        ({"b64mask": "AAAA"}, "a mask is not taken"),
        ({"b64img": "AAAA"}, "neither PNG nor JPEG"),
        ({"b64img": "%"}, "not base64"),
        ({"b64img": None}, "b64img"),
        ({"bbox": [1, 2, 3]}, "bbox"),
        ({"checkpoint_url": "wsisam-qupath:other"}, "these weights are gone"),
    ],
)
def test_what_cannot_be_answered_is_a_sentence(
    segmenter: Segmenter, view: View, change: Json, words: str
) -> None:
    client = client_of(segmenter, samapi="local", adapters=("default",))
    body = {**view.rectangle(Box(*GLAND)), **change}

    answer = post(client, body)

    assert problem_name(answer) == "invalid"
    assert words in json.loads(answer.data)["detail"]


def test_text_and_videos_are_refused_with_what_to_choose(client: Client) -> None:
    for path in ("sam3", "video", "sam3video", "upload"):
        answer = post(client, {"type": "sam3", "text_prompt": "gland"}, f"/sam/{path}/")
        assert answer.status_code == 404
        assert "Choose another SAM model than sam3" in json.loads(answer.data)["detail"]


def test_an_image_that_is_too_large_is_not_decoded(segmenter: Segmenter, view: View) -> None:
    client = client_of(segmenter, samapi="local", limits=Limits(region_px=100_000))

    answer = post(client, view.rectangle(Box(*GLAND)))

    assert problem_name(answer) == "too-large"


def test_what_requests_take_of_the_memory_is_given_back(client: Client, view: View) -> None:
    ask(client, view.rectangle(Box(*GLAND)))
    post(client, {**view.rectangle(Box(*GLAND)), "b64img": "AAAA"})

    assert client.service.device_queue.budget.reserved_bytes == 0
    assert client.service.device_queue.in_hand == 0


def test_without_the_option_there_are_no_such_routes(segmenter: Segmenter) -> None:
    client = client_of(segmenter)

    assert client.app.test_client().get("/sam/version/").status_code == 401
    assert client.get("/sam/version/").status_code == 404


def test_no_token_opens_no_other_route(client: Client) -> None:
    about = client.app.test_client()

    assert about.get("/v1/info").status_code == 401
    assert about.get("/samples").status_code == 401


@pytest.mark.parametrize(
    ("address", "host", "is_answered"),
    [
        ("127.0.0.1", "127.0.0.1:8473", True),
        ("127.0.0.1", "localhost", True),
        ("::1", "[::1]:8473", True),
        ("192.0.2.7", "192.0.2.1:8473", False),
        ("192.0.2.7", "127.0.0.1:8473", False),
        ("127.0.0.1", "192.0.2.1:8473", False),
    ],
)
def test_only_programs_on_this_computer_need_no_token(
    segmenter: Segmenter, address: str, host: str, is_answered: bool
) -> None:
    def status(access: SamapiAccess) -> int:
        client = client_of(segmenter, samapi=access, host="0.0.0.0")
        about = client.app.test_client()
        where = {"REMOTE_ADDR": address}
        answer = about.get("/sam/version/", headers={"Host": host}, environ_base=where)
        return int(answer.status_code)

    assert status("local") == (200 if is_answered else 401)
    assert status("open") == 200


def test_a_page_on_the_web_cannot_ask_in_its_visitors_browser(client: Client, view: View) -> None:
    """A browser sends it as plain text, or asks first whether it may."""
    about = client.app.test_client()
    body = json.dumps(view.rectangle(Box(*GLAND)))

    plain = about.post("/sam/", data=body, headers={"Content-Type": "text/plain"})
    first = about.options("/sam/")
    renamed = about.get("/sam/version/", headers={"Host": "evil.example"})

    assert plain.status_code == 415
    assert "Access-Control-Allow-Origin" not in first.headers
    assert renamed.status_code == 403


def test_the_server_says_once_that_answers_are_single_resolution(
    tmp_path: Path, view: View
) -> None:
    with running(tmp_path, "--samapi") as server:
        body = json.dumps(view.rectangle(Box(*GLAND)))
        for _ in range(2):
            connection = server.connect()
            connection.request("POST", "/sam/", body, HEADERS)
            answer = connection.getresponse()
            assert answer.status == 200, answer.read()
            assert len(json.loads(answer.read())) == 1
        assert server.stop() == 0  # an answer comes before its line in the log
        log = server.log.read_text(encoding="utf-8")

    assert log.count("single-resolution") == 1
    assert f"{server.url}/sam/" in log
    assert log.count("sam-extension POST /sam/ 200") == 2
