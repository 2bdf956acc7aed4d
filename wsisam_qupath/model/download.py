"""Download one file of known SHA-256: resumable, completely or not at all, one process at a time.

The bytes go to ``NAME.part`` beside the destination and are moved there when their checksum is
right. What was sent before a connection broke stays in ``NAME.part``, for this call to continue or
for a later one, even after a restart of the machine.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias
from urllib.parse import urlsplit

import requests
from filelock import FileLock, Timeout
from requests.adapters import HTTPAdapter
from urllib3.util import Retry

from ..errors import WeightsError
from ..files import CACHE_VARIABLE, compute_sha256

Progress: TypeAlias = Callable[[int, int | None], None]
"""Is called with the bytes received, and those of the whole file, None if unknown."""

_CONNECT_TIMEOUT_S = 10.0
_READ_TIMEOUT_S = 60.0
_LOCK_TIMEOUT_S = 3600.0
_CHUNK_BYTES = 1 << 16
_CONNECTIONS = 5
"""Number of broken connections in a row after which a download gives up."""


def download(url: str, path: Path, sha256: str, *, progress: Progress | None = None) -> None:
    """Download the file at ``url`` to ``path``, unless it is there with the right checksum.

    Another file at ``path`` is replaced. While another process downloads the same file, this one
    waits for it.

    Raises:
        WeightsError: no connection, an error of the server, a wrong checksum, no place to write.
            What came is kept for the next call, but not if its checksum is wrong.
    """
    with _translate_errors(url, path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{path}.lock", timeout=_LOCK_TIMEOUT_S):
            if path.exists() and compute_sha256(path) == sha256:
                return
            part = _Part(path)
            with _session() as session:
                _fetch(session, url, part, progress or _ignore)
            _install(part, path, url, sha256)


def _ignore(_done_bytes: int, _total_bytes: int | None) -> None:
    pass


@dataclass(frozen=True)
class _Part:
    """The unfinished copy of ``destination``, and a note on which version of it the server sent."""

    destination: Path

    @property
    def path(self) -> Path:
        return self.destination.with_name(f"{self.destination.name}.part")

    @property
    def _version(self) -> Path:
        return self.destination.with_name(f"{self.destination.name}.part.version")

    @property
    def size_bytes(self) -> int:
        return self.path.stat().st_size if self.path.exists() else 0

    @property
    def request_headers(self) -> dict[str, str]:
        """Headers that ask for the missing bytes, or for the whole file if it has changed."""
        headers = {"Accept-Encoding": "identity"}
        if self.size_bytes:
            headers["Range"] = f"bytes={self.size_bytes}-"
            if self._version.exists():
                headers["If-Range"] = self._version.read_text(encoding="ascii")
        return headers

    def note_version(self, response: requests.Response) -> None:
        etag = response.headers.get("ETag", "")
        # RFC 9110 bars weak tags from If-Range; a date will do.
        strong = etag if etag.startswith('"') else response.headers.get("Last-Modified", "")
        if strong.isascii() and strong:
            self._version.write_text(strong, encoding="ascii")
        else:
            self._version.unlink(missing_ok=True)

    def discard(self) -> None:
        self.path.unlink(missing_ok=True)
        self._version.unlink(missing_ok=True)

    def move_to_destination(self) -> None:
        self.path.replace(self.destination)
        self._version.unlink(missing_ok=True)


def _session() -> requests.Session:
    """Make a session that retries if there is no connection, or the server is overloaded."""
    retry = Retry(
        total=3,
        backoff_factor=0.25,
        status_forcelist=(429, 500, 502, 503, 504),
        allowed_methods=("GET",),
        raise_on_status=False,
    )
    session = requests.Session()
    session.mount("https://", HTTPAdapter(max_retries=retry))
    session.mount("http://", HTTPAdapter(max_retries=retry))
    return session


def _fetch(session: requests.Session, url: str, part: _Part, progress: Progress) -> None:
    """Complete the partial file, over several connections if need be."""
    broken = 0
    while broken < _CONNECTIONS:
        size_bytes = part.size_bytes
        if _fetch_some(session, url, part, progress):
            return
        broken = 0 if part.size_bytes > size_bytes else broken + 1
    raise requests.ConnectionError(f"{_CONNECTIONS} connections in a row broke")


def _fetch_some(session: requests.Session, url: str, part: _Part, progress: Progress) -> bool:
    """Append the bytes of one connection; returns whether the file is complete."""
    timeouts = (_CONNECT_TIMEOUT_S, _READ_TIMEOUT_S)
    with session.get(url, headers=part.request_headers, stream=True, timeout=timeouts) as response:
        done, total = _content_range(response)
        if response.status_code == requests.codes.requested_range_not_satisfiable:
            return _complete_or_discard(part, total)
        response.raise_for_status()
        if response.status_code == requests.codes.partial_content and done != part.size_bytes:
            part.discard()
            return False
        part.note_version(response)
        return _save_body(response, part, done, total, progress)


def _complete_or_discard(part: _Part, total_bytes: int | None) -> bool:
    """Handle a server without further bytes: the part is complete, or it is discarded."""
    if part.size_bytes == total_bytes:
        return True
    part.discard()
    return False


def _content_range(response: requests.Response) -> tuple[int, int | None]:
    """Read the offset of the body in the file and the file's size (None if unknown), bytes."""
    stated = response.headers.get("Content-Range", "").removeprefix("bytes ")
    span, _, total = stated.partition("/")
    if stated:
        start = span.partition("-")[0]
        return int(start) if start.isdigit() else 0, int(total) if total.isdigit() else None
    length = response.headers.get("Content-Length", "")
    # The length of a compressed body says nothing about the file.
    plain = length.isdigit() and "Content-Encoding" not in response.headers
    return 0, int(length) if plain else None


def _save_body(
    response: requests.Response, part: _Part, done: int, total: int | None, progress: Progress
) -> bool:
    """Write the body from byte ``done`` on; False if the connection broke before ``total``."""
    try:
        with part.path.open("ab" if done else "wb") as file:
            progress(done, total)
            for chunk in response.iter_content(_CHUNK_BYTES):
                file.write(chunk)
                done += len(chunk)
                progress(done, total)
    except (requests.exceptions.ChunkedEncodingError, requests.ConnectionError):
        return False
    # urllib3 1.26 does not tell a broken connection from the end of the body.
    return total is None or done >= total


def _install(part: _Part, path: Path, url: str, sha256: str) -> None:
    found = compute_sha256(part.path)
    if found != sha256:
        part.discard()
        raise WeightsError(
            f"What {url} sent is not {path.name}: its SHA-256 is {found} and not {sha256}. Try "
            "again; if that does not help, see whether a proxy or a login page answers in its "
            f"place, or bring the file from another machine to {path}."
        )
    part.move_to_destination()


@contextmanager
def _translate_errors(url: str, path: Path) -> Iterator[None]:
    host = urlsplit(url).netloc or url
    by_hand = f"or download {url} on another machine and save it as {path}."
    try:
        yield
    except requests.exceptions.SSLError as exc:
        raise WeightsError(
            f"The certificate of {host} is not trusted. Where a proxy replaces certificates, name "
            f"the file of its own one in REQUESTS_CA_BUNDLE, {by_hand}"
        ) from exc
    except requests.HTTPError as exc:
        # "404 Client Error: Not Found for url: ..."
        raise WeightsError(f"{host} answered: {exc}. Try again later, {by_hand}") from exc
    except requests.RequestException as exc:
        raise WeightsError(
            f"No connection to {host}. Check the network and, behind a proxy, HTTPS_PROXY, "
            f"{by_hand}"
        ) from exc
    except Timeout as exc:
        raise WeightsError(
            f"Another process has been downloading {path.name} for an hour. End it and try again, "
            f"{by_hand}"
        ) from exc
    except OSError as exc:
        if exc.errno == errno.ENOSPC:
            trouble = f"The disk of {path.parent} is full. Make room there"
        else:
            trouble = f"{path.parent} cannot be written: {exc.strerror or exc}. Make it writable"
        raise WeightsError(f"{trouble}, or name another folder in {CACHE_VARIABLE}.") from exc
