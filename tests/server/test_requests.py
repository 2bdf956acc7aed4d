"""What a server refuses before it computes anything, and how it says so."""

from __future__ import annotations

import base64
import io
import json
import struct
import zlib

import pytest
from PIL import Image

from fixtures.command_line import annotation, rectangle
from fixtures.servers import BEARER, TOKEN, Client, Json, asked, client_of, json_of, problem_name
from wsisam_qupath.server.budget import MemoryBudget
from wsisam_qupath.server.config import Limits, ServerConfig
from wsisam_qupath.server.decoding import decode_images
from wsisam_qupath.server.openapi import openapi
from wsisam_qupath.server.problems import ProblemError
from wsisam_qupath.server.schemas import Region, SlideAsOpen
from wsisam_qupath.server.security import check_host, check_token

LIMITS = Limits(
    body_bytes=200_000,
    depth=20,
    prompts=50,
    vertices=500,
    regions=4,
    region_px=256 * 256,
    all_regions_px=2 * 256 * 256,
)
MEMORY = MemoryBudget(1 << 30)
BOX = rectangle("box", (10, 10, 90, 90))
NOWHERE = "/nowhere/slide.svs"


@pytest.fixture(scope="module")
def client() -> Client:
    """Has no model, which only a request that is right in itself finds out."""
    return client_of(limits=LIMITS)


def png(width: int, height: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (width, height), "pink").save(file, "PNG")
    return file.getvalue()


def png_that_says(width: int, height: int) -> bytes:
    """A PNG of few bytes whose head promises any number of pixels."""
    head = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = b"IDAT" + zlib.compress(b"\0" * 1000)
    chunks = (
        struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in (head, pixels)
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def region(image: bytes | str, x: int = 0, y: int = 0, side: int = 100) -> Json:
    text = image if isinstance(image, str) else base64.b64encode(image).decode("ascii")
    return {"x": x, "y": y, "width": side, "height": side, "image": text}


def changed(body: Json, path: str, value: object) -> Json:
    copy: Json = json.loads(json.dumps(body))
    *parents, last = path.split(".")
    inner = copy
    for name in parents:
        inner = inner.setdefault(name, {})
    inner[last] = value
    return copy


# Who may ask


@pytest.mark.parametrize(
    "shown",
    [None, "", TOKEN, "Bearer", "Bearer wrong", f"Basic {TOKEN}", f"Bearer {TOKEN}x", "Bearer ü"],
)
def test_without_the_token_there_is_no_answer(client: Client, shown: str | None) -> None:
    asker = client.app.test_client()
    headers = {} if shown is None else {"Authorization": shown.encode().decode("latin-1")}

    for path in ("/v1/info", "/metrics", "/openapi.json", "/v1/segment", "/nothing"):
        answer = asker.open(path, headers=headers)
        assert problem_name(answer) == "unauthorized"
        assert answer.headers["WWW-Authenticate"].startswith("Bearer")


def test_the_token_is_taken_in_any_spelling_of_its_scheme() -> None:
    assert check_token(f"bearer  {TOKEN}", ServerConfig(TOKEN)) == ""


def test_health_and_status_page_need_no_token(client: Client) -> None:
    asker = client.app.test_client()

    assert asker.get("/healthz").status_code == 200
    assert asker.get("/").status_code == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:8473",
        "127.0.0.1.evil.example",
        "localhost.evil.example",
        "",
        "192.168.1.7:8473",
        "[fe80::1]",
        "127.0.0.1@evil.example",
        "127.0.0.1/evil",
        "a b",
    ],
)
def test_a_server_on_this_machine_is_called_by_no_other_name(client: Client, host: str) -> None:
    for path in ("/", "/healthz", "/v1/info"):
        assert problem_name(client.get(path, Host=host)) == "forbidden-host"


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost:8473", "LOCALHOST", "[::1]:80", "127.1.2.3"]
)
def test_a_server_on_this_machine_is_called_by_its_own_names(client: Client, host: str) -> None:
    assert client.get("/healthz", Host=host).status_code == 200


def test_a_server_for_others_is_called_by_address_or_by_names_that_it_was_told() -> None:
    config = ServerConfig("t", host="0.0.0.0", names=("slides.example",))

    for host in ("192.168.1.7:8473", "slides.example", "SLIDES.example:1", "[fe80::1]"):
        check_host(host, config)
    with pytest.raises(ProblemError):
        check_host("evil.example", config)


def test_no_other_site_is_let_in(client: Client) -> None:
    answer = client.get("/healthz", Origin="https://evil.example")
    preflight = client.app.test_client().options("/v1/segment", headers=BEARER)

    assert not [name for name, _ in answer.headers if name.startswith("Access-Control")]
    assert problem_name(preflight) == "method-not-allowed"


# What is asked


def test_what_is_nowhere_is_not_found(client: Client) -> None:
    assert problem_name(client.get("/v2/segment")) == "not-found"
    assert problem_name(client.get("/../etc/passwd")) == "not-found"


def test_methods_that_are_none_of_a_path_are_refused_with_those_that_are(client: Client) -> None:
    answer = client.get("/v1/segment")

    assert problem_name(answer) == "method-not-allowed"
    assert answer.headers["Allow"] == "POST"


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", ""])
def test_only_json_is_taken(client: Client, kind: str) -> None:
    answer = client.segment(asked(NOWHERE, [BOX]), **{"Content-Type": kind})

    assert problem_name(answer) == "unsupported-media-type"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"nonsense",
        b'{"a": NaN}',
        b"[Infinity]",
        b"[-Infinity]",
        b"\xff\xfe",
        b'"\\ud800"',
        b'{"a": 1} x',
        b"\x00",
    ],
)
def test_what_is_no_json_is_a_bad_request(client: Client, body: bytes) -> None:
    assert problem_name(client.segment(body)) == "bad-request"


@pytest.mark.parametrize("body", [b"[]", b"null", b"1", b'"text"', b"{}"])
def test_json_that_is_no_request_is_invalid(client: Client, body: bytes) -> None:
    answer = client.segment(body)

    assert problem_name(answer) == "invalid"
    assert json_of(answer)["errors"]


@pytest.mark.parametrize(
    ("path", "value", "field"),
    [
        ("slide.width", 0, "slide.width"),
        ("slide.width", "512", "slide.width"),
        ("slide.width", 512.5, "slide.width"),
        ("slide.mpp_x", -1, "slide.mpp_x"),
        ("slide.mpp_x", 1e999, "slide.mpp_x"),
        ("slide.uri", "", "slide.uri"),
        ("slide.uri", None, "slide.uri"),
        ("slide.color", "red", "slide.color"),
        ("prompts", {"type": "FeatureCollection"}, "prompts.features"),
        ("prompts", {"type": "FeatureCollection", "features": [1]}, "prompts.features[0]"),
        ("prompts", [{"type": "Point"}], "prompts[0].type"),
        ("prompts", 5, "prompts"),
        ("prompts", [], "prompts"),
        ("prompts", [BOX, BOX], "prompts[1].id"),
        ("refine", {"type": "Polygon"}, "refine.type"),
        ("regions", [], "regions"),
        ("on_unreadable", "whatever", "on_unreadable"),
        ("options.points_as", "some", "options.points_as"),
        ("options.simplify_um", -1, "options.simplify_um"),
        ("options.class", 5, "options.class"),
        ("options.flavour", "sweet", "options.flavour"),
    ],
)
def test_a_field_that_cannot_be_used_is_named(
    client: Client, path: str, value: object, field: str
) -> None:
    body = json.dumps(changed(asked(NOWHERE, [BOX]), path, value)).replace("Infinity", "1e999")

    answer = client.segment(body.encode())

    assert problem_name(answer) == "invalid"
    assert json_of(answer)["errors"][0]["field"] == field
    assert field in json_of(answer)["detail"]


def test_a_body_that_is_too_long_is_not_read(client: Client) -> None:
    body = json.dumps(asked(NOWHERE, [BOX])).encode() + b" " * LIMITS.body_bytes

    assert problem_name(client.segment(body)) == "too-large"


@pytest.mark.parametrize("depth", [21, 10_000, 90_000])
@pytest.mark.parametrize("brackets", ["[]", "{}"])
def test_json_that_is_nested_too_deep_is_refused(client: Client, depth: int, brackets: str) -> None:
    opening = "[" if brackets == "[]" else '{"a":'
    answer = client.segment((opening * depth)[: LIMITS.body_bytes - 9].encode())

    assert problem_name(answer) == "too-large"
    assert "deeper" in json_of(answer)["detail"]


def test_brackets_in_texts_nest_nothing(client: Client) -> None:
    named = rectangle('[[[[[[[[[[[[[[[[[[[[[[{{{{\\"[[[', (10, 10, 90, 90))

    assert problem_name(client.segment(asked(NOWHERE, [named]))) == "failed"


def test_too_many_positions_are_refused(client: Client) -> None:
    ring = [[n, n % 7] for n in range(600)]
    outline = annotation("outline", "Polygon", [ring])

    answer = client.segment(asked(NOWHERE, [outline]))

    assert problem_name(answer) == "too-large"
    assert "positions" in json_of(answer)["detail"]


def test_too_many_prompts_are_refused(client: Client) -> None:
    boxes = [annotation(str(n), "Point", [n, n]) for n in range(51)]

    answer = client.segment(asked(NOWHERE, boxes))

    assert problem_name(answer) == "too-large"
    assert "prompts" in json_of(answer)["detail"]


# Pixels that are sent


@pytest.mark.parametrize(
    ("image", "name"),
    [
        ("no base64!", "invalid"),
        (b"no image", "invalid"),
        (png(80, 80)[:60], "invalid"),
        (png(80, 80)[:-30], "invalid"),
        (png_that_says(50_000, 50_000), "too-large"),
        (png_that_says(15_000, 15_000), "too-large"),
        (png_that_says(257, 256), "too-large"),
        (png_that_says(0, 0), "invalid"),
        (b"GIF89a" + b"\0" * 50, "invalid"),
    ],
)
def test_images_are_refused_before_they_are_decoded(image: bytes | str, name: str) -> None:
    slide = SlideAsOpen(uri="x", width=1000, height=1000)

    with pytest.raises(ProblemError) as caught:
        decode_images([Region(**region(image))], slide, LIMITS, MEMORY.reservation())

    assert caught.value.name == name
    assert "regions[0]" in caught.value.detail


def test_images_are_counted_together_before_any_is_decoded() -> None:
    slide = SlideAsOpen(uri="x", width=1000, height=1000)
    promised = [Region(**region(png_that_says(256, 256))) for _ in range(3)]

    with pytest.raises(ProblemError, match="in all"):
        decode_images(promised, slide, LIMITS, MEMORY.reservation())
    with pytest.raises(ProblemError, match="5 regions"):
        decode_images(
            [Region(**region(png(9, 9))) for _ in range(5)], slide, LIMITS, MEMORY.reservation()
        )


def test_regions_lie_inside_of_the_slide() -> None:
    slide = SlideAsOpen(uri="x", width=100, height=100)

    with pytest.raises(ProblemError, match="beyond the slide"):
        decode_images([Region(**region(png(9, 9), x=1))], slide, LIMITS, MEMORY.reservation())


# What a server says of itself


def test_a_server_without_a_model_says_why(client: Client) -> None:
    answer = client.segment(asked(NOWHERE, [BOX]))

    assert problem_name(answer) == "failed"
    assert "There are no weights. Get some." in json_of(answer)["detail"]
    assert json_of(client.get("/healthz"))["state"] == "failed"
    assert json_of(client.get("/v1/info"))["failure"] == "There are no weights. Get some."
    assert "There are no weights. Get some." in client.get("/").text


def test_every_request_is_a_line_with_the_id_that_the_client_sees(
    client: Client, capfd: pytest.CaptureFixture[str]
) -> None:
    answer = client.get("/v1/\x1b[31m?token=secret")
    answer.close()

    (line,) = capfd.readouterr().err.splitlines()
    assert answer.headers["X-Request-Id"] in line
    assert "GET /v1/" in line
    assert " 404 " in line
    assert "\x1b" not in line
    assert "secret" not in line


def test_the_status_page_is_whole_in_itself_and_tells_no_secret(client: Client) -> None:
    answer = client.get("/")

    policy = answer.headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert "http" not in answer.text.replace("http-equiv", "").replace("http://localhost", "")
    assert TOKEN not in answer.text
    assert "prefers-color-scheme: dark" in answer.text


def test_the_description_names_every_route() -> None:
    app = client_of().app
    routes = {rule.rule for rule in app.url_map.iter_rules()}

    described = {path.replace("{job_id}", "<job_id>") for path in openapi()["paths"]}

    assert routes <= described
    assert "/v1/segment" in described
