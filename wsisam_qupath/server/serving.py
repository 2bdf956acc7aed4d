"""The process round the application: sockets, TLS, signals, the connection file."""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import ssl
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from traceback import format_exc
from types import FrameType
from typing import Any

from cheroot import wsgi
from cheroot.server import HTTPConnection
from cheroot.ssl.builtin import BuiltinSSLAdapter
from flask import Flask

from .. import __version__
from ..errors import OptionError, escape
from ..files import write_atomically
from .app import IS_GONE
from .config import ServerConfig

_SPARE_THREADS = 8
"""Beside one a request in hand: for those that are refused, and for looking at the server."""

_HEADER_BYTES_MAX = 64 << 10
_ALERT_BYTES_MAX = 64
_TLS_ALERT, _TLS_DATA = 21, 23

_NO_TLS = (
    b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\n"
    b"This server speaks TLS: begin its address with https.\n"
)


class Listening:
    """A server whose socket is open.

    Attributes:
        url: by which clients on this machine call it.
    """

    def __init__(self, server: wsgi.Server, url: str, config: ServerConfig) -> None:
        self._server, self._config = server, config
        self.url = url

    def run(self, finish: Callable[[], None]) -> None:
        """Answer until a signal comes.

        Args:
            finish: takes nothing more and ends what is in hand; then the socket is closed.

        Raises:
            OutputError: the connection file cannot be written.
        """
        with (
            _connection_file(self._config, self.url),
            _stop_on_signals(self._server, finish),
        ):
            print(  # noqa: T201
                f"wsisam-qupath {__version__} listens at {self.url}\nToken: {self._config.token}",
                file=sys.stderr,
                flush=True,
            )
            self._server.serve()


@contextmanager
def listening(app: Flask, config: ServerConfig) -> Iterator[Listening]:
    """Open the socket, before anything costly begins.

    Raises:
        OptionError: the address, the port or the certificate cannot be used.
    """
    server = _prepare_server(app, config)
    try:
        yield Listening(server, _url(config, server.bind_addr[1]), config)
    finally:
        server.stop()


class _Gateway(wsgi.Gateway_10):
    """Tells the application whether the client is still there."""

    def get_environ(self) -> dict[str, Any]:  # type: ignore[override]
        environ: dict[str, Any] = super().get_environ()  # type: ignore[no-untyped-call]
        connection = self.req.conn
        environ[IS_GONE] = lambda: is_gone(connection.socket)
        # What is too long is not read to its end, nor is what has no end.
        left = getattr(self.req.rfile, "remaining", 0)
        if self.req.chunked_read or left > self.req.server.wsgi_app.config["MAX_CONTENT_LENGTH"]:
            self.req.close_connection = True
        return environ


class _Connection(HTTPConnection):
    """Greets in a thread of its own: whoever stays silent would keep all others from connecting."""

    def communicate(self) -> bool:
        """Answer a request; whether another one may follow."""
        if isinstance(self.socket, ssl.SSLSocket):
            try:
                self.socket.do_handshake()  # nothing, the second time
            except OSError as exc:
                if getattr(exc, "reason", None) == "HTTP_REQUEST":
                    # Not the method of an encrypted socket.
                    socket.socket.sendall(self.socket, _NO_TLS)
                return False
        return bool(super().communicate())  # type: ignore[no-untyped-call]


class _TlsAdapter(BuiltinSSLAdapter):
    def wrap(self, sock: socket.socket) -> tuple[ssl.SSLSocket, dict[str, str]]:
        """Without the greeting, for which the thread that accepts would have to wait."""
        encrypted = self.context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
        return encrypted, {"wsgi.url_scheme": "https", "HTTPS": "on"}


class _Server(wsgi.Server):
    ConnectionClass = _Connection
    max_request_header_size = _HEADER_BYTES_MAX
    keep_alive_conn_limit = 100

    def error_log(self, msg: str = "", level: int = logging.INFO, traceback: bool = False) -> None:
        """What happens below the application, such as a client that speaks no TLS."""
        if level < logging.WARNING:
            return
        cause = f" {format_exc()}" if traceback else ""
        print(f"{escape(msg)}{cause}", file=sys.stderr, flush=True)  # noqa: T201


def is_gone(connection: socket.socket) -> bool:
    """Whether the other side has closed a connection, from which a whole request was read."""
    try:
        # Not the method of an encrypted socket, which cannot look without taking.
        waiting = _peek(connection)
    except (BlockingIOError, InterruptedError):
        return False
    except OSError:
        return True
    if not isinstance(connection, ssl.SSLSocket):
        return not waiting
    # Only the word of parting is as short as that.
    return not waiting or (
        waiting[0] in (_TLS_ALERT, _TLS_DATA) and len(waiting) <= _ALERT_BYTES_MAX
    )


def _peek(connection: socket.socket) -> bytes:
    """What has come and was not read. Raises BlockingIOError where nothing has."""
    before = connection.gettimeout()
    connection.settimeout(0)
    try:
        return socket.socket.recv(connection, _ALERT_BYTES_MAX + 1, socket.MSG_PEEK)
    finally:
        connection.settimeout(before)


def _prepare_server(app: Flask, config: ServerConfig) -> _Server:
    threads = config.limits.requests_at_once + _SPARE_THREADS
    server = _Server(
        (config.host, config.port),
        app,
        numthreads=threads,
        request_queue_size=128,
        shutdown_timeout=1,
    )
    server.gateway = _Gateway
    if config.tls_cert is not None and config.tls_key is not None:
        server.ssl_adapter = _tls(config.tls_cert, config.tls_key)
    try:
        server.prepare()
    except OSError as exc:
        raise OptionError(
            "port",
            f"the server cannot listen at {config.host}, port {config.port} "
            f"({exc.strerror or exc}). Choose another port, or stop the program that uses it, "
            "perhaps another `wsisam-qupath serve`.",
        ) from exc
    return server


def _tls(cert: Path, key: Path) -> _TlsAdapter:
    try:
        adapter = _TlsAdapter(str(cert), str(key))
    except (OSError, ssl.SSLError) as exc:
        raise OptionError(
            "tls_cert",
            f"{cert} and {key} cannot be used for TLS ({exc.strerror or exc}). Give a certificate "
            "and its key as PEM files, the key without a password.",
        ) from exc
    adapter.context.minimum_version = ssl.TLSVersion.TLSv1_2
    return adapter


def _url(config: ServerConfig, port: int) -> str:
    scheme = "http" if config.tls_cert is None else "https"
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(config.host, config.host)
    if ":" in host and not host.startswith("["):
        host = f"[{host}]"
    return f"{scheme}://{host}:{port}"


@contextmanager
def _connection_file(config: ServerConfig, url: str) -> Iterator[None]:
    """Clients on this machine find us while we listen."""
    path = config.connection_file
    if path is None:
        yield
        return
    text = json.dumps(
        {"url": url, "token": config.token, "pid": os.getpid(), "version": __version__}, indent=2
    )
    content = f"{text}\n".encode("ascii")
    write_atomically(path, content, private=True)
    try:
        yield
    finally:
        with suppress(OSError):
            if path.read_bytes() == content:  # else it is another server's by now
                path.unlink()


@contextmanager
def _stop_on_signals(server: wsgi.Server, finish: Callable[[], None]) -> Iterator[None]:
    """SIGTERM and Ctrl-C end the server in order; a second one ends it at once."""
    stopping = threading.Event()

    def stop() -> None:
        finish()
        server.stop()

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        if stopping.is_set():
            os._exit(130)
        stopping.set()
        threading.Thread(target=stop, name="stopping").start()

    signals = [signal.SIGTERM, signal.SIGINT]
    before = {number: signal.signal(number, on_signal) for number in signals}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
