"""What a few annotated objects are worth: trained from an adapter, tested on other patients.

    python benchmarks/few_objects.py DATA OUT [--dataset NAME] [--sizes 10 30 100]
    python benchmarks/few_objects.py DATA OUT --dataset glas --images NAME NAME NAME

DATA is anything that `train` reads; its images should be none that the adapter was trained on, as
its card tells. Of each dataset, half of the patients (slides, where patients are not known) are
trained on, with so many of their objects, spread over their images; the objects of the others are
the test. With ``--images`` all objects of those images are trained on, and the test is on the other
patients.

Each case is walked as a user does: an export, ``train`` and ``evaluate``; commands are printed.
What is finished is not done again, and what was stopped goes on, so that the same command goes on
where it stopped. Options after ``--`` are passed to ``train``, such as ``-- --minutes 20``.
"""

from __future__ import annotations

import argparse
import csv
import json
import shlex
import subprocess
import sys
import time
import uuid
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

from shapely.geometry import mapping

from wsisam_qupath.files import write_atomically
from wsisam_qupath.geojson import write_features
from wsisam_qupath.geojson.manifest import ExportedImage, Manifest, write_manifest
from wsisam_qupath_training.dataset import AnnotatedImage
from wsisam_qupath_training.evaluate.choosing import limit_objects
from wsisam_qupath_training.evaluate.measures import Estimate, estimate
from wsisam_qupath_training.evaluate.protocol import BOX_AND_POINTS, POINT_COUNTS, points_label
from wsisam_qupath_training.evaluate.record import hardware
from wsisam_qupath_training.sources.reading import read_dataset

LABELS = ("box", *map(points_label, POINT_COUNTS), BOX_AND_POINTS, "outline")
ADAPTER = "tuned"
"""Its name in the table of ``evaluate``."""


@dataclass(frozen=True)
class Case:
    """One training: a dataset, and what of it is annotated."""

    dataset: str
    name: str
    train: tuple[AnnotatedImage, ...]
    test: tuple[AnnotatedImage, ...]

    @property
    def objects(self) -> int:
        return sum(len(image.truths) for image in self.train)


@dataclass(frozen=True)
class Row:
    """One kind of prompt of a case; Dice in percent. Minutes are of the last run of ``train``."""

    dataset: str
    case: str
    objects: int
    images: int
    prompt: str
    start: float
    tuned: float
    gain: float
    low: float | None
    high: float | None
    test_objects: int
    test_patients: int
    train_minutes: float


def main() -> None:
    words = sys.argv[1:]
    own, passed = words, []
    if "--" in words:
        own, passed = words[: words.index("--")], words[words.index("--") + 1 :]
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--dataset", nargs="+", help="of a collection; default: all")
    parser.add_argument("--sizes", type=int, nargs="+", default=[10, 30, 100])
    parser.add_argument("--images", nargs="+", help="train on all objects of these, in one case")
    parser.add_argument("--limit", type=int, default=60, help="objects to test on, of each case")
    parser.add_argument("--init", default="default", help="adapter to start from")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int)
    given = parser.parse_args(own)
    print(json.dumps(hardware()))
    rows: list[Row] = []
    for case in _list_cases(given):
        rows += _measure(case, given, passed)
        content = {"hardware": hardware(), "options": passed, "rows": [asdict(row) for row in rows]}
        write_atomically(given.out / "few_objects.json", json.dumps(content, indent=1).encode())
    _print_table(rows)


def _list_cases(given: argparse.Namespace) -> Iterator[Case]:
    by_dataset: defaultdict[str, list[AnnotatedImage]] = defaultdict(list)
    for image in read_dataset(given.data).dataset.images:
        if image.truths and (given.dataset is None or image.dataset in given.dataset):
            by_dataset[image.dataset].append(image)
    for dataset, images in by_dataset.items():
        if given.images:
            train = tuple(image for image in images if image.name in given.images)
            if train:
                yield Case(dataset, "images", train, _list_others(images, train))
            continue
        groups = sorted({image.group for image in images})
        half = groups[: (len(groups) + 1) // 2]
        train = tuple(image for image in images if image.group in half)
        for size in given.sizes:
            if size <= sum(len(image.truths) for image in train):
                few = tuple(
                    replace(one.image, truths=one.truths)
                    for one in limit_objects(train, size, given.seed)
                )
                yield Case(dataset, f"{size}", few, _list_others(images, train))


def _list_others(
    images: Sequence[AnnotatedImage], train: Sequence[AnnotatedImage]
) -> tuple[AnnotatedImage, ...]:
    """Images of the patients that are not trained on."""
    groups = {image.group for image in train}
    return tuple(image for image in images if image.group not in groups)


def _measure(case: Case, given: argparse.Namespace, passed: Sequence[str]) -> list[Row]:
    if not case.test:
        print(f"{case.dataset}, {case.name}: no patient is left to test on.")
        return []
    folder = given.out / case.dataset / case.name
    adapter, result, clock = (folder / name for name in ("tuned.safetensors", "test.json", "clock"))
    threads = ["--threads", str(given.threads)] if given.threads else []
    for part, images in (("train", case.train), ("test", case.test)):
        _write_export(folder / part, images)
    if not clock.is_file():  # else it is finished
        began = time.monotonic()
        _run(
            *("train", str(folder / "train"), "-o", str(adapter), "--init", given.init),
            *("--groups", str(folder / "train" / "patients.csv"), "--seed", str(given.seed)),
            *threads,
            *passed,
        )
        write_atomically(clock, f"{(time.monotonic() - began) / 60:.1f}".encode())
    if not result.is_file():
        start = [] if given.init == "none" else ["--compare", given.init]
        _run(
            *("evaluate", str(folder / "test"), "--part", "all", "--json", str(result)),
            *("--groups", str(folder / "test" / "patients.csv"), "--limit", str(given.limit)),
            *("--kinds", "box,points,box+points,outline", "--adapter", str(adapter)),
            *(start or ["--compare", "none"]),
            *threads,
        )
    return list(_read_rows(case, json.loads(result.read_bytes()), float(clock.read_text())))


def _write_export(folder: Path, images: Sequence[AnnotatedImage]) -> None:
    """The images as an export of QuPath, with a table of their patients."""
    folder.mkdir(parents=True, exist_ok=True)
    entries = []
    for number, image in enumerate(images, start=1):
        features: list[Any] = [
            {
                "type": "Feature",
                "id": str(uuid.uuid5(uuid.NAMESPACE_OID, f"{image.name}/{truth.id}")),
                "geometry": mapping(truth.l0_outline),
                "properties": {
                    "objectType": "annotation",
                    "classification": {"name": truth.class_name, "color": [0, 200, 0]},
                },
            }
            for truth in image.truths
        ]
        with image.slide.open() as slide:
            uri = Path(image.slide.location).as_uri()
            entry = ExportedImage(
                str(number), image.name, f"{image.name}.geojson", uri, slide.width_px,
                slide.height_px, slide.mpp.x, slide.mpp.y, {}, len(features), 0, {},
            )  # fmt: skip
        write_features(folder / entry.file, features)
        entries.append(entry)
    write_manifest(folder, Manifest(tuple(entries)))
    with (folder / "patients.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, delimiter=";").writerows((image.name, image.group) for image in images)


def _run(*words: str) -> None:
    """Run a command of this program, and print it."""
    print(f"$ wsisam-qupath {shlex.join(words)}", flush=True)
    done = subprocess.run([sys.executable, "-m", "wsisam_qupath", *words], check=False)
    if done.returncode:
        sys.exit(done.returncode)


def _read_rows(case: Case, record: Mapping[str, Any], minutes: float) -> Iterator[Row]:
    dices: defaultdict[str, dict[tuple[str, str, str], dict[str, float]]] = defaultdict(dict)
    for answer in record["answers"]:
        key = (answer["group"], answer["field"], answer["object_id"])
        dices[answer["prompt"]].setdefault(key, {})[answer["model"]] = answer["dice"]
    (start,) = [model["name"] for model in record["models"] if model["name"] != ADAPTER]
    for label in LABELS:
        own = dices[label]
        gain = _estimate_gain(own, start)
        yield Row(
            case.dataset,
            case.name,
            case.objects,
            len(case.train),
            label,
            100 * fmean(one[start] for one in own.values()),
            100 * fmean(one[ADAPTER] for one in own.values()),
            100 * gain.mean,
            None if gain.low is None else 100 * gain.low,
            None if gain.high is None else 100 * gain.high,
            gain.objects,
            gain.groups,
            minutes,
        )


def _estimate_gain(
    dices: Mapping[tuple[str, str, str], Mapping[str, float]], start: str
) -> Estimate:
    """With the interval over patients; over objects where there is one patient."""
    patients = [group for group, _, _ in dices]
    groups = patients if len(set(patients)) > 1 else list(range(len(patients)))
    return estimate([one[ADAPTER] - one[start] for one in dices.values()], groups)


def _print_table(rows: Sequence[Row]) -> None:
    print("| dataset | objects (images) | prompt | start | tuned | gain, 95 % interval | minutes |")
    print("|---|---|---|---|---|---|---|")
    for row in rows:
        interval = "" if row.low is None else f" [{row.low:+.1f}, {row.high:+.1f}]"
        print(
            f"| {row.dataset} | {row.objects} ({row.images}) | {row.prompt} | {row.start:.1f} | "
            f"{row.tuned:.1f} | {row.gain:+.1f}{interval} | {row.train_minutes} |"
        )


if __name__ == "__main__":
    main()
