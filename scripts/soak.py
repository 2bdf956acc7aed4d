"""Ask a server for thousands of clicks, and see that it takes no more at the end than before.

    python scripts/soak.py [--clicks 3000] [--minutes 60] [--clients 4] [--slow-clients 0]

Starts ``wsisam-qupath serve`` with the usual model on any free port, makes a slide of noise, and
has several clients click on it at once. Before that it clicks on new spots until the caches are
full and memory grows no more, so that what grows afterwards is a leak. Of the clicks that count one
in 20 is on any spot, which may have to be encoded; the others are on spots that are in the cache.
Memory and file descriptors of the first and the last third are compared. With slow clients, the
time of a click is also measured while so many others send a byte a second. The exit code is 1 where
something failed.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.client import HTTPConnection
from itertools import takewhile
from pathlib import Path
from random import Random
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import psutil

from wsisam_qupath.files import cache_folder
from wsisam_qupath.slide.pyramid import write_pyramid

SIDE_PX = 2048
MORE_MEMORY_MAX = 0.1
"""The last third may take so much more than the first one."""

_WARM_UP_CLICKS = 40
"""On new spots, between two looks at memory."""

_WARM_UPS_MAX = 15

_FULL_MORE = 0.02
"""The caches are full when so many clicks take less than this share of memory more."""

_READY_SECONDS = 600
_QUIET_CLICKS = 15


class Server:
    """A server in a process of its own, and a slide for it."""

    def __init__(self, folder: Path, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self._file = folder / "server.json"
        self._slide = folder / "noise.tif"

    @property
    def connection(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self._file.read_bytes())
        return found

    def connect(self) -> HTTPConnection:
        parts = urlsplit(self.connection["url"])
        return HTTPConnection(str(parts.hostname), parts.port, timeout=300)

    def click(self, connection: HTTPConnection, x: float, y: float) -> float:
        """Seconds that a click took."""
        body = {
            "slide": {
                "uri": self._slide.as_uri(),
                "width": SIDE_PX,
                "height": SIDE_PX,
                "mpp_x": 0.5,
            },
            "prompts": [{"type": "Feature", "geometry": {"type": "Point", "coordinates": [x, y]}}],
        }
        headers = {
            "Authorization": f"Bearer {self.connection['token']}",
            "Content-Type": "application/json",
        }
        began = time.perf_counter()
        connection.request("POST", "/v1/segment", json.dumps(body), headers)
        answer = connection.getresponse()
        content = answer.read()
        if answer.status != 200:
            raise RuntimeError(f"{answer.status}: {content[:300]!r}")
        return time.perf_counter() - began

    def size(self) -> tuple[float, int]:
        """Memory in MB, and open file descriptors."""
        process = psutil.Process(self.process.pid)
        return process.memory_info().rss / 1e6, process.num_fds()

    def wait_until_ready(self) -> None:
        end = time.monotonic() + _READY_SECONDS
        while time.monotonic() < end:
            if self.process.poll() is not None:
                raise RuntimeError("The server ended.")
            with suppress(OSError, ValueError):
                connection = self.connect()
                connection.request("GET", "/healthz")
                if json.load(connection.getresponse())["state"] == "ready":
                    return
            time.sleep(0.5)
        raise RuntimeError("The server is not ready.")


@contextmanager
def serving() -> Iterator[Server]:
    with tempfile.TemporaryDirectory(prefix="soak-") as name:
        folder = Path(name)
        noise = np.random.default_rng(0).integers(0, 255, (SIDE_PX, SIDE_PX, 3), dtype=np.uint8)
        write_pyramid(folder / "noise.tif", noise, mpp=0.5)
        command = ("-m", "wsisam_qupath", "serve", "--port", "0")
        options = ("--token-file", str(folder / "server.json"), "--slides", str(folder))
        with (folder / "log.txt").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, *command, *options],
                stderr=log,
                # The user's cache, so that no model needs to be compiled.
                env={**os.environ, "HOME": name, "WSISAM_QUPATH_CACHE": str(cache_folder())},
            )
        server = Server(folder, process)
        try:
            server.wait_until_ready()
            yield server
        finally:
            process.terminate()
            code = process.wait(30)
            print(f"The server ended with {code}.")
            if "Traceback" in (folder / "log.txt").read_text(encoding="utf-8"):
                print((folder / "log.txt").read_text(encoding="utf-8")[-3000:])


def warm_up(server: Server) -> None:
    """Click on new spots until the caches are full."""
    random, connection = Random("warm up"), server.connect()
    before, began = server.size()[0], time.monotonic()
    clicks = 0
    while clicks < _WARM_UPS_MAX * _WARM_UP_CLICKS:
        for _ in range(_WARM_UP_CLICKS):
            server.click(connection, *any_spot(random))
        clicks, memory = clicks + _WARM_UP_CLICKS, server.size()[0]
        if memory < before * (1 + _FULL_MORE):
            break
        before = memory
    print(
        f"caches full after {clicks} clicks on new spots, {time.monotonic() - began:.0f} s: "
        f"{memory:.0f} MB",
        flush=True,
    )


def any_spot(random: Random) -> tuple[float, float]:
    """Level-0 px, not at the edge."""
    return random.uniform(50, SIDE_PX - 50), random.uniform(50, SIDE_PX - 50)


def soak(server: Server, clicks: int, clients: int, minutes: float) -> bool:
    """Whether nothing failed, and nothing grew, over so many clicks or such a time."""
    end = time.monotonic() + 60 * minutes
    left = takewhile(lambda _: time.monotonic() < end, range(clicks))
    lock, sizes = threading.Lock(), [server.size()]
    failures: list[str] = []
    seconds: list[float] = []

    def client(number: int) -> None:
        random, connection = Random(number), server.connect()
        while True:
            with lock:
                done = next(left, None)
            if done is None:
                return
            try:
                # Some places again and again, others new: both ways through the cache.
                spot = (900 + random.random() * 64, 900 + done % 7)
                seconds.append(server.click(connection, *(spot if done % 20 else any_spot(random))))
            except (OSError, RuntimeError) as exc:
                failures.append(str(exc))
                connection = server.connect()
            if done % 20 == 1:
                sizes.append(server.size())

    threads = [threading.Thread(target=client, args=(number,)) for number in range(clients)]
    began = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    third = max(1, len(sizes) // 3)
    first, last = sizes[:third], sizes[-third:]
    memory = [statistics.mean(one for one, _ in part) for part in (first, last)]
    files = [max(one for _, one in part) for part in (first, last)]
    print(
        f"{len(seconds)} clicks of {clients} clients in {time.monotonic() - began:.0f} s, "
        f"{len(failures)} failures; median {statistics.median(seconds):.3f} s, slowest "
        f"{max(seconds):.2f} s\n"
        f"memory, mean of the first and last third: {memory[0]:.0f} and {memory[1]:.0f} MB, peak "
        f"{max(one for one, _ in sizes):.0f} MB\n"
        f"file descriptors, most in the first and last third: {files[0]} and {files[1]}"
    )
    for failure in failures[:5]:
        print(failure)
    return (
        not failures and memory[1] <= memory[0] * (1 + MORE_MEMORY_MAX) and files[1] <= files[0] + 4
    )


def among_slow_clients(server: Server, count: int) -> bool:
    """Whether a click takes no more than twice its time while others send a byte a second."""
    quiet = typical_click(server)
    stop = threading.Event()
    dripping = threading.Thread(target=drip, args=(server, count, stop))
    dripping.start()
    time.sleep(3)
    try:
        among = typical_click(server)
    finally:
        stop.set()
        dripping.join()
    print(
        f"a click alone: {quiet:.3f} s; among {count} clients that send a byte a second: "
        f"{among:.3f} s (medians of {_QUIET_CLICKS})"
    )
    return among <= 2 * quiet


def typical_click(server: Server) -> float:
    """Each on a connection of its own, as by a client that has just started."""
    return statistics.median(
        server.click(server.connect(), 1000, 1000) for _ in range(_QUIET_CLICKS)
    )


def drip(server: Server, count: int, stop: threading.Event) -> None:
    """Half of them in the head of a request, half in its body; who is let go comes again."""
    parts = urlsplit(server.connection["url"])
    head = (
        "POST /v1/segment HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        f"Authorization: Bearer {server.connection['token']}\r\nContent-Length: 100000\r\n\r\n"
    ).encode()
    clients: list[socket.socket | None] = [None] * count
    while not stop.is_set():
        began = time.monotonic()
        for number, known in enumerate(clients):
            try:
                client = known or socket.create_connection((parts.hostname, parts.port), 5)
                if known is None:
                    client.sendall(head if number % 2 else b"GET / HTTP/1.1\r\nX: ")
                client.sendall(b"x")
                clients[number] = client
            except OSError:
                clients[number] = None
        stop.wait(max(0.0, 1 - (time.monotonic() - began)))
    for client in filter(None, clients):
        client.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clicks", type=int, default=3000)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--slow-clients", type=int, default=0)
    given = parser.parse_args()
    with serving() as server:
        print(f"once ready: {server.size()[0]:.0f} MB")
        is_well = True
        if given.slow_clients:
            is_well = among_slow_clients(server, given.slow_clients)
        if given.clicks:
            warm_up(server)
            is_well = soak(server, given.clicks, given.clients, given.minutes) and is_well
    sys.exit(not is_well)


if __name__ == "__main__":
    main()
