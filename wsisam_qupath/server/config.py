"""The configuration of a server. Values only."""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import Literal, TypeAlias

DEFAULT_PORT = 8473
_MIB = 1 << 20

MANY_VERTICES = 4_000_000
"""Most positions where all objects of a slide may come at once, to be saved or as known ones of a
search: 10,000 found ones have a million and more. Memory is the limit before that."""

SamapiAccess: TypeAlias = Literal["off", "local", "open"]
"""Who may use the routes of samapi, without a token: nobody, this computer, or everyone."""


@dataclass(frozen=True)
class Limits:
    """Limits of one request, unless another is stated.

    Attributes:
        body_bytes: largest body, bytes.
        depth: deepest nesting in its JSON.
        prompts: most features.
        points: most positive and negative points of one prompt.
        vertices: most positions, counted as opening brackets before any object is built.
        regions: most images.
        region_px, all_regions_px: most pixels of one image, and of all images.
        memory_bytes: most memory of all requests together: their bodies, what is parsed of them,
            their pixels.
        connections: most open connections; above it, the one that has waited longest for bytes is
            closed.
        head_seconds: longest time from the opening of a connection, or the first byte after an
            answer, to the end of a request's head; a TLS greeting may take as long.
        body_seconds, body_bytes_per_second: time for a body, and the speed at which it may take
            longer.
        idle_seconds: how long a connection stays open between requests.
        requests_at_once: most requests that are admitted, computing or waiting; further ones are
            refused at once.
        request_seconds: longest time for an answer; of a streamed one, since its last record.
        stop_seconds: longest time for requests in progress when the server stops.
    """

    body_bytes: int = 64 * _MIB
    depth: int = 64
    prompts: int = 5_000
    points: int = 256
    vertices: int = 1_000_000
    regions: int = 512
    region_px: int = 16 * _MIB
    all_regions_px: int = 64 * _MIB
    memory_bytes: int = 768 * _MIB
    connections: int = 1_000
    head_seconds: float = 10.0
    body_seconds: float = 20.0
    body_bytes_per_second: int = 128 << 10
    idle_seconds: float = 60.0
    requests_at_once: int = 32
    request_seconds: float = 300.0
    stop_seconds: float = 5.0


@dataclass(frozen=True)
class ServerConfig:
    """Configuration of a server, apart from its model.

    Attributes:
        token: what clients must show, whatever their name, or only those on this computer.
        prints_token: whether the token is printed at the start; a lasting one would stay in a log.
        names_file: file with a name and a token per client; see :mod:`.tokens`.
        host, port: where to listen; port 0 is any free one.
        names: DNS names by which clients may call this server, beside ``localhost``.
        slides: folders in which slides may be read; if empty, see :attr:`reads_slides`.
        maps: (CLIENT, SERVER) beginnings of paths.
        connection_file: file in which clients on this machine find URL and token.
        tls_cert, tls_key: PEM files; both or neither.
        samapi: who may use the routes of the SAM extension for QuPath, which sends no token.
    """

    token: str
    host: str = "127.0.0.1"
    port: int = DEFAULT_PORT
    names: tuple[str, ...] = ()
    slides: tuple[Path, ...] = ()
    maps: tuple[tuple[str, str], ...] = ()
    names_file: Path | None = None
    connection_file: Path | None = None
    prints_token: bool = True
    tls_cert: Path | None = None
    tls_key: Path | None = None
    samapi: SamapiAccess = "off"
    limits: Limits = field(default_factory=Limits)

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach it."""
        return is_loopback(self.host)

    @property
    def reads_anywhere(self) -> bool:
        """Whether all files of its user may be read: only locally, without named folders."""
        return self.is_loopback and not self.slides

    @property
    def reads_slides(self) -> bool:
        """Whether it opens slides at all, or only takes pixels."""
        return self.is_loopback or bool(self.slides)


def is_loopback(host: str) -> bool:
    """Whether a host name or address means this machine, seen from itself."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"
