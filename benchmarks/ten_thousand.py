"""What a project of ten thousand images costs the driver of a batch: per image, and in memory.

    python benchmarks/ten_thousand.py [--parts driver engine resume] [--sizes 100 1000 10000]
        [--whole 1000] [--slice 500] [--engine 40] [--done 9000] [--folder FOLDER]

Needs a QuPath. A project with one image is made by ``create``, and its rectangle is answered by
``segment --table`` and, in a copy, by ``batch``, with the real model. The projects to measure have
many entries of that image, each with a name, a slide (a hard link) and copies of the files that
were written for the first: so their making takes seconds, and their results are real.

Part "driver", of each size: ``batch --dry-run`` and ``batch --from``, which reads, checks, backs
up, writes and reads back every image, as ``batch`` does, and encodes nothing: that is the driver's
own cost. In projects larger than --whole, only --slice of the images are processed, which shows
what grows with the project for each image, but not memory. Part "engine": the real model on
--engine images, against the model alone. Part "resume": in the largest project, of which --done
images are done, how long it takes after a ``kill -9`` until the same command has outlined the next
image. With --folder the first image is kept there, and the parts may be run one by one.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import psutil

from speed import FIELD_MPP, hardware, large_field
from wsisam_qupath import Box, Prompt, open_slide
from wsisam_qupath.geojson import write_features
from wsisam_qupath.inference.tasks import load_segmenter, serialize_results
from wsisam_qupath.slide.pyramid import write_pyramid

SIDE_PX = 512
RECTANGLE = (150, 150, 350, 350)
ID = "00000001-2fa1-51d2-883f-0016d3cca427"
ENDINGS = (".geojson", ".status.json")
PROMPT = Prompt(ID, l0_box=Box(*RECTANGLE))
HISTORY = Path("wsisam-qupath") / "history"
TENTH = 10
OF_AN_IMAGE = re.compile(r"\[\d+/\d+\] ")
PARTS = ("driver", "engine", "resume")


@dataclass(frozen=True)
class Template:
    """One image: as it was drawn, and as it was answered.

    Attributes:
        slide: its file.
        project: content of its ``project.qpproj``.
        drawn, done: folders of two projects with it.
        results: of ``segment --table``.
    """

    slide: Path
    project: dict[str, Any]
    drawn: Path
    done: Path
    results: Path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--sizes", type=int, nargs="+", default=[100, 1000, 10_000])
    parser.add_argument(
        "--whole", type=int, default=1000, help="largest size that is all processed"
    )
    parser.add_argument("--slice", type=int, default=500, help="images of larger ones, in tens")
    parser.add_argument("--engine", type=int, default=40, help="images for the model, in tens")
    parser.add_argument("--done", type=int, default=9000)
    parser.add_argument("--folder", type=Path, help="keeps the first image for other calls")
    given = parser.parse_args()
    print(hardware())
    with ExitStack() as stack:
        kept = given.folder or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        template = find_template(kept / "template") or make_template(kept / "template")
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=kept)))
        if "driver" in given.parts:
            for size in given.sizes:
                processed = size if size <= given.whole else given.slice
                measure_size(folder / str(size), template, size, processed)
        if "engine" in given.parts:
            measure_engine(folder / "engine", template, given.engine)
        if "resume" in given.parts:
            largest = max(given.sizes)
            measure_resume(folder / "resume", template, largest, min(given.done, largest - 10))


def find_template(folder: Path) -> Template | None:
    """The one that an earlier call made."""
    slides, drawn, done, results = list_template(folder)
    if not (done / HISTORY / "1.json").exists():  # which is written last
        return None
    slide = slides / name_image(0)
    project = json.loads((drawn / "project.qpproj").read_bytes())
    return Template(slide, project, drawn, done, results)


def list_template(folder: Path) -> tuple[Path, Path, Path, Path]:
    slides, drawn, done, results = (folder / n for n in ("slides", "drawn", "done", "results"))
    return slides, drawn, done, results


def make_template(folder: Path) -> Template:
    """One image, with the real model."""
    slides, drawn, done, results = list_template(folder)
    slides.mkdir(parents=True)
    slide, prompts = slides / name_image(0), slides / f"{name_image(0)}.geojson"
    write_pyramid(slide, large_field()[:SIDE_PX, :SIDE_PX], mpp=FIELD_MPP)
    x0, y0, x1, y1 = RECTANGLE
    ring = [[x0, y0], [x1, y0], [x1, y1], [x0, y1], [x0, y0]]
    geometry = {"type": "Polygon", "coordinates": [ring]}
    write_features(prompts, [{"type": "Feature", "id": ID, "geometry": geometry, "properties": {}}])
    run("create", drawn, "--images", slide, "--annotations", prompts)
    shutil.copytree(drawn, done)
    table = folder / "slides.csv"
    run("batch", drawn, "--to-table", table)
    run("segment", "--table", table, "-o", results)
    run("batch", done)
    template = find_template(folder)
    assert template is not None
    return template


def name_image(number: int) -> str:
    return f"image{number:05d}.tif"


def make_project(folder: Path, template: Template, count: int, *, done: int = 0) -> Path:
    """A project of copies of the image, of which the first ones are done."""
    project, slides = folder / "project", folder / "slides"
    for one in (project, slides):
        one.mkdir(parents=True)
    shutil.copytree(template.drawn / "classifiers", project / "classifiers")
    (entry,) = template.project["images"]
    entries = []
    for number in range(count):
        slide = slides / name_image(number)
        os.link(template.slide, slide)
        text = json.dumps(entry)
        text = text.replace(template.slide.as_posix(), slide.as_posix())
        text = text.replace(name_image(0), name_image(number))
        entries.append({**json.loads(text), "entryID": number + 1})
        source = template.done if number < done else template.drawn
        shutil.copytree(source / "data" / "1", project / "data" / str(number + 1))
        if number < done:
            (project / HISTORY).mkdir(parents=True, exist_ok=True)
            shutil.copy(source / HISTORY / "1.json", project / HISTORY / f"{number + 1}.json")
    content = {**template.project, "images": entries, "lastID": count}
    content["uri"] = (project / "project.qpproj").as_uri()
    (project / "project.qpproj").write_text(json.dumps(content), encoding="utf-8")
    return project


def make_results(folder: Path, template: Template, count: int) -> Path:
    """What ``segment --table`` would have left of a project."""
    results = folder / "results"
    results.mkdir()
    for number in range(count):
        for ending in ENDINGS:
            text = (template.results / f"{name_image(0)}{ending}").read_text("utf-8")
            path = results / f"{name_image(number)}{ending}"
            path.write_text(
                text if ending == ".geojson" else text.replace(name_image(0), name_image(number)),
                encoding="utf-8",
            )
    return results


def measure_size(folder: Path, template: Template, size: int, processed: int) -> None:
    project = make_project(folder, template, size)
    results = make_results(folder, template, size)
    chosen = [] if processed == size else [f"--images={one}" for one in list_patterns(processed)]
    for options in (["--dry-run"], ["--from", results]):
        cost = watch(processed, "batch", project, *options, *chosen)
        print(f"{size:,} images, `batch {options[0]}` of {processed:,}: {cost}", flush=True)
    shutil.rmtree(folder)


def list_patterns(count: int) -> list[str]:
    """Names of the first images, in tens."""
    return [f"image{ten:04d}?.tif" for ten in range(count // 10)]


class Use(NamedTuple):
    """What a command has used at one moment.

    Attributes:
        told: images that it told of.
        driver, everything: CPU seconds of the command itself, and with QuPath's process.
        driver_mib, all_mib: memory, likewise.
    """

    told: int
    driver: float
    everything: float
    driver_mib: float
    all_mib: float


@dataclass(frozen=True)
class Cost:
    """What a command took.

    Attributes:
        seconds: by the clock.
        cpu: seconds of all of its processes.
        images: how many it processed.
        told: seconds until it told of each image.
        uses: twice a second.
    """

    seconds: float
    cpu: float
    images: int
    told: tuple[float, ...]
    uses: tuple[Use, ...]

    def __str__(self) -> str:
        driver_mib, all_mib = (max(one[place] for one in self.uses) for place in (3, 4))
        text = (
            f"{self.seconds:.1f} s, {self.cpu:.1f} CPU s ({self.uses[-1].driver:.1f} without "
            f"QuPath), {1e3 * self.cpu / self.images:.0f} CPU ms an image, "
            f"peak {driver_mib:.0f} MiB, with QuPath {all_mib:.0f} MiB"
        )
        if len(self.told) < 2 * TENTH:
            return text
        tenth = len(self.told) // TENTH
        first, last = self.count_cpu(1, tenth), self.count_cpu(-tenth, 0)
        return (
            f"{text}; first image after {self.told[0]:.1f} s, then {1e3 * first / tenth:.0f} CPU "
            f"ms each in the first tenth, {1e3 * last / tenth:.0f} in the last"
        )

    def count_cpu(self, start: int, end: int) -> float:
        """CPU seconds between two images, about; not positive ones are counted from the end."""
        total = len(self.told)
        places = [one if one > 0 else total + one for one in (start, end)]
        told, first = np.unique([one.told for one in self.uses], return_index=True)
        used = np.maximum.accumulate([one.everything for one in self.uses])  # QuPath ends first
        before, after = np.interp(places, told, used[first])
        return float(after - before)


def watch(images: int, *arguments: object) -> Cost:
    """Run a command to its end, and follow what it uses and what it tells of images."""
    used, start, uses = cpu_of_children(), time.perf_counter(), []
    with tempfile.TemporaryFile() as out, begin(*arguments, stdout=out) as child:
        told: list[float] = []
        listener = threading.Thread(target=lambda: collect(times_of_images(child), told))
        listener.start()
        while child.poll() is None:
            with suppress(psutil.Error):  # it has just ended
                uses.append(look_at(child.pid, len(told)))
            time.sleep(0.5)
        listener.join()
    if child.returncode:
        raise RuntimeError(f"{arguments} ended with {child.returncode}")
    seconds = time.perf_counter() - start
    since = tuple(one - start for one in told)
    return Cost(seconds, cpu_of_children() - used, images, since, tuple(uses))


def collect(coming: Iterator[float], into: list[float]) -> None:
    for one in coming:
        into.append(one)  # one by one, since another thread looks how many there are


def look_at(pid: int, told: int) -> Use:
    process = psutil.Process(pid)
    below = process.children(recursive=True)
    (own, own_mib), *others = [measure(one) for one in (process, *below)]
    return Use(
        told,
        own,
        own + sum(cpu for cpu, _ in others),
        own_mib,
        own_mib + sum(mib for _, mib in others),
    )


def measure(process: psutil.Process) -> tuple[float, float]:
    """CPU seconds of a process, and MiB that it has in memory."""
    with process.oneshot():
        times = process.cpu_times()
        return times.user + times.system, process.memory_info().rss / 2**20


def begin(*arguments: object, stdout: Any = subprocess.DEVNULL) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "wsisam_qupath", *map(str, arguments)]
    return subprocess.Popen(command, stdout=stdout, stderr=subprocess.PIPE, text=True)


def run(*arguments: object) -> None:
    command = [sys.executable, "-m", "wsisam_qupath", *map(str, arguments)]
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL)


def times_of_images(child: subprocess.Popen[str], what: str = "") -> Iterator[float]:
    """When a batch told of each of its images, or of those with these words."""
    assert child.stderr is not None
    for line in child.stderr:
        if OF_AN_IMAGE.match(line) and what in line:
            yield time.perf_counter()


def cpu_of_children() -> float:
    used = os.times()
    return used.children_user + used.children_system


def measure_engine(folder: Path, template: Template, count: int) -> None:
    """``batch`` with the real model, against the same prompts without QuPath."""
    project = make_project(folder, template, count)
    cost = watch(count, "batch", project)
    segmenter = load_segmenter()
    took = []
    for slide_path in sorted((folder / "slides").iterdir()):
        with open_slide(slide_path) as slide:
            start = time.perf_counter()
            found = [*serialize_results(segmenter.segment(slide, [PROMPT]), "detection")]
            took.append(time.perf_counter() - start)
            assert found[0].feature is not None
    alone = sum(took[1:]) * count / (count - 1)  # the first one warms up
    print(f"{count} images, `batch` with the model: {cost}")
    print(
        f"the model alone on these images: {alone:.1f} s, so the rest is "
        f"{1e3 * (cost.told[-1] - cost.told[0] - alone) / (count - 1):.0f} ms an image",
        flush=True,
    )
    shutil.rmtree(folder)


def measure_resume(folder: Path, template: Template, size: int, done: int) -> None:
    """How long a command takes to outline the next image after it was killed."""
    project = make_project(folder, template, size, done=done)
    for number, what in enumerate(("first start", "after kill -9")):
        start = time.perf_counter()
        with begin("batch", project) as child:
            times = times_of_images(child, "1 outlined")
            seconds = next(times) - start
            if not number:
                next(times)  # so that it is in the middle of the work
            child.kill()
        print(f"{size:,} images, {done:,} done, {what}: outlines after {seconds:.1f} s", flush=True)


if __name__ == "__main__":
    main()
