"""How fast slides are shown in a browser: tiles per second on one core, and the first view.

    python benchmarks/browser.py SLIDE [--rounds 3] [--mpp 0.5]

`wsisam-qupath view` runs in a process of its own that is kept on one core, and this one asks for
each tile of the slide once, over four connections as the page does. The first view is what a
Chromium says of itself, from the call of the address to the last tile of the window; it is started
when the server says its address, on all cores. Each round is a new server.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from shutil import which
from statistics import median
from typing import Any
from urllib.parse import quote, urlsplit

import psutil

from speed import hardware
from wsisam_qupath.server.viewer.tiles import TILE_PX, TilePyramid

CONNECTIONS = 4
QUIET_SECONDS = 2.0
PATIENCE_SECONDS = 120.0


@dataclass(frozen=True)
class Shown:
    """A running server.

    Attributes:
        address: of the page, with the token.
    """

    process: psutil.Process
    address: str

    def connect(self) -> HTTPConnection:
        return HTTPConnection(urlsplit(self.address).netloc, timeout=PATIENCE_SECONDS)

    def ask(self, connection: HTTPConnection, path: str) -> bytes:
        token = urlsplit(self.address).fragment.removeprefix("token=")
        connection.request("GET", path, headers={"Authorization": f"Bearer {token}"})
        response = connection.getresponse()
        content = response.read()
        assert response.status == 200, content
        return content


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("slide", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--mpp", type=float, help="of a slide that states none")
    given = parser.parse_args()
    options = [] if given.mpp is None else ["--mpp", str(given.mpp)]
    print(hardware())
    rates, views = [], []
    for _ in range(given.rounds):
        with tempfile.TemporaryDirectory() as folder:
            with shown(given.slide, Path(folder), options) as server:
                views.append(first_view(server))
            with shown(given.slide, Path(folder), options) as server:
                rates.append(tiles_per_second(server, given.slide.name))
    print(f"tiles on one core: {list_all(rates, 1)} per second (target 30)")
    print(f"first view in Chromium: {list_all(views, 2)} s (target 1)")


def list_all(values: Sequence[float | None], digits: int) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return "no Chromium, or no selenium;"
    each = ", ".join(f"{value:.{digits}f}" for value in known)
    return f"{median(known):.{digits}f} (median of {each})"


def tiles_per_second(server: Shown, name: str) -> float:
    """Ask for all tiles of a slide, the coarse ones first."""
    connection = server.connect()
    while json.loads(server.ask(connection, "/healthz"))["state"] == "loading":
        time.sleep(0.2)
    server.process.cpu_affinity([0])
    about = json.loads(server.ask(connection, f"/view/slide?slide={quote(name)}"))
    paths = list(list_tiles(about))
    parts = [paths[number::CONNECTIONS] for number in range(CONNECTIONS)]

    def ask_all(part: list[str]) -> None:
        own = server.connect()
        for path in part:
            server.ask(own, f"{path}?slide={quote(name)}")

    start = time.perf_counter()
    with ThreadPoolExecutor(CONNECTIONS) as threads:
        list(threads.map(ask_all, parts))
    taken = time.perf_counter() - start
    print(f"{len(paths)} tiles in {taken:.2f} s", flush=True)
    return len(paths) / taken


def list_tiles(about: dict[str, Any]) -> Iterator[str]:
    pyramid = TilePyramid(about["slide"]["width"], about["slide"]["height"])
    for level in range(about["first_level"], about["top_level"] + 1):
        width, height = pyramid.size_px(level)
        for row in range(-(-height // TILE_PX)):
            for column in range(-(-width // TILE_PX)):
                yield f"/view/tiles/{level}/{column}/{row}"


def first_view(server: Shown) -> float | None:
    """Seconds from the call of the page to its last tile; None without a Chromium."""
    try:
        from selenium.webdriver import Chrome, ChromeOptions
        from selenium.webdriver.chrome.service import Service
    except ImportError:
        return None
    driver = which("chromedriver")
    if driver is None:
        return None
    options = ChromeOptions()
    for argument in ("headless=new", "no-sandbox", "disable-gpu", "disable-dev-shm-usage"):
        options.add_argument(f"--{argument}")
    options.add_argument("--window-size=1280,850")
    browser = Chrome(options=options, service=Service(driver))
    try:
        browser.get(server.address)
        ends: list[float] = []
        until = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < until:
            time.sleep(QUIET_SECONDS)
            before, ends = (
                ends,
                browser.execute_script(
                    "return performance.getEntriesByType('resource')"
                    ".filter(e => e.name.includes('/tiles/')).map(e => e.responseEnd)"
                ),
            )
            if ends and len(before) == len(ends):
                return max(ends) / 1000
        return None
    finally:
        browser.quit()


@contextmanager
def shown(slide: Path, folder: Path, options: Sequence[str]) -> Iterator[Shown]:
    """`wsisam-qupath view` on a free port, once it answers."""
    log = folder / "log.txt"
    command = [sys.executable, "-m", "wsisam_qupath", "view", str(slide), "--no-browser", *options]
    with log.open("wb") as stderr, subprocess.Popen(command, stderr=stderr) as process:
        try:
            while (found := re.search(r"Open (\S+)\n", log.read_text())) is None:
                assert process.poll() is None, log.read_text()
                time.sleep(0.02)
            yield Shown(psutil.Process(process.pid), found[1])
        finally:
            process.terminate()


if __name__ == "__main__":
    main()
