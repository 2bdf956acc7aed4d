"""Call a WSGI application (PEP 3333) for a request that was read to its end."""

from __future__ import annotations

import io
import logging
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from email.utils import formatdate
from http import HTTPStatus
from typing import Any, TypeAlias
from urllib.parse import unquote_to_bytes, urlsplit

import h11

_LOG = logging.getLogger(__name__)

IS_GONE = "wsisam.is_gone"
"""Key in the WSGI environment of a function that says whether the client has gone away."""

Application: TypeAlias = Callable[[dict[str, Any], Any], Iterable[bytes]]

_LENGTH_DIGITS_MAX = 18
"""Most digits of a length that are read: a longer number is too large anyway."""

_NO_BODY = {HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED}
_OWN_NAMES = {"content-type", "content-length"}
"""Headers that have names without ``HTTP_`` in WSGI."""


@dataclass(frozen=True)
class Head:
    """A request without its body.

    Attributes:
        path: percent-decoded, as WSGI wants it: bytes as Latin-1.
        headers: values by lower-case names; of several of one name, joined by commas.
        length: stated length of the body, bytes; None if it is not stated.
        address: address of the client.
    """

    method: str
    path: str
    query: str
    version: str
    headers: dict[str, str]
    length: int | None
    address: str


Refuse: TypeAlias = Callable[[Head], bool]


def head_of(request: h11.Request, address: str) -> Head:
    """Read the head of a request.

    Raises:
        h11.RemoteProtocolError: it states its length in two ways.
    """
    headers: dict[str, str] = {}
    for raw_name, raw_value in request.headers:
        name, value = raw_name.decode("ascii"), raw_value.decode("latin-1")
        headers[name] = f"{headers[name]},{value}" if name in headers else value
    if "content-length" in headers and "transfer-encoding" in headers:
        raise h11.RemoteProtocolError("Both Content-Length and Transfer-Encoding are stated")
    target = request.target.decode("ascii", "replace")
    if not target.startswith("/"):  # as to a proxy
        with suppress(ValueError):
            target = urlsplit(target)._replace(scheme="", netloc="", fragment="").geturl() or "/"
    path, _, query = target.partition("?")
    stated = headers.get("content-length")
    return Head(
        method=request.method.decode("ascii"),
        path=unquote_to_bytes(path).decode("latin-1"),
        query=query,
        version=request.http_version.decode("ascii"),
        headers=headers,
        length=None if stated is None else int(stated[:_LENGTH_DIGITS_MAX]),
        address=address,
    )


class Answer:
    """Sends an answer as the application gives it.

    Args:
        send: sends bytes to the client; raises OSError if the client is gone.
        is_gone: whether the client is gone.
        may_go_on: whether another request may follow on the connection.
    """

    def __init__(
        self, send: Callable[[h11.Event], None], is_gone: Callable[[], bool], *, may_go_on: bool
    ) -> None:
        self._send, self.is_gone, self._may_go_on = send, is_gone, may_go_on
        self._begun: h11.Response | None = None
        self._is_sent = False
        self._has_body = True

    def start(
        self, status: str, headers: list[tuple[str, str]], exc_info: object = None
    ) -> Callable[[bytes], None]:
        """Begin the answer: WSGI's ``start_response``."""
        if exc_info is not None and self._is_sent:
            raise RuntimeError("the answer has begun")
        code = int(status[:3])
        about = [("Date", formatdate(usegmt=True)), *headers]
        if not self._may_go_on:
            about.append(("Connection", "close"))
        self._has_body = code not in _NO_BODY
        encoded = [(name.encode("ascii"), value.encode("latin-1")) for name, value in about]
        self._begun = h11.Response(
            status_code=code, headers=encoded, reason=status[4:].encode("latin-1", "replace")
        )
        return self.write

    def write(self, data: bytes) -> None:
        """Send a piece of the body."""
        if not data:
            return
        self._send_head()
        if self._has_body:
            self._send(h11.Data(data=data))

    def end(self) -> None:
        """End the answer."""
        self._send_head()
        self._send(h11.EndOfMessage())

    def _send_head(self) -> None:
        if self._is_sent:
            return
        if self._begun is None:
            raise RuntimeError("the application did not begin its answer")
        self._is_sent = True
        self._send(self._begun)


def call(app: Application, head: Head, body: bytes, answer: Answer, is_tls: bool) -> None:
    """Have the application answer a request. Blocks while the client receives the answer."""
    chunks: Iterable[bytes] = ()
    try:
        try:
            chunks = app(_environ(head, body, answer, is_tls), answer.start)
            for chunk in chunks:
                answer.write(chunk)
            answer.end()
        finally:
            close = getattr(chunks, "close", None)
            if close is not None:
                close()
    except (OSError, h11.LocalProtocolError):  # the client left; the application closed its work
        return
    except Exception:  # noqa: BLE001 - the application answers for its own errors; this is the last resort
        _LOG.exception("%s %s", head.method, ascii(head.path))


def _environ(head: Head, body: bytes, answer: Answer, is_tls: bool) -> dict[str, Any]:
    host, _, port = head.headers.get("host", "localhost").rpartition(":")
    environ: dict[str, Any] = {
        "REQUEST_METHOD": head.method,
        "SCRIPT_NAME": "",
        "PATH_INFO": head.path,
        "QUERY_STRING": head.query,
        "SERVER_PROTOCOL": f"HTTP/{head.version}",
        "SERVER_NAME": host or "localhost",
        "SERVER_PORT": port if port.isdigit() else "80",
        "REMOTE_ADDR": head.address,
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "https" if is_tls else "http",
        "wsgi.input": io.BytesIO(body),
        "wsgi.input_terminated": True,
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
        IS_GONE: answer.is_gone,
    }
    for name, value in head.headers.items():
        if name == "transfer-encoding":  # it is taken off
            continue
        key = name.upper().replace("-", "_")
        environ[key if name in _OWN_NAMES else f"HTTP_{key}"] = value
    return environ
