"""Bytes on a connection, in front of the application."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import lru_cache
from random import Random
from typing import Any

from fuzz.mutation import damaged
from wsisam_qupath.server.budget import MemoryBudget
from wsisam_qupath.server.config import Limits
from wsisam_qupath.server.front import Front, FrontConfig

_LIMITS = Limits(body_bytes=10_000, head_seconds=2, body_seconds=2, idle_seconds=2)
_HEADERS = (
    b"Content-Length: 5",
    b"Content-Length: 99999999999999999999",
    b"Transfer-Encoding: chunked",
    b"Expect: 100-continue",
    b"Connection: close",
    b"Connection: upgrade",
    b"Authorization: Bearer x",
    b"X: \xff\x80",
    b"Host: a",
)
_BODIES = (
    b"",
    b"hello",
    b"5\r\nhello\r\n0\r\n\r\n",
    b"fffffffff\r\nx",
    b"5;x=y\r\nhello\r\n0\r\nA: b\r\n\r\n",
)


def run(seed: int) -> None:
    """Whatever comes, it is answered in HTTP or the connection is closed, and all goes on."""
    random = Random(seed)
    method = random.choice([b"GET", b"POST", b"HEAD", b"CONNECT", b"PUT", b"X" * 50])
    target = random.choice([b"/", b"/%ff", b"*", b"http://a/b", b"//", b"/?" + b"q" * 9000])
    headers = [random.choice(_HEADERS) for _ in range(random.randrange(6))]
    request = b"\r\n".join([method + b" " + target + b" HTTP/1.1", *headers, b"", b""])
    request += random.choice(_BODIES)
    if random.random() < 0.5:
        request = damaged(request, random)

    answer = _said(request)
    assert not answer or answer.startswith(b"HTTP/1.1 "), answer[:100]
    good = _said(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    assert b"4\r\nfine\r\n" in good, good


def _said(request: bytes) -> bytes:
    found = b""
    with socket.create_connection(_address(), timeout=10) as client, suppress(ConnectionError):
        client.sendall(request)
        client.shutdown(socket.SHUT_WR)
        while data := client.recv(65536):
            found += data
    return found


@lru_cache(maxsize=1)
def _address() -> tuple[str, int]:
    """Of a server that ends with this process."""
    listener = socket.create_server(("127.0.0.1", 0))
    parts = FrontConfig(_app, lambda _: False, _LIMITS, MemoryBudget(1 << 20), threads=2)
    Front(listener, parts).start()
    _KEPT.append(listener)
    address: tuple[str, int] = listener.getsockname()
    return address


_KEPT: list[socket.socket] = []


def _app(environ: dict[str, Any], start: Callable[..., object]) -> Iterable[bytes]:
    environ["wsgi.input"].read()
    assert threading.current_thread() is not threading.main_thread()
    start("200 OK", [("Content-Type", "text/plain")])
    return [] if environ["REQUEST_METHOD"] == "HEAD" else [b"fine"]
