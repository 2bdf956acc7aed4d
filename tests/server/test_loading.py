"""Requests that come while the model is loading are refused, or wait if they ask to."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import cast

import pytest

from fixtures.command_line import GLAND, identity, rectangle
from fixtures.servers import TOKEN, Client, asked, client_of, problem_name
from wsisam_qupath.inference.segmenter import Segmenter
from wsisam_qupath.server import app
from wsisam_qupath.server.app import create_app
from wsisam_qupath.server.config import ServerConfig
from wsisam_qupath.server.loading import ModelLoader, start_in_turn
from wsisam_qupath.server.queue import ClientGoneError, DeviceQueue
from wsisam_qupath.server.service import Service
from wsisam_qupath.server.slides import Slides

MODEL = cast(Segmenter, object())


@contextmanager
def loading() -> Iterator[tuple[ModelLoader, threading.Event]]:
    """A model that is loaded as soon as the event is set, and at the end."""
    may_load = threading.Event()

    def load() -> Segmenter:
        may_load.wait()
        return MODEL

    models = ModelLoader(load)
    start_in_turn([models])
    try:
        yield models, may_load
    finally:
        may_load.set()
        models.wait()


def test_a_request_may_wait_for_the_model() -> None:
    with loading() as (models, may_load):
        looks: list[int] = []

        def check() -> None:
            looks.append(1)
            may_load.set()

        assert models.segmenter(600, check) is MODEL
    assert looks, "it looked whether its client was still there"


def test_whoever_leaves_waits_no_longer() -> None:
    def is_gone() -> None:
        raise ClientGoneError

    with loading() as (models, _), pytest.raises(ClientGoneError):
        models.segmenter(600, is_gone)


@pytest.mark.parametrize(
    ("prefer", "retry_after"),
    [
        (None, "2"),
        ("wait=1", "0"),
        ("respond-async, wait=1", "0"),
        ('Wait = "1"; why=not', "0"),
        ("wait=100000", "0"),
        *((odd, "2") for odd in ("", "wait", "wait=", "wait=soon", "wait=-1", "no-wait=1")),
        *((odd, "2") for odd in ("wait=1.5", "respond-async; wait=1", "wait=0")),
    ],
)
def test_the_answer_says_when_to_ask_again(
    prefer: str | None, retry_after: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app, "_LONGEST_WAIT_S", 1.0)
    config = ServerConfig(TOKEN)
    with loading() as (models, _):
        service = Service(models, Slides(config), DeviceQueue(4), config.limits)
        client = Client(create_app(service, config), service)
        headers = {} if prefer is None else {"Prefer": prefer}

        body = asked("file:///slide.tif", [rectangle(identity(1), GLAND, None)])
        answer = client.segment(body, **headers)

        assert problem_name(answer) == "loading"
        assert answer.headers["Retry-After"] == retry_after


def test_a_model_that_failed_is_not_waited_for() -> None:
    client = client_of(None)
    body = asked("file:///slide.tif", [rectangle(identity(1), GLAND, None)])

    assert problem_name(client.segment(body, Prefer="wait=60")) == "failed"


def test_a_request_that_waits_for_the_model_does_not_delay_the_end_of_the_server() -> None:
    config = ServerConfig(TOKEN)
    queue = DeviceQueue(4)
    with loading() as (models, _):
        service = Service(models, Slides(config), queue, config.limits)
        client = Client(create_app(service, config), service)
        body = asked("file:///slide.tif", [rectangle(identity(1), GLAND, None)])
        with ThreadPoolExecutor() as pool:
            waiting = pool.submit(client.segment, body, Prefer="wait=60")
            while not queue.in_hand and not waiting.done():
                time.sleep(0.01)
            queue.close(600)

            assert problem_name(waiting.result()) == "busy"
