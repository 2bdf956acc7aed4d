"""``segment`` in other formats than plain GeoJSON: the same outlines, read by what people use."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import geopandas
import numpy as np
import pytest
import tifffile

from fixtures.command_line import GLAND, features_of, identity, rectangle, run_here, write_prompts

LUMEN = (272, 0, 388, 198)


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    drawn = [rectangle(identity(1), GLAND, "Gland"), rectangle(identity(2), LUMEN)]
    return write_prompts(tmp_path / "prompts.geojson", drawn)


@pytest.mark.slow
def test_the_name_of_the_output_decides_the_format_and_all_say_the_same(
    capfd: pytest.CaptureFixture[str], tmp_path: Path, tissue_path: Path, prompts: Path
) -> None:
    packed_prompts = tmp_path / "prompts.geojson.gz"
    packed_prompts.write_bytes(gzip.compress(prompts.read_bytes()))
    plain, packed, table = (
        tmp_path / f"out{one}" for one in (".geojson", ".geojson.gz", ".parquet")
    )

    answers = [
        run_here(capfd, "segment", tissue_path, prompts, "-o", plain, "--labels"),
        run_here(capfd, "segment", tissue_path, packed_prompts, "-o", packed),
        run_here(capfd, "segment", tissue_path, packed_prompts, "-o", table),
    ]

    assert [one.code for one in answers] == [0, 0, 0], answers
    features = features_of(plain)
    assert len(features) == 2
    assert json.loads(gzip.decompress(packed.read_bytes()))["features"] == features
    frame = geopandas.read_parquet(table)
    assert frame["id"].tolist() == [one["id"] for one in features]
    areas = [one["properties"]["measurements"]["Area µm^2"] for one in features]
    assert frame.area_um2.tolist() == areas
    labels = tifffile.imread(tmp_path / "out.labels.ome.tif")
    gland, lumen = frame.geometry  # the smaller one is on top
    in_px = [gland.difference(lumen).area, lumen.area]
    assert np.bincount(labels.ravel())[1:] == pytest.approx(in_px, rel=0.02)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--format", "geoparquet"), "geoparquet needs a file"),
        (("--format", "geojson.gz", "-o", "-"), "geojson.gz needs a file"),
        (("--format", "geojson.gz", "-o", "a.geojson"), "let the name end in .geojson.gz"),
        (("--format", "geojson", "-o", "a.parquet"), "let the name end in .geojson for geojson"),
        (("--labels",), "name a file as the output"),
        (("--labels", "-o", "none/a.geojson"), "There is no folder"),
        (("--labels", "-o", "a.geojson", "--overlay", "a.labels.ome.tif"), "would replace"),
    ],
)
def test_what_cannot_be_written_is_said_before_anything_starts(
    capfd: pytest.CaptureFixture[str],
    tmp_path: Path,
    tissue_path: Path,
    prompts: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: tuple[str, ...],
    words: str,
) -> None:
    monkeypatch.chdir(tmp_path)

    answer = run_here(capfd, "segment", tissue_path, prompts, *options)

    assert answer.code == 2
    assert words in answer.err
    assert [one.name for one in tmp_path.iterdir()] == ["prompts.geojson"]


def test_geoparquet_without_pyarrow_names_the_extra(
    capfd: pytest.CaptureFixture[str],
    tmp_path: Path,
    tissue_path: Path,
    prompts: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("wsisam_qupath.geojson.geoparquet.find_spec", lambda _name: None)
    table = tmp_path / "slides.csv"
    table.write_text(f"slide,prompts\n{tissue_path},{prompts}\n")
    many = ("--table", table, "-o", tmp_path / "out", "--format", "geoparquet")

    for options in ((tissue_path, prompts, "-o", tmp_path / "a.parquet"), many):
        answer = run_here(capfd, "segment", *options)

        assert answer.code == 2
        assert "--format: GeoParquet needs pyarrow, which the extra 'parquet'" in answer.err
