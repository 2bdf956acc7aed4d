"""A file over HTTP, by a server that behaves as well or ill as a test wants."""

from __future__ import annotations

import hashlib
import random
import re
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from wsisam_qupath.model.bases import BASES, Base, Download

CONTENT = random.Random(1).randbytes(1_000_000)
OTHER_CONTENT = random.Random(2).randbytes(1_000_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
BREAK_BYTES = 5 * 65536  # whole chunks of the download, so that nothing received is lost


@dataclass
class FileServer:
    """One file over HTTP, and how the server behaves.

    The first ``drops`` answers break off after ``BREAK_BYTES`` of their body.
    """

    url: str = ""
    content: bytes = CONTENT
    etag: str = '"version 1"'
    status: int = 200
    drops: int = 0
    takes_ranges: bool = True
    redirects: bool = False
    states_length: bool = True
    pause_s: float = 0.0
    requests: list[dict[str, str]] = field(default_factory=list)

    @property
    def ranges(self) -> list[str | None]:
        return [headers.get("Range") for headers in self.requests]


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        files = self.server.files  # type: ignore[attr-defined]
        assert isinstance(files, FileServer)
        if files.redirects and self.path != "/elsewhere":
            self._answer(302, {"Location": "/elsewhere", "Content-Length": "0"}, b"")
            return
        files.requests.append(dict(self.headers))
        if files.status != 200:
            self._answer(files.status, {"Content-Length": "0"}, b"")
            return
        self._send_file(files)

    def _send_file(self, files: FileServer) -> None:
        size = len(files.content)
        start = self._start() if files.takes_ranges else 0
        if self.headers.get("If-Range", files.etag) != files.etag:
            start = 0
        headers = {"ETag": files.etag, "Content-Length": str(size - start)}
        if start >= size:
            content_range = {"Content-Range": f"bytes */{size}", "Content-Length": "0"}
            self._answer(416, content_range, b"")
            return
        if not files.states_length:
            del headers["Content-Length"]
        if start:
            headers["Content-Range"] = f"bytes {start}-{size - 1}/{size}"
        time.sleep(files.pause_s)
        body = files.content[start:]
        if files.drops:
            files.drops -= 1
            body = body[:BREAK_BYTES]
        self._answer(206 if start else 200, headers, body)

    def _start(self) -> int:
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        return int(asked[1]) if asked else 0

    def _answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[FileServer]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        files = FileServer(url=f"http://127.0.0.1:{http.server_port}/weights.bin")
        http.files = files  # type: ignore[attr-defined]
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield files
        http.shutdown()
        thread.join()


def base_at(url: str) -> Base:
    source = Download(url, "weights.bin", len(CONTENT))
    return replace(BASES["mobile-sam"], name="test-base", source=source, sha256=SHA256)


@pytest.fixture
def base(server: FileServer) -> Base:
    return base_at(server.url)
