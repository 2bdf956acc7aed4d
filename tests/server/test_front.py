"""Connections: slow, silent, wrong and leaving clients, against a small application."""

from __future__ import annotations

import os
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from shutil import which
from typing import Any

import pytest

from wsisam_qupath.server.budget import MemoryBudget
from wsisam_qupath.server.config import Limits
from wsisam_qupath.server.front import Front, FrontConfig
from wsisam_qupath.server.wsgi import IS_GONE

LIMITS = Limits(
    body_bytes=1_000_000,
    connections=40,
    head_seconds=1.0,
    body_seconds=1.0,
    idle_seconds=1.0,
    body_bytes_per_second=1 << 20,
)
HEAD = b"GET /x HTTP/1.1\r\nHost: localhost\r\n"


def app(environ: dict[str, Any], start: Callable[..., object]) -> Iterable[bytes]:
    """Says how long the body was; streams on ``/stream`` until the client is gone."""
    if environ["PATH_INFO"] == "/stream":
        start("200 OK", [("Content-Type", "text/plain")])
        return endless(environ)
    body = environ["wsgi.input"].read()
    answer = f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']} {len(body)}".encode("latin-1")
    start("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(answer)))])
    return [answer]


GONE = threading.Event()


def endless(environ: dict[str, Any]) -> Iterator[bytes]:
    try:
        while not environ[IS_GONE]():
            yield b"record\n"
            time.sleep(0.01)
    finally:  # it may be found out by looking, or by sending
        GONE.set()


@contextmanager
def serving(
    limits: Limits = LIMITS, tls: ssl.SSLContext | None = None, memory_bytes: int = 1 << 24
) -> Iterator[tuple[str, int]]:
    parts = FrontConfig(
        app=app,
        refuse=lambda head: head.headers.get("authorization") == "wrong",
        limits=limits,
        budget=MemoryBudget(memory_bytes),
        threads=4,
        tls=tls,
    )
    with socket.create_server(("127.0.0.1", 0)) as listener:
        front = Front(listener, parts)
        front.start()
        try:
            yield listener.getsockname()
        finally:
            front.stop(1)


@pytest.fixture(scope="module")
def address() -> Iterator[tuple[str, int]]:
    with serving() as found:
        yield found


def said(address: tuple[str, int], request: bytes, *, wait: float = 10) -> bytes:
    """All that is answered until the connection is closed."""
    with socket.create_connection(address, timeout=wait) as client:
        client.sendall(request)
        return rest(client)


def rest(client: socket.socket) -> bytes:
    found = b""
    with suppress(ConnectionError):
        while data := client.recv(65536):
            found += data
    return found


def test_a_request_is_answered_and_the_next_one_too(address: tuple[str, int]) -> None:
    both = said(address, HEAD + b"\r\n" + HEAD + b"Connection: close\r\n\r\n")

    assert both.count(b"HTTP/1.1 200") == 2
    assert both.endswith(b"GET /x 0")


@pytest.mark.parametrize(
    ("about", "status"),
    [
        (b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!", b"400"),
        (b"Content-Length: 5, 6\r\n\r\nhello!", b"400"),
        (b"Content-Length: 5\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello", b"200"),
        (b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", b"400"),
        (b"Content-Length: -1\r\n\r\n", b"400"),
        (b"Content-Length: " + b"9" * 5000 + b"\r\n\r\n", b"400"),
        (b"Transfer-Encoding: chunked\r\n\r\nffffffffffffffffffffffff\r\n", b"400"),
        (b"Transfer-Encoding: chunked\r\n\r\nxyz\r\n", b"400"),
        (b"Transfer-Encoding: chunked\r\n\r\n-5\r\n", b"400"),
        (b"Transfer-Encoding: gzip\r\n\r\n", b"501"),
        (b"Bad Header\r\n\r\n", b"400"),
        (b"X: " + b"x" * 300_000 + b"\r\n\r\n", b"431"),
    ],
)
def test_what_is_no_http_is_refused(address: tuple[str, int], about: bytes, status: bytes) -> None:
    answer = said(address, b"POST /x HTTP/1.1\r\nHost: localhost\r\n" + about)

    assert answer.startswith(b"HTTP/1.1 " + status), answer[:200]


@pytest.mark.parametrize("target", [b"/%ff%00/..", b"http://elsewhere/x", b"*", b"//", b"/?a=%zz"])
def test_any_target_is_answered(address: tuple[str, int], target: bytes) -> None:
    answer = said(
        address, b"GET " + target + b" HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    )

    assert answer.startswith(b"HTTP/1.1 200")


def test_a_body_of_someone_unknown_is_not_read(address: tuple[str, int]) -> None:
    head = b"POST /x HTTP/1.1\r\nHost: a\r\nAuthorization: wrong\r\nContent-Length: 900000\r\n\r\n"

    assert said(address, head).endswith(b"POST /x 0")


def test_bodies_share_a_budget(tmp_path: Path) -> None:
    head = b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 90000\r\n\r\n"
    with serving(memory_bytes=50_000) as address:
        answer = said(address, head + b"x" * 90_000)

    assert answer.startswith((b"HTTP/1.1 413", b"HTTP/1.1 503"))


@pytest.mark.parametrize(
    "begun", [b"", b"GE", HEAD, b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n"]
)
def test_a_client_that_falls_silent_is_let_go(address: tuple[str, int], begun: bytes) -> None:
    began = time.monotonic()
    said(address, begun, wait=20)

    assert time.monotonic() - began < 10


def test_a_byte_now_and_then_does_not_keep_a_connection_open(address: tuple[str, int]) -> None:
    with socket.create_connection(address, timeout=20) as client:
        began = time.monotonic()
        with suppress(OSError):
            while time.monotonic() - began < 20:
                client.sendall(b"X: y\r\n" if time.monotonic() - began > 0.2 else HEAD)
                time.sleep(0.1)
                if not client.recv(1):
                    break

    assert time.monotonic() - began < 10


def test_silent_clients_keep_nobody_from_being_answered(address: tuple[str, int]) -> None:
    silent = [socket.create_connection(address) for _ in range(200)]
    began = time.monotonic()

    answer = said(address, HEAD + b"Connection: close\r\n\r\n")

    assert answer.endswith(b"GET /x 0")
    assert time.monotonic() - began < 5
    for client in silent:
        client.close()


def test_work_for_one_that_has_left_is_told_so(address: tuple[str, int]) -> None:
    GONE.clear()
    client = socket.create_connection(address)
    client.sendall(b"GET /stream HTTP/1.1\r\nHost: a\r\n\r\n")
    assert client.recv(10)

    client.close()

    assert GONE.wait(10)


@pytest.mark.slow
@pytest.mark.skipif(which("openssl") is None, reason="makes its certificate with openssl")
def test_tls_clients_come_and_go_without_a_trace(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    make = ("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost")
    subprocess.run([*make, "-out", str(cert), "-keyout", str(key)], check=True, capture_output=True)
    server_side = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server_side.load_cert_chain(cert, key)
    trusting = ssl.create_default_context()
    trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE

    with serving(tls=server_side) as address:
        silent = [socket.create_connection(address) for _ in range(20)]
        for leave in (True, False):
            plain = socket.create_connection(address)
            with trusting.wrap_socket(plain, server_hostname="localhost") as secure:
                if leave:
                    secure.sendall(b"GET /stream HTTP/1.1\r\nHost: a\r\n\r\n")
                    secure.recv(10)
                    continue
                secure.sendall(HEAD + b"Connection: close\r\n\r\n")
                assert rest(secure).endswith(b"GET /x 0")
        assert b"begin its address with https" in said(address, HEAD + b"\r\n")
        said(address, os.urandom(300))
        for client in silent:
            client.close()
        time.sleep(0.5)

    assert "Traceback" not in capfd.readouterr().err


def test_an_answer_that_is_under_way_ends_when_the_server_stops() -> None:
    with serving(replace(LIMITS, head_seconds=30)) as address:
        client = socket.create_connection(address, timeout=10)
        client.sendall(HEAD + b"\r\n")
        assert client.recv(100)
        began = time.monotonic()

    assert time.monotonic() - began < 5
    client.close()
