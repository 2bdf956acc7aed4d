"""Measure live mode and *Segment all* in QuPath's own window, with mouse and keys.

    python benchmarks/window.py SLIDE [--clicks 10] [--prompts 500]

Starts QuPath on a screen that nobody sees (Xvfb), clicks at places of the slide that the server has
not seen, at the same places again, and at new ones after the mouse has rested for half a second.
The times are those of the script's own log: from QuPath's event of the pressed mouse to the end
of the painting that shows the outline; how much of that QuPath took until it told of the new
point; how long the script took to put down what is drawn; and how long the answer took. Then it
segments many rectangles, and pings the window's thread all the while: the longest wait of a ping is
how long the window did not respond, and the most that its thread computed between two pings is how
much of that is not other work on the machine. Needs QuPath, Xvfb, openbox, xdotool and wmctrl. One
line per question on stdout.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from fixtures.qupath_fixtures import make_project
from fixtures.qupath_window import State, Window, open_window
from wsisam_qupath.qupath.install.program import find_command
from wsisam_qupath.qupath.jvm.process import QuPathProcess

_TIMES = re.compile(
    r"Outline drawn (\d+) ms after the mouse: .* after (\d+) ms, .* (\d+) ms .* (\d+) ms"
)
_LOG_IT = (
    "org.slf4j.LoggerFactory.getLogger('wsi-sam').setLevel(ch.qos.logback.classic.Level.DEBUG)"
)
_PING = """
    def longest = System.properties['wsisam.longest'] = [wall: 0L, own: 0L]
    Thread.startDaemon {
        def threads = java.lang.management.ManagementFactory.threadMXBean
        long before = 0
        while (System.properties.containsKey('wsisam.longest')) {
            long asked = System.nanoTime()
            def look = { [System.nanoTime(), threads.currentThreadCpuTime] }
            def pinged = new java.util.concurrent.FutureTask(
                look as java.util.concurrent.Callable)
            javafx.application.Platform.runLater(pinged)
            def (answered, used) = pinged.get()
            longest.wall = Math.max(longest.wall, (answered - asked).intdiv(1_000_000))
            if (before)
                longest.own = Math.max(longest.own, (used - before).intdiv(1_000_000))
            before = used
            Thread.sleep(2)
        }
    }
"""
_TELL = """
    def longest = System.properties.remove('wsisam.longest')
    println "longest $longest.wall ms, $longest.own ms"
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("slide", type=Path)
    parser.add_argument("--clicks", type=int, default=10)
    parser.add_argument("--prompts", type=int, default=500)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="window-") as name, QuPathProcess() as qupath:
        folder = Path(name)
        slide = Path(shutil.copy(given.slide, folder / given.slide.name))
        project = qupath.run(make_project, folder / "project", [slide])
        note = folder / ".wsisam-qupath" / "program.json"
        note.parent.mkdir()
        note.write_text(json.dumps({"command": find_command()}))
        with open_window(folder, project, slide.name) as window:
            print(f"added to QuPath's start: {window.state()['added_ms']} ms")
            measure_clicks(window, given.clicks)
            measure_many(window, given.prompts)


def measure_clicks(window: Window, count: int) -> None:
    window.run(_LOG_IT)
    window.show(1100, 1400, 2)
    window.press_button()
    window.wait(lambda s: "ready" in (s["line"] or ""), "a server that started by itself")
    window.choose_points_tool()
    # Left of the overview map in the upper right corner, which takes clicks for itself.
    places = [(450 + 200 * (n % 5), 1000 + 180 * (n // 5)) for n in range(2 * count)]
    print("clicks | mouse to painted, ms: median, largest | QuPath's event | script | answer")
    tell("fresh spot", click(window, places[:count]))
    tell("cached spot", click(window, [(x + 30, y + 30) for x, y in places[:count]]))
    tell("fresh, rested 0.5 s", click(window, places[count:], rest_s=0.5))


def click(
    window: Window, places: list[tuple[int, int]], rest_s: float = 0
) -> list[tuple[int, int, int, int]]:
    found: list[tuple[int, int, int, int]] = []
    for x, y in places:
        window.keys("Return")
        before = len(_TIMES.findall(window.log))
        if rest_s:
            window.hover(x, y)
            time.sleep(rest_s)
        window.click(x, y)

        def is_timed(_: State, before: int = before) -> bool:
            return len(_TIMES.findall(window.log)) > before

        window.wait(is_timed, "the painted outline")
        found.append(tuple(map(int, _TIMES.findall(window.log)[-1])))  # type: ignore[arg-type]
        time.sleep(0.5)
    return found


def tell(what: str, found: list[tuple[int, int, int, int]]) -> None:
    whole, *parts = zip(*found, strict=True)
    medians = " | ".join(f"{median(part):.0f}" for part in parts)
    print(f"{what} | {median(whole):.0f}, {max(whole)} | {medians}")


def measure_many(window: Window, count: int) -> None:
    window.press_button()
    window.wait(lambda s: s["line"] is None, "the end of live mode")
    window.run(
        "def all = viewer.getHierarchy(); all.clearAll();"
        f"all.addObjects((0..<{count}).collect {{"
        "qupath.lib.objects.PathObjects.createAnnotationObject(qupath.lib.roi.ROIs"
        ".createRectangleROI(1000 + 24 * (it % 25), 1700 + 30 * it.intdiv(25), 18, 24,"
        " viewer.getImagePlane())) })"
    )
    window.run(_PING)
    time.sleep(3)
    window.run(_TELL)
    window.run(_PING)
    start = time.monotonic()
    window.choose("Segment all")
    window.wait(lambda s: any("WSI-SAM" in step for step in s["steps"]), "all outlines")
    seconds = time.monotonic() - start
    window.run(_TELL)
    time.sleep(1)
    (idle, idle_own), (busy, busy_own) = re.findall(r"longest (\d+) ms, (\d+) ms", window.log)
    print(f"{count} prompts in {seconds:.0f} s")
    print("window | longest wait, ms | of that computing, ms")
    print(f"while idle | {idle} | {idle_own}")
    print(f"Segment all | {busy} | {busy_own}")


if __name__ == "__main__":
    main()
