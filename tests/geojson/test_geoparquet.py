"""Results as GeoParquet, read back by geopandas."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import geopandas
import pyarrow.parquet
import pytest
from shapely.geometry import MultiPolygon, box, mapping

from wsisam_qupath.errors import OptionError, OutputError
from wsisam_qupath.geojson import Feature
from wsisam_qupath.geojson.geoparquet import write_geoparquet

HOLED = box(0, 0, 10, 10).difference(box(2, 2, 4, 4))
APART = MultiPolygon([box(20, 0, 30, 10), box(40, 0, 50, 10.25)])


def feature(number: int, outline: object = HOLED, **measured: float) -> Feature:
    return {
        "type": "Feature",
        "id": f"id {number}",
        "geometry": {**mapping(outline), "plane": {"c": -1, "z": 2, "t": 5}},
        "properties": {
            "objectType": "detection",
            "classification": {"name": "Tumor: Größe", "color": [1, 2, 3]},
            "measurements": {"Predicted IoU": 0.75, "Area µm^2": 25.0, **measured},
            "metadata": {"wsisam_prompt_id": f"prompt {number}", "wsisam_version": "1"},
        },
    }


def test_geopandas_reads_what_was_written(tmp_path: Path) -> None:
    path = tmp_path / "ü.parquet"

    write_geoparquet(path, [feature(1), feature(2, APART, Rank=2)])

    table = geopandas.read_parquet(path)
    assert table.crs is None
    assert all(one.equals(other) for one, other in zip(table.geometry, (HOLED, APART), strict=True))
    assert table.geometry.geom_type.tolist() == ["Polygon", "MultiPolygon"]
    assert table.stability_score.isna().all()
    assert table["rank"].fillna(0).tolist() == [0, 2]
    first = table.drop(columns=["geometry", "stability_score", "rank"]).iloc[0].to_dict()
    provenance = json.loads(first.pop("provenance"))
    assert provenance == {"wsisam_prompt_id": "prompt 1", "wsisam_version": "1"}
    assert first == {
        "id": "id 1",
        "prompt_id": "prompt 1",
        "object_type": "detection",
        "class_name": "Tumor: Größe",
        "predicted_iou": 0.75,
        "area_um2": 25.0,
        "z": 2,
        "t": 5,
    }


def test_no_outlines_are_an_empty_table(tmp_path: Path) -> None:
    write_geoparquet(tmp_path / "a.parquet", [])

    table = geopandas.read_parquet(tmp_path / "a.parquet")

    assert len(table) == 0
    assert table.geometry.name == "geometry"


@pytest.mark.slow
def test_many_outlines_are_written_group_by_group(tmp_path: Path) -> None:
    def many() -> Iterator[Feature]:
        return (feature(number) for number in range(20_000))

    path = tmp_path / "a.parquet"
    write_geoparquet(path, [])  # imports
    tracemalloc.start()
    try:
        write_geoparquet(path, many())
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert pyarrow.parquet.ParquetFile(path).num_row_groups == 5
    assert len(geopandas.read_parquet(path)) == 20_000
    assert peak_bytes < 32 << 20  # of all at once 60 MB


def test_a_failure_leaves_the_file_that_was_there(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    write_geoparquet(path, [feature(1)])
    before = path.read_bytes()

    def failing() -> Iterator[Feature]:
        yield feature(2)
        raise OSError(28, "No space left on device")

    with pytest.raises(OutputError, match="No space left"):
        write_geoparquet(path, failing())

    assert path.read_bytes() == before
    assert [one.name for one in tmp_path.iterdir()] == ["a.parquet"]


def test_without_pyarrow_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wsisam_qupath.geojson.geoparquet.find_spec", lambda _name: None)

    with pytest.raises(OptionError, match=r"the extra 'parquet' .* pip install pyarrow"):
        write_geoparquet(tmp_path / "a.parquet", [])

    assert not [*tmp_path.iterdir()]
