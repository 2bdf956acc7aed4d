"""CATCH at its size: 350 slides in folders by tumor, its names and split, both its files."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import shapely
from click import Command
from click.testing import CliRunner

from fixtures.coco_files import CATCH_CLASSES, write_slide_runner
from fixtures.models import PLAIN_BASE
from fixtures.training_data import tissue_of
from wsisam_qupath.slide.pool import MOST_OPEN
from wsisam_qupath.slide.pyramid import write_pyramid
from wsisam_qupath_training.cli.evaluate import evaluate_command
from wsisam_qupath_training.cli.train import train_command
from wsisam_qupath_training.recipes import override_numbers, read_recipe
from wsisam_qupath_training.sources.collection import Collection
from wsisam_qupath_training.sources.reading import DatasetOptions, read_dataset
from wsisam_qupath_training.trainer.training_data import open_data

pytestmark = pytest.mark.slow

RECIPE = Path(__file__).parents[2] / "training" / "recipes" / "paper.toml"
TUMORS = ("Histiocytoma", "MCT", "Melanoma", "PNST", "Plasmacytoma", "SCC", "Trichoblastoma")
PATIENTS = [
    (number, slide) for number in range(1, 49) for slide in (1, 2) if slide < 2 or number < 3
]
"""Of each tumor 50 slides of 48 patients: two patients have two."""

FEW_PATIENTS = [(1, 1), (34, 1), (39, 1)]
"""One of each part of the split."""

SIDE_PX, MPP = 1000, 0.25
OUTLINES_PER_SLIDE = 10


@dataclass(frozen=True)
class Catch:
    """The files, as they lie after a download."""

    json: Path
    sqlite: Path
    slides: Path
    split: Path

    @property
    def options(self) -> DatasetOptions:
        return DatasetOptions(slides=self.slides, split=self.split)

    def words(self, file: Path) -> list[str]:
        return [str(file), "--slides", str(self.slides), "--split", str(self.split)]


def rings() -> list[shapely.Polygon]:
    """Two places with five outlines each, one in the other."""
    centers = [(280, 300), (720, 690)]
    circles = [shapely.Point(c).buffer(r, 8) for c in centers for r in (200, 160, 120, 80, 40)]
    return list(shapely.transform(circles, np.rint))


def part_of(number: int) -> str:
    """Of each tumor 35 slides to train on, 5 to validate, 10 to test; patients stay together."""
    return "train" if number <= 33 else "val" if number <= 38 else "test"


@pytest.fixture(scope="module")
def catch(tmp_path_factory: pytest.TempPathFactory) -> Catch:
    return make_catch(tmp_path_factory.mktemp("CATCH"), PATIENTS)


def make_catch(folder: Path, patients: Sequence[tuple[int, int]]) -> Catch:
    """Slides of these patients of each tumor."""
    outlines = rings()
    write_pyramid(folder / "one.tif", tissue_of(outlines[::5], SIDE_PX, SIDE_PX), mpp=MPP)
    images: list[Any] = []
    annotations: list[Any] = []
    split = ["Slide;Dataset;Scanner"]
    for tumor in TUMORS:
        (folder / "slides" / tumor).mkdir(parents=True)
        for number, slide in patients:
            name = f"{tumor}_{number:02}_{slide}.svs"
            shutil.copy(folder / "one.tif", folder / "slides" / tumor / name)
            split.append(f"{name};{part_of(number)};ScanScope v1")
            images.append({"id": len(images) + 1, "file_name": name})
            for index, outline in enumerate(outlines):
                inner = outlines[index + 1].area if (index + 1) % 5 else 0.0
                xy = shapely.get_coordinates(outline)[:-1]
                annotations.append(
                    {
                        "id": len(annotations) + 1,
                        "image_id": len(images),
                        "category_id": 1 + index % len(CATCH_CLASSES),
                        "segmentation": xy.ravel().tolist(),
                        "area": outline.area - inner,
                    }
                )
    (folder / "one.tif").unlink()
    categories = [{"id": n, "name": name} for n, name in enumerate(CATCH_CLASSES, start=1)]
    document = {"images": images, "annotations": annotations, "categories": categories}
    file = folder / "CATCH.json"
    file.write_text(json.dumps(document), encoding="utf-8")
    (folder / "datasets.csv").write_text("\n".join(split), encoding="utf-8")
    return Catch(file, write_slide_runner(file), folder / "slides", folder / "datasets.csv")


@pytest.fixture(scope="module")
def collection(catch: Catch) -> Collection:
    return read_dataset(catch.json, options=catch.options)


def test_all_of_it_is_found_and_divided_as_its_table_says(collection: Collection) -> None:
    images = collection.dataset.images

    parts = [image.part for image in images]
    assert [parts.count("train"), parts.count("val"), parts.count("test")] == [245, 35, 70]
    assert sum(len(image.truths) for image in images) == 350 * OUTLINES_PER_SLIDE
    assert len({image.group for image in images}) == 7 * 48
    assert not collection.dataset.damaged


def test_each_outline_ends_where_an_inner_one_begins(collection: Collection) -> None:
    areas = [truth.l0_outline.area for truth in collection.dataset.images[0].truths]

    union = shapely.union_all([t.l0_outline for t in collection.dataset.images[0].truths])
    assert sum(areas) == pytest.approx(union.area)
    assert collection.dataset.notes == (
        "CATCH.json: inner outlines were cut out of 2800 outlines around them.",
    )


def test_the_database_says_the_same(catch: Catch, collection: Collection) -> None:
    found = read_dataset(catch.sqlite, options=catch.options).dataset

    assert found.images == collection.dataset.images


def test_few_slides_are_open_and_memory_is_bounded(catch: Catch, collection: Collection) -> None:
    recipe = override_numbers(read_recipe(RECIPE))

    with open_data(collection, recipe, PLAIN_BASE, limit_gb=20) as (parts, views):
        for data in parts.values():
            for slide in data.slides:
                slide.read(slide.l0_box, 64, 64)
        opened = [f for f in psutil.Process().open_files() if f.path.startswith(str(catch.slides))]
        images = [sample.image for sample in parts["train"].samples]

    assert len(opened) <= MOST_OPEN
    assert psutil.Process().memory_info().rss < 4 << 30
    # 4,900 views would need 33 GiB.
    assert (views.wanted, views.val) == (4900, 70)
    assert views.train < views.wanted
    assert views.n_bytes <= 20 << 30
    counts = np.bincount(images, minlength=245)
    assert counts.max() - counts.min() <= 1


def told(command: Command, *words: str) -> str:
    """What a command prints, in this process: the import of PyTorch takes seconds."""
    ran = CliRunner().invoke(command, words, catch_exceptions=False)
    assert ran.exit_code == 0
    return ran.stdout


@pytest.mark.parametrize(
    "patients",
    [
        pytest.param(FEW_PATIENTS, id="21 slides", marks=pytest.mark.walk),
        pytest.param(PATIENTS, id="350 slides", marks=pytest.mark.walk),
    ],
)
def test_it_is_planned_trained_killed_resumed_and_evaluated(
    tmp_path: Path, patients: Sequence[tuple[int, int]]
) -> None:
    catch = make_catch(tmp_path, patients)
    out, few = tmp_path / "mine.safetensors", tmp_path / "few.toml"
    text = RECIPE.read_text(encoding="utf-8")
    few.write_text(text.replace("validate_every = 700", "validate_every = 1"), encoding="utf-8")
    train = (
        *catch.words(catch.json), "-o", str(out), "--recipe", str(few), "--steps", "3",
        "--base", "lite-medsam", "--views", "3", "--cache", str(tmp_path / "cache"),
        "--threads", "1", "--device", "cpu",
    )  # fmt: skip

    planned = told(train_command, *train, "--plan")
    assert "Encoding: 12 patches" in planned
    assert "3 steps and 3 validations" in planned
    assert not (tmp_path / "cache").exists()
    assert not out.with_suffix(".training").exists()

    checkpoint = out.with_suffix(".training") / "wsi" / "checkpoint.pt"
    command = [sys.executable, "-m", "wsisam_qupath", "train", *train]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as first:
        while first.poll() is None and not checkpoint.exists():
            time.sleep(0.05)
        first.kill()
    assert checkpoint.exists()
    assert told(train_command, *train).strip() == str(out)

    evaluated = told(
        evaluate_command,
        str(catch.json), "--slides", str(catch.slides), "--split",
        str(out.with_suffix(".split.tsv")), "--kinds", "box", "--limit", "2", "--adapter",
        str(out), "--base", "lite-medsam", "--device", "cpu",
    )  # fmt: skip
    assert "2" in evaluated
