"""What the server adds to the engine, and what it saves against sending the viewport.

    python benchmarks/server.py [--rounds 9] [--requests 2000]

The server runs in a process of its own; this one is the client, over loopback. References: the
engine alone, in this process, on the same prompts; and `viewport_server.py`. Each figure is the
median of interleaved rounds. What is being measured is said on stderr, with the seconds since the
start.
"""

from __future__ import annotations

import argparse
import base64
import io
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from itertools import count
from pathlib import Path
from statistics import median
from typing import Any

import psutil
from PIL import Image
from rich.console import Console
from rich.table import Table

from speed import FIELD_MPP, FIELD_PX, hardware, large_field, random_adapter
from wsisam_qupath import Box, ModelSpec, Prompt, Segmenter, Slide, open_slide
from wsisam_qupath.inference.loading import resolve
from wsisam_qupath.slide.pyramid import write_pyramid

CLIENTS = 8
CLICKS_EACH = 12
STREAMED = 100
VIEWPORT_PX = (1200, 800)
READY_SECONDS = 300
MIB = 1 << 20

Boxes = Iterator[Box]


@dataclass(frozen=True)
class Server:
    """A running server.

    Attributes:
        process: as psutil sees it.
        port: on 127.0.0.1.
        token: empty where none is wanted.
    """

    process: psutil.Process
    port: int
    token: str = ""


class Client:
    """One connection, kept alive as QuPath's is."""

    def __init__(self, server: Server, slide: Path) -> None:
        self._server, self._slide = server, slide
        self._connection = HTTPConnection("127.0.0.1", server.port, timeout=READY_SECONDS)

    def segment(self, boxes: Sequence[Box], accept: str = "application/geo+json") -> Any:
        """Ask for the outlines in some boxes; the open answer."""
        asked = {
            "slide": {
                "uri": self._slide.as_uri(),
                "width": FIELD_PX,
                "height": FIELD_PX,
                "mpp_x": FIELD_MPP,
                "mpp_y": FIELD_MPP,
            },
            "prompts": [feature(box) for box in boxes],
        }
        headers = {
            "Authorization": f"Bearer {self._server.token}",
            "Content-Type": "application/json",
            "Accept": accept,
        }
        try:
            return self._asked(json.dumps(asked), headers)
        except ConnectionError:  # the server closes what is idle for some seconds
            self._connection.close()
            return self._asked(json.dumps(asked), headers)

    def _asked(self, body: str, headers: dict[str, str]) -> Any:
        self._connection.request("POST", "/v1/segment", body, headers)
        return self._connection.getresponse()

    def click(self, box: Box) -> int:
        """Ask for one outline and read it.

        Returns:
            The status; an answer of 200 without an outline counts as 204.
        """
        response = self.segment([box])
        answer = json.loads(response.read())
        if response.status != 200:
            return int(response.status)
        return 200 if answer["features"][0]["geometry"] else 204

    def first_of(self, boxes: Sequence[Box]) -> float:
        """Seconds until the first of many outlines is there. The others are not waited for.

        The client leaves then, and the server drops what it has not begun.
        """
        start = time.perf_counter()
        response = self.segment(boxes, "application/geo+json-seq")
        first = response.readline()
        taken = time.perf_counter() - start
        response.close()
        self._connection.close()
        assert json.loads(first.strip(b"\x1e"))["geometry"]
        return taken


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--requests", type=int, default=2000)
    given = parser.parse_args()
    tell("make the slide, load MobileSAM")
    table = Table("what", "ms", "reference", "ms", "ratio", "target", title=hardware())
    words: list[str] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = folder / "field.tiff"
        write_pyramid(path, large_field(), mpp=FIELD_MPP)
        adapter = random_adapter(folder / "random.safetensors")
        with open_slide(path) as slide, viewport_server() as viewports:
            for title, spec, target in (
                ("no adapter", ModelSpec(adapter=None), 5.0),
                ("an adapter that reads both patches", ModelSpec(adapter=adapter), 2.2),
            ):
                tell(f"load the model, {title}")
                engine = Segmenter(resolve(spec).load())
                with our_server(folder, spec) as server:
                    client = Client(server, path)
                    tell("single clicks")
                    for row in latency(client, engine, slide, title, given.rounds):
                        table.add_row(*row)
                    tell("the viewport as PNG, eager MobileSAM")
                    table.add_row(*against(viewports, client, slide, title, target, given.rounds))
                    if spec.adapter is None:
                        tell("the first of many streamed results")
                        table.add_row(*streaming(client, given.rounds))
                        tell(f"{CLIENTS} clients, {CLIENTS * CLICKS_EACH} clicks, then the engine")
                        words.append(crowd(server, path, engine, slide))
                        tell(f"memory, {given.requests} clicks")
                        words.append(memory(server, client, given.requests))
        tell("a full queue")
        with our_server(folder, ModelSpec(adapter=None), "--max-requests", "2") as server:
            words.append(refusal(server, path))
    Console(width=150).print(table)
    print("\n".join(words), flush=True)


def latency(
    client: Client, engine: Segmenter, slide: Slide, title: str, rounds: int
) -> Iterator[tuple[str, ...]]:
    """Rows of clicks on a cached and on a fresh spot, beside the engine alone."""
    same = Box(496, 596, 784, 1016)
    for what, ours, theirs in (
        ("cached", lambda: same, lambda: same),
        ("fresh", spots(0).__next__, spots(0).__next__),
    ):

        def served(box: Callable[[], Box] = ours) -> None:
            assert client.click(box()) == 200

        def alone(box: Callable[[], Box] = theirs) -> None:
            assert list(engine.segment(slide, [Prompt("click", l0_box=box())]))

        took, bare = in_turns(served, alone, rounds)
        limit = 1.3 * bare + 10
        yield (
            f"click on a {what} spot, {title}",
            f"{took:.1f}",
            "engine alone",
            f"{bare:.1f}",
            f"{took / bare:.2f}",
            f"≤ {limit:.1f} ms",
        )


def against(
    viewports: Server, client: Client, slide: Slide, title: str, target: float, rounds: int
) -> tuple[str, ...]:
    """A row of fresh spots, beside a PNG of the viewport sent to eager MobileSAM."""
    ours, theirs = spots(1), spots(1)

    def viewport() -> None:
        box = next(theirs)
        x0, y0 = box.center[0] - VIEWPORT_PX[0] / 2, box.center[1] - VIEWPORT_PX[1] / 2
        shown = Box(x0, y0, x0 + VIEWPORT_PX[0], y0 + VIEWPORT_PX[1])
        encoded = io.BytesIO()
        Image.fromarray(slide.read(shown, *VIEWPORT_PX)).save(encoded, format="PNG")
        picture = base64.b64encode(encoded.getvalue()).decode()
        sides = [box.x0 - x0, box.y0 - y0, box.x1 - x0, box.y1 - y0]
        connection = HTTPConnection("127.0.0.1", viewports.port)
        connection.request("POST", "/", json.dumps({"image": picture, "box": sides}))
        assert json.loads(connection.getresponse().read())["coordinates"]
        connection.close()

    def served() -> None:
        assert client.click(next(ours)) == 200

    took, other = in_turns(served, viewport, max(3, rounds // 2))
    return (
        f"fresh spot, {title}",
        f"{took:.1f}",
        "viewport as PNG, eager MobileSAM",
        f"{other:.1f}",
        f"{other / took:.1f} x faster",
        f"≥ {target} x",
    )


def streaming(client: Client, rounds: int) -> tuple[str, ...]:
    """A row of the first of many fresh results, beside a single one."""
    boxes = spots(2)
    firsts, singles = [], []
    for _ in range(max(3, rounds // 3)):
        client.click(next(boxes))  # so that nothing of the last round is still being computed
        singles.append(seconds(lambda: client.click(next(boxes))))
        firsts.append(client.first_of([next(boxes) for _ in range(STREAMED)]))
    first, single = 1000 * median(firsts), 1000 * median(singles)
    return (
        f"first of {STREAMED} streamed results",
        f"{first:.1f}",
        "a single one",
        f"{single:.1f}",
        f"{first / single:.2f}",
        "≤ 2",
    )


def crowd(server: Server, path: Path, engine: Segmenter, slide: Slide) -> str:
    """Several clients at once: whether all are answered, equally fast, and how many a second."""
    boxes = spots(3)
    work = [[next(boxes) for _ in range(CLICKS_EACH)] for _ in range(CLIENTS)]
    statuses: list[int] = []
    means = [0.0] * CLIENTS

    def clicks(number: int) -> None:
        client = Client(server, path)
        start = time.perf_counter()
        statuses.extend([client.click(box) for box in work[number]])
        means[number] = (time.perf_counter() - start) / CLICKS_EACH

    threads = [threading.Thread(target=clicks, args=(number,)) for number in range(CLIENTS)]
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    served = time.perf_counter() - start
    prompts = [Prompt(str(i), l0_box=box) for i, box in enumerate(b for some in work for b in some)]
    alone = seconds(lambda: [list(engine.segment(slide, [prompt])) for prompt in prompts])
    failed = sum(status >= 400 for status in statuses)
    return (
        f"{CLIENTS} clients, {CLICKS_EACH} fresh clicks each: {failed} failed, throughput "
        f"{alone / served:.2f} of the engine alone (target 0.9), slowest client's mean "
        f"{max(means) / min(means):.2f} x the fastest's"
    )


def memory(server: Server, client: Client, requests: int) -> str:
    """Resident memory after a tenth of many clicks, and after all; the cache is full before."""
    boxes = spots(4)
    nearby = [next(boxes) for _ in range(8)]
    sizes = []
    for number in range(requests):
        client.click(nearby[number % len(nearby)])
        if number + 1 in (requests // 10, requests):
            sizes.append(server.process.memory_info().rss / MIB)
    early, late = sizes
    return f"memory: {early:.0f} MiB after {requests // 10} requests, {late:.0f} after {requests}"


def refusal(server: Server, path: Path) -> str:
    """How fast a full queue says no."""
    boxes = spots(5)
    work = [next(boxes) for _ in range(40)]
    told: list[tuple[int, float]] = []

    def ask(box: Box) -> None:
        client = Client(server, path)
        start = time.perf_counter()
        status = client.click(box)
        told.append((status, 1000 * (time.perf_counter() - start)))

    threads = [threading.Thread(target=ask, args=(box,)) for box in work[:CLIENTS]]
    for thread in threads:
        thread.start()
        time.sleep(0.01)
    for thread in threads:
        thread.join()
    refused = [taken for status, taken in told if status == 503]
    if not refused:
        return "room for 2: nobody was refused"
    return (
        f"room for 2, {CLIENTS} at once: {len(refused)} refused, after {median(refused):.0f} ms in "
        f"the median and {max(refused):.0f} at most (target 50)"
    )


@contextmanager
def our_server(folder: Path, spec: ModelSpec, *options: str) -> Iterator[Server]:
    """`wsisam-qupath serve` on a free port, its model loaded."""
    connection = folder / f"server-{next(_numbers)}.json"
    adapter = "none" if spec.adapter is None else str(spec.adapter)
    command = [sys.executable, "-m", "wsisam_qupath", "serve", "--port", "0"]
    command += ["--slides", str(folder), "--token-file", str(connection), "--adapter", adapter]
    with subprocess.Popen([*command, *options], stderr=subprocess.DEVNULL) as process:
        try:
            while not connection.is_file():
                time.sleep(0.05)
            stated = json.loads(connection.read_text())
            server = Server(
                psutil.Process(process.pid),
                int(stated["url"].rpartition(":")[2]),
                stated["token"],
            )
            wait_until_ready(server.port)
            yield server
        finally:
            process.terminate()


_numbers = count()


def wait_until_ready(port: int) -> None:
    while True:
        connection = HTTPConnection("127.0.0.1", port)
        connection.request("GET", "/healthz")
        if json.loads(connection.getresponse().read())["state"] == "ready":
            return
        time.sleep(0.2)


@contextmanager
def viewport_server() -> Iterator[Server]:
    """The server to compare with."""
    command = [sys.executable, str(Path(__file__).with_name("viewport_server.py"))]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield Server(psutil.Process(process.pid), int(process.stdout.readline()))
        finally:
            process.terminate()


def spots(row: int) -> Boxes:
    """Boxes in places that no other row has, none on the patch pair of another."""
    columns = 24
    for number in count():
        x = 250.0 + 140 * (number % columns)
        y = 250.0 + 140 * ((5 * row + number // columns) % columns)
        yield Box(x, y, x + 200, y + 200)


def feature(box: Box) -> dict[str, Any]:
    """A rectangle as QuPath writes it."""
    ring = [[box.x0, box.y0], [box.x1, box.y0], [box.x1, box.y1], [box.x0, box.y1]]
    return {
        "type": "Feature",
        "id": f"00000000-0000-4000-8000-{next(_numbers):012d}",
        "geometry": {"type": "Polygon", "coordinates": [[*ring, ring[0]]]},
        "properties": {"objectType": "annotation"},
    }


def in_turns(
    one: Callable[[], object], other: Callable[[], object], rounds: int
) -> tuple[float, float]:
    """Medians of both in ms, in turns after one warm-up each."""
    times = [(seconds(one), seconds(other)) for _ in range(rounds + 1)][1:]
    first, second = zip(*times, strict=True)
    return 1000 * median(first), 1000 * median(second)


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def tell(what: str) -> None:
    """Say on stderr what comes next, and when."""
    print(f"{time.perf_counter() - _START:5.0f} s  {what}", file=sys.stderr, flush=True)


_START = time.perf_counter()


if __name__ == "__main__":
    main()
