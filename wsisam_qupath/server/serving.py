"""The process around the application: sockets, TLS, signals, the connection file."""

from __future__ import annotations

import os
import signal
import socket
import ssl
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from flask import Flask

from .. import __version__
from ..errors import OptionError
from ..files import check_ordinary
from .budget import MemoryBudget
from .config import ServerConfig
from .connection_file import connection_file
from .front import Front, FrontConfig
from .problems import ProblemError
from .security import check_host, check_samapi, check_token, is_samapi
from .system_limits import allow_open_files, return_freed_memory
from .wsgi import Head

_SPARE_THREADS = 8
"""Threads beside one per request in progress: for refusals, and for looking at the server."""

_ANSWERS_SECONDS = 1.0
"""Time that answers on their way to clients have when the server stops."""

_STOP_SECONDS_MAX = 9.0
"""Time after a signal when the process ends, even if something hangs."""

_LOOK_SECONDS = 0.5
"""How often the process checks whether it is to stop."""


class Listening:
    """A server with an open socket.

    Attributes:
        url: URL by which clients on this machine reach it.
    """

    def __init__(self, front: Front, port: int, config: ServerConfig) -> None:
        self._front, self._config = front, config
        local = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(config.host, config.host)
        self.url = _make_url(config, local, port)
        named = [_make_url(config, name, port) for name in config.names]
        self._urls = " and ".join(dict.fromkeys((self.url, *named)))

    def run(
        self,
        finish: Callable[[], None],
        *,
        on_start: Callable[[str], None] = lambda _url: None,
        stop_with_input: bool = False,
    ) -> None:
        """Answer until a signal comes.

        Args:
            finish: accepts nothing more, and ends what is being processed.
            on_start: called with the URL once requests are answered.
            stop_with_input: whether to stop at the end of the standard input, too: that comes when
                the program at its other end has ended.

        Raises:
            OutputError: the connection file cannot be written.
        """
        token = self._config.token if self._config.prints_token else "as in the file given"
        with _signals() as stopping:
            with connection_file(self._config.connection_file, self.url, self._config.token):
                print(  # noqa: T201
                    f"wsisam-qupath {__version__} listens at {self._urls}\nToken: {token}",
                    file=sys.stderr,
                    flush=True,
                )
                self._front.start()
                on_start(self.url)
                if stop_with_input:
                    threading.Thread(target=_await_end, args=(stopping,), daemon=True).start()
                while not stopping.wait(_LOOK_SECONDS):
                    pass  # on Windows a signal is not noticed while something is waited for
            finish()
            self._front.stop(_ANSWERS_SECONDS)


@contextmanager
def listening(app: Flask, config: ServerConfig, budget: MemoryBudget) -> Iterator[Listening]:
    """Open the socket, before anything costly begins.

    Args:
        budget: memory that the application's requests share, for bodies on their way.

    Raises:
        OptionError: the address, the port or the certificate cannot be used.
    """
    allow_open_files()
    return_freed_memory()
    parts = FrontConfig(
        app=app,
        refuse=lambda head: _is_refused(head, config),
        limits=config.limits,
        budget=budget,
        threads=config.limits.requests_at_once + _SPARE_THREADS,
        tls=_tls(config.tls_cert, config.tls_key),
    )
    with _socket(config) as listener:
        yield Listening(Front(listener, parts), listener.getsockname()[1], config)


def _is_refused(head: Head, config: ServerConfig) -> bool:
    """Whether the application will refuse a request because of its head."""
    try:
        host = head.headers.get("host")
        check_host(host, config)
        if is_samapi(head.path, config):
            check_samapi(head.address, host, config)
        else:
            check_token(head.headers.get("authorization"), config)
    except ProblemError:
        return True
    return False


def _socket(config: ServerConfig) -> socket.socket:
    try:
        family, *_, address = socket.getaddrinfo(
            config.host, config.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        return socket.create_server(address[:2], family=family)
    except (OSError, OverflowError, UnicodeError) as exc:
        # Not its own text, to which the library adds the address; errors of names are below 0.
        number = getattr(exc, "errno", None) or 0
        reason = os.strerror(number) if number > 0 else exc
        raise OptionError(
            "port",
            f"the server cannot listen at {config.host}, port {config.port} ({reason}). Choose "
            "another port, or stop the program that uses it, perhaps another "
            "`wsisam-qupath serve`.",
        ) from exc


def _tls(cert: Path | None, key: Path | None) -> ssl.SSLContext | None:
    if cert is None or key is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        for file in (cert, key):
            check_ordinary(file)
        # Without a function for it, the library asks for a password on the terminal.
        context.load_cert_chain(cert, key, password=lambda: "")
    except (OSError, ValueError) as exc:  # ssl.SSLError is an OSError
        reason = getattr(exc, "strerror", None) or exc
        raise OptionError(
            "tls_cert",
            f"{cert} and {key} cannot be used for TLS ({reason}). Give a certificate and its key "
            "as PEM files, the key without a password.",
        ) from exc
    return context


def _make_url(config: ServerConfig, host: str, port: int) -> str:
    scheme = "http" if config.tls_cert is None else "https"
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"


@contextmanager
def _signals() -> Iterator[threading.Event]:
    """Set an event on SIGTERM and Ctrl-C; a second, or :data:`_STOP_SECONDS_MAX`, ends all."""
    stopping = threading.Event()
    signaled = threading.Event()  # the end of the input, too, sets the other

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        if signaled.is_set():
            os._exit(130)
        signaled.set()
        stopping.set()
        threading.Thread(target=_end_soon, name="stopping", daemon=True).start()

    signals = [signal.SIGTERM, signal.SIGINT]
    before = {number: signal.signal(number, on_signal) for number in signals}
    try:
        yield stopping
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _await_end(stopping: threading.Event) -> None:
    """Read the standard input to its end, then make the server stop."""
    while sys.stdin is not None and os.read(sys.stdin.fileno(), 1024):
        pass
    stopping.set()
    _end_soon()


def _end_soon() -> None:
    """End the process if it does not end by itself: something hangs, such as a network drive."""
    threading.Event().wait(_STOP_SECONDS_MAX)
    print(  # noqa: T201
        "Something did not come to an end in time. The server ends all the same.",
        file=sys.stderr,
        flush=True,
    )
    os._exit(1)
