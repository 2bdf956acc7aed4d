"""A server in this process, asked through Flask's client; and one in a process of its own."""

from __future__ import annotations

import base64
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from flask import Flask
from PIL import Image
from werkzeug.test import TestResponse

from command_line import Feature, environment
from wsisam_qupath.engine import Segmenter
from wsisam_qupath.errors import WeightsError
from wsisam_qupath.geometry import Box
from wsisam_qupath.protocol import PROBLEM_PREFIX
from wsisam_qupath.server.app import create_app
from wsisam_qupath.server.config import Limits, ServerConfig
from wsisam_qupath.server.loading import ModelLoader
from wsisam_qupath.server.metrics import Metrics
from wsisam_qupath.server.service import Service
from wsisam_qupath.server.slides import Slides
from wsisam_qupath.server.turns import Turns
from wsisam_qupath.slide import Slide

TOKEN = "0123456789abcdef-for-tests"
BEARER = {"Authorization": f"Bearer {TOKEN}"}
SIDE_PX = 512
PATIENCE_SECONDS = 240

Json = dict[str, Any]


@dataclass
class Client:
    """Asks a server in this process.

    Attributes:
        service: behind the application, to look into.
    """

    app: Flask
    service: Service

    def get(self, path: str, **headers: str) -> TestResponse:
        return self.app.test_client().get(path, headers={**BEARER, **headers})

    def post(self, path: str, body: object, **headers: str) -> TestResponse:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        about = {**BEARER, "Content-Type": "application/json", **headers}
        return self.app.test_client().post(path, data=content, headers=about)

    def segment(self, body: object, **headers: str) -> TestResponse:
        return self.post("/v1/segment", body, **headers)


def client_of(
    segmenter: Segmenter | None = None,
    *,
    slides: Iterable[Path] = (),
    host: str = "127.0.0.1",
    maps: Iterable[tuple[str, str]] = (),
    limits: Limits | None = None,
) -> Client:
    """A server with this model, or one whose model could not be loaded."""

    def load() -> Segmenter:
        if segmenter is None:
            raise WeightsError("There are no weights. Get some.")
        return segmenter

    config = ServerConfig(
        TOKEN, host=host, slides=tuple(slides), maps=tuple(maps), limits=limits or Limits()
    )
    metrics = Metrics()
    turns = Turns(config.limits.requests_at_once, metrics.waited)
    metrics.watch(turns)
    models = ModelLoader(load)
    models.start()
    models.wait()
    service = Service(models, Slides(config), turns, config.limits)
    return Client(create_app(service, config, metrics=metrics), service)


def asked(slide: Path | str, prompts: Iterable[Feature], **more: object) -> Json:
    """A request about the tissue of conftest.py."""
    uri = slide.as_uri() if isinstance(slide, Path) else slide
    about = {"uri": uri, "width": SIDE_PX, "height": SIDE_PX, "mpp_x": 0.5, "mpp_y": 0.5}
    return {"slide": about, "prompts": list(prompts), **more}


def json_of(answer: TestResponse) -> Json:
    """The object that was answered."""
    found = answer.json
    assert isinstance(found, dict)
    return found


def problem_name(answer: TestResponse) -> str:
    """What a problem is, once its form is seen to be right."""
    assert answer.content_type == "application/problem+json", answer.data
    problem = json_of(answer)
    assert problem["status"] == answer.status_code
    assert problem["instance"] == f"urn:uuid:{answer.headers['X-Request-Id']}"
    assert problem["detail"].endswith(".")
    assert "Traceback" not in problem["detail"]
    name: str = problem["type"].removeprefix(PROBLEM_PREFIX)
    return name


def records_of(body: bytes) -> list[Json]:
    """The records of RFC 8142."""
    records = body.split(b"\x1e")
    assert records[0] == b""
    assert all(record.endswith(b"\n") for record in records[1:])
    return [json.loads(record) for record in records[1:]]


def sent_regions(slide: Slide, needed: Iterable[Json]) -> list[Json]:
    """What a client answers to ``pixels-needed``."""
    return [
        {
            **{key: region[key] for key in ("x", "y", "width", "height")},
            "image": base64.b64encode(png_of(slide, region)).decode("ascii"),
        }
        for region in needed
    ]


def png_of(slide: Slide, region: Json) -> bytes:
    x, y = region["x"], region["y"]
    box = Box(x, y, x + region["width"], y + region["height"])
    file = io.BytesIO()
    Image.fromarray(slide.read(box, region["width_px"], region["height_px"])).save(file, "PNG")
    return file.getvalue()


@dataclass
class Running:
    """A server in a process of its own.

    Attributes:
        log: what it wrote on stderr goes there.
    """

    process: subprocess.Popen[bytes]
    url: str
    token: str
    file: Path
    log: Path

    @property
    def address(self) -> tuple[str, int]:
        parts = urlsplit(self.url)
        assert parts.hostname is not None
        assert parts.port is not None
        return parts.hostname, parts.port

    def connect(self) -> HTTPConnection:
        return HTTPConnection(*self.address, timeout=PATIENCE_SECONDS)

    def ask(self, method: str, path: str, body: object = None, **headers: str) -> HTTPResponse:
        """An answer, of which the head was read."""
        return self.ask_on(self.connect(), method, path, body, **headers)

    def ask_on(
        self, connection: HTTPConnection, method: str, path: str, body: object, **headers: str
    ) -> HTTPResponse:
        about = {"Authorization": f"Bearer {self.token}", "Connection": "close", **headers}
        content = None if body is None else json.dumps(body)
        if content is not None:
            about = {"Content-Type": "application/json", **about}
        connection.request(method, path, content, about)
        return connection.getresponse()

    def wait_for(self, words: str) -> str:
        """The log, once it holds these."""
        return wait_for(self.log, words)

    def stop(self) -> int:
        """End it as an operating system does; its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENCE_SECONDS)


def wait_for(log: Path, words: str) -> str:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while words not in (text := log.read_text(encoding="utf-8")):
        assert time.monotonic() < deadline, text
        time.sleep(0.02)
    return text


@contextmanager
def running(folder: Path, *options: object, ready: bool = True) -> Iterator[Running]:
    """``wsisam-qupath serve`` on any free port, with a home folder of its own."""
    file, log = folder / "server.json", folder / "log.txt"
    command = ["-m", "wsisam_qupath", "serve", "--port", "0", "--token-file", file, *options]
    home = {"HOME": str(folder), "USERPROFILE": str(folder)}
    with log.open("wb") as stderr:
        process = subprocess.Popen(
            [sys.executable, *map(str, command)],
            stderr=stderr,
            stdin=subprocess.DEVNULL,
            env=environment(**home),
        )
    try:
        wait_for(log, "Token:")
        known = json.loads(file.read_bytes())
        server = Running(process, known["url"], known["token"], file, log)
        if ready:
            wait_until_ready(server)
        yield server
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


def wait_until_ready(server: Running) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while (state := json.load(server.ask("GET", "/healthz"))["state"]) == "loading":
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert state == "ready"


def mode_of(path: Path) -> int:
    return os.stat(path).st_mode & 0o777  # noqa: PTH116 - as written, so read
