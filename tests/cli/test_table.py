"""``segment --table``: each slide by itself, any job again, several jobs at once."""

from __future__ import annotations

import csv
import gzip
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pytest
import shapely
import tifffile
from shapely.geometry import shape

from fixtures.command_line import (
    GLAND,
    Answer,
    environment,
    features_of,
    rectangle,
    run,
    run_here,
    write_prompts,
)
from wsisam_qupath.cli.segment_run import LoadedModel
from wsisam_qupath.cli.table_row import record_loss
from wsisam_qupath.inference.backends import ImageArray
from wsisam_qupath.options import FORMAT_ENDINGS
from wsisam_qupath.project.slide_table.rows import TableRow
from wsisam_qupath.project.slide_table.status import SlideFiles, SlideStatus, read_states
from wsisam_qupath.slide.pyramid import write_pyramid

KILL = getattr(signal, "SIGKILL", signal.SIGTERM)
NAMES = ["a", "b", "c"]

Tables = dict[str, Any]


@pytest.fixture(scope="module")
def slides(tmp_path_factory: pytest.TempPathFactory, tissue: ImageArray) -> Path:
    """Three small slides with one rectangle each."""
    folder = tmp_path_factory.mktemp("slides")
    for number, name in enumerate(NAMES):
        write_pyramid(folder / f"{name}.tif", np.roll(tissue, 40 * number, axis=1), mpp=0.5)
        write_prompts(folder / f"{name}.geojson", [rectangle(f"gland of {name}", GLAND)])
    return folder


def table_of(folder: Path, slides: Path, names: Iterable[str] = NAMES) -> Path:
    path = folder / "slides.csv"
    lines = [f"{slides / name}.tif,{slides / name}.geojson" for name in names]
    path.write_text("\n".join(["slide,prompts", *lines, ""]), encoding="utf-8")
    return path


def segment(capfd: pytest.CaptureFixture[str], table: Path, *options: object) -> Answer:
    return run_here(capfd, "segment", "--table", table, "-o", table.parent / "out", *options)


def status_of(folder: Path, name: str) -> Tables:
    found: Tables = json.loads((folder / f"{name}.status.json").read_bytes())
    return found


def count_outlines(path: Path) -> int:
    if path.suffix == ".parquet":
        return len(geopandas.read_parquet(path))
    content = path.read_bytes()
    text = gzip.decompress(content) if path.suffix == ".gz" else content
    return len(json.loads(text)["features"])


def files_of(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {p.name: (p.read_bytes(), p.stat().st_mtime_ns) for p in folder.iterdir()}


@pytest.mark.slow
def test_each_slide_gets_outlines_and_a_status_and_is_done_once(
    capfd: pytest.CaptureFixture[str], tmp_path: Path, slides: Path
) -> None:
    table, out = table_of(tmp_path, slides), tmp_path / "out"

    first = segment(capfd, table)
    before = files_of(out)
    second = segment(capfd, table)

    assert (first.code, second.code) == (0, 0), first.err + second.err
    assert "3 slides: 3 done." in first.err
    assert "3 slides: 3 done before." in second.err
    assert files_of(out) == before
    assert sorted(before) == sorted(
        f"{n}.{end}" for n in NAMES for end in ("geojson", "status.json")
    )
    for name in NAMES:
        (feature,) = features_of(out / f"{name}.geojson")
        assert feature["properties"]["metadata"]
        status = status_of(out, name)
        assert (status["state"], status["prompts"], status["outlined"]) == ("done", 1, 1)


@pytest.mark.slow
def test_what_changed_is_done_again_and_what_is_bad_fails_alone(
    capfd: pytest.CaptureFixture[str], tmp_path: Path, slides: Path
) -> None:
    table, out = table_of(tmp_path, slides), tmp_path / "out"
    table.write_text(table.read_text() + f"{slides / 'gone'}.tif,{slides / 'a'}.geojson\n")

    first = segment(capfd, table)
    (out / "b.geojson").write_text("{}")
    again = segment(capfd, table)
    summary = segment(capfd, table, "--summarize")

    assert (first.code, again.code, summary.code) == (3, 3, 3)
    assert "gone failed (slides.csv, line 5): " in first.err
    assert "4 slides: 1 done, 2 done before, 1 failed." in again.err
    assert len(features_of(out / "b.geojson")) == 1
    with (out / "summary.csv").open(encoding="utf-8", newline="") as file:
        states = {one["name"]: one["state"] for one in csv.DictReader(file)}
    assert states == {"a": "done", "b": "done", "c": "done", "gone": "failed"}


@pytest.mark.slow
def test_shards_share_the_slides(
    capfd: pytest.CaptureFixture[str], tmp_path: Path, slides: Path
) -> None:
    table, out = table_of(tmp_path, slides), tmp_path / "out"

    one = segment(capfd, table, "--shard", "1/2")
    assert sorted(p.name for p in out.glob("*.geojson")) == ["a.geojson", "c.geojson"]
    other = segment(capfd, table, "--shard", "2/2")

    assert "2 slides: 2 done." in one.err, one.err
    assert "1 slide: 1 done." in other.err, other.err
    assert {status_of(out, name)["state"] for name in NAMES} == {"done"}


@pytest.mark.slow
def test_two_jobs_at_once_do_each_slide_once(tmp_path: Path, slides: Path) -> None:
    table, out = table_of(tmp_path, slides), tmp_path / "out"

    with ThreadPoolExecutor(2) as jobs:
        started = [jobs.submit(run, "segment", "--table", table, "-o", out) for _ in range(2)]
        answers = [job.result() for job in started]

    assert [one.code for one in answers] == [0, 0], answers[0].err + answers[1].err
    told = "".join(one.err for one in answers)
    assert [told.count(f"{name}: 1 outlined") for name in NAMES] == [1, 1, 1]
    assert {status_of(out, name)["state"] for name in NAMES} == {"done"}


@pytest.mark.slow
def test_workers_give_the_same_results(
    capfd: pytest.CaptureFixture[str], tmp_path: Path, slides: Path
) -> None:
    table, out = table_of(tmp_path, slides), tmp_path / "out"

    with_workers = segment(capfd, table, "--workers", "2")
    shared = {name: features_of(out / f"{name}.geojson") for name in NAMES}
    alone = segment(capfd, table, "--no-resume")

    assert (with_workers.code, alone.code) == (0, 0), with_workers.err + alone.err
    assert "3 slides: 3 done." in alone.err
    for name in NAMES:
        (one,), (other,) = shared[name], features_of(out / f"{name}.geojson")
        assert one["id"] == other["id"]


@pytest.mark.slow
def test_other_formats_and_labels_are_added_without_the_model(
    capfd: pytest.CaptureFixture[str],
    tmp_path: Path,
    slides: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    table, out = table_of(tmp_path, slides, "ab"), tmp_path / "out"
    first = segment(capfd, table, "--format", "geojson.gz")
    (feature,) = json.loads(gzip.decompress((out / "a.geojson.gz").read_bytes()))["features"]
    monkeypatch.setattr(LoadedModel, "load", None)

    more = segment(capfd, table, "--format", "geoparquet", "--labels")
    again = segment(capfd, table, "--format", "geoparquet", "--labels")
    back = segment(capfd, table, "--format", "geojson")

    assert [one.code for one in (first, more, again, back)] == [0] * 4, more.err + back.err
    assert "2 slides: 2 done." in more.err
    assert "2 slides: 2 done before." in again.err
    outline = geopandas.read_parquet(out / "a.parquet").geometry.iloc[0]
    assert outline.equals(shape(feature["geometry"]))
    assert features_of(out / "a.geojson") == [feature]
    labels = tifffile.imread(out / "a.labels.ome.tif")
    rows, columns = np.nonzero(labels)
    assert np.all(shapely.contains_xy(outline, columns + 0.5, rows + 0.5))
    assert len(rows) == pytest.approx(outline.area, rel=0.02)
    assert [*status_of(out, "a")["outputs"]] == [
        ".geojson.gz", ".parquet", ".labels.ome.tif", ".geojson",
    ]  # fmt: skip


@pytest.mark.slow
def test_outlines_that_cannot_be_read_back_are_made_again(
    capfd: pytest.CaptureFixture[str], tmp_path: Path, slides: Path
) -> None:
    table, out = table_of(tmp_path, slides, "a"), tmp_path / "out"
    segment(capfd, table, "--format", "geoparquet")
    before = geopandas.read_parquet(out / "a.parquet")

    again = segment(capfd, table, "--format", "geojson")

    assert "1 slide: 1 done." in again.err
    assert [one["id"] for one in features_of(out / "a.geojson")] == before["id"].tolist()
    assert [*status_of(out, "a")["outputs"]] == [".geojson"]


@pytest.mark.slow
@pytest.mark.walk
def test_a_dask_cluster_shares_the_slides_and_gives_the_same_results(
    capfd: pytest.CaptureFixture[str], tmp_path: Path, slides: Path
) -> None:
    distributed = pytest.importorskip("distributed", reason="no dask: pip install distributed")
    table, out = table_of(tmp_path, slides), tmp_path / "out"
    table.write_text(table.read_text() + f"{slides / 'gone'}.tif,{slides / 'a'}.geojson\n")

    with distributed.LocalCluster(2, threads_per_worker=1, dashboard_address=None) as cluster:
        address = cluster.scheduler_address
        there = segment(capfd, table, "--dask", address, "--labels")
        again = segment(capfd, table, "--dask", address, "--labels")
    shared = {name: features_of(out / f"{name}.geojson") for name in NAMES}
    here = segment(capfd, table, "--no-resume")

    assert (there.code, here.code) == (3, 3)
    assert "4 slides: 3 done, 1 failed." in there.err
    assert "gone failed (slides.csv, line 5): " in there.err
    assert "4 slides: 3 done before, 1 failed." in again.err
    assert "4 slides: 3 done, 1 failed." in here.err
    assert all((out / f"{name}.labels.ome.tif").exists() for name in NAMES)
    for name in NAMES:
        (one,), (other,) = shared[name], features_of(out / f"{name}.geojson")
        assert one["id"] == other["id"]


def test_what_a_lost_worker_had_done_stays_done(tmp_path: Path) -> None:
    done, lost, held = (TableRow(2, f"/{n}.tif", Path("p"), n) for n in ("done", "lost", "held"))
    SlideFiles(tmp_path, "done").write_status(SlideStatus("done", "/done.tif", "done"))

    with SlideFiles(tmp_path, "held").hold():
        outcomes = [record_loss(tmp_path, row, "It ended.") for row in (done, lost, held)]

    assert [one.state for one in outcomes] == ["failed", "failed", "taken by another job"]
    assert [one.state for one in read_states(tmp_path, [done, lost, held])] == [
        "done", "failed", "waiting",
    ]  # fmt: skip
    assert status_of(tmp_path, "lost")["reason"] == "It ended."


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="kill -9")
@pytest.mark.parametrize("ending", [".geojson.gz", ".parquet"])
def test_a_job_that_was_killed_goes_on_in_its_slide(
    tmp_path: Path, slides: Path, ending: str
) -> None:
    many = [rectangle(f"box {n}", (n, n, n + 150, n + 150)) for n in range(0, 300, 10)]
    packed = gzip.compress(write_prompts(tmp_path / "many.geojson", many).read_bytes())
    (tmp_path / "many.geojson.gz").write_bytes(packed)
    table, out = tmp_path / "slides.csv", tmp_path / "out"
    table.write_text(
        f"slide,prompts\n{slides}/a.tif,{slides}/a.geojson\n{slides}/b.tif,many.geojson.gz\n"
    )
    (format_name,) = (name for name, one in FORMAT_ENDINGS.items() if one == ending)
    options = ["--table", table, "-o", out, "--format", format_name, "--labels"]
    command = [sys.executable, "-m", "wsisam_qupath", "segment", *options]
    part = out / f"b{ending}.part"

    with (tmp_path / "log").open("wb") as log:
        job = subprocess.Popen([*map(str, command)], stderr=log, env=environment())
        while not (part.exists() and part.read_bytes().count(b"\n") > 3):
            assert job.poll() is None, (tmp_path / "log").read_text()
            time.sleep(0.01)
        job.send_signal(KILL)
        job.wait()
    assert SlideFiles(out, "b").read_status().state == "running"  # type: ignore[union-attr]
    stopped = run("segment", "--table", table, "-o", out, "--summarize")
    again = run(*command[3:])

    assert "1 done, 1 stopped." in stopped.err
    assert again.code == 0, again.err
    assert "prompts were answered by a run that was stopped" in again.err
    assert "2 slides: 1 done, 1 done before." in again.err
    status = status_of(out, "b")
    assert [*status["outputs"]] == [ending, ".labels.ome.tif"]
    assert sorted(one.name for one in out.glob("b.*")) == sorted(
        f"b{one}" for one in (*status["outputs"], ".status.json")
    )
    assert count_outlines(out / f"b{ending}") == status["outlined"] > 20


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ((), "there is nothing to outline"),
        (("a.tif", "--shard", "1/2"), "it is about the slides of a table"),
        (("a.tif", "--summarize"), "it is about the slides of a table"),
        (("a.tif", "--dask", "tcp://a:1"), "it is about the slides of a table"),
        (("--table", "t.csv", "-o", "out", "--dask", "a", "--workers", "2"), "cannot be combined"),
        (("a.tif", "--table", "t.csv", "-o", "out"), "it is about one slide"),
        (("--table", "t.csv"), "name the folder for the results"),
        (("--table", "t.csv", "-o", "-"), "name the folder for the results"),
        (("--table", "t.csv", "-o", "out", "--point", "1,2"), "it is about one slide"),
        (("--table", "t.csv", "-o", "out", "--shard", "3/2"), "is not of the form I/N"),
        (("--table", "t.csv", "-o", "out", "--shard", "0/2"), "is not of the form I/N"),
        (("--table", "none.csv", "-o", "out"), "cannot be read"),
    ],
)
def test_options_that_do_not_go_together_are_one_sentence(
    capfd: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: tuple[str, ...],
    words: str,
) -> None:
    monkeypatch.chdir(tmp_path)

    answer = run_here(capfd, "segment", *options)

    assert answer.code == 2
    assert words in answer.err
    assert "Traceback" not in answer.err
