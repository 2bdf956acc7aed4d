"""Write results as GeoParquet, a table that geopandas, QGIS, DuckDB and R read."""

from __future__ import annotations

import json
from collections.abc import Iterable
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any

import shapely
from shapely.geometry import shape

from ..errors import OptionError, pip_install
from ..files import open_atomically
from .properties import read_class_name, read_object_type, read_plane
from .provenance import PROMPT_KEY
from .writing import MEASUREMENTS, Feature

_ROWS_AT_ONCE = 4096
"""Rows of a group, which are in memory together."""

_GEO = {
    "version": "1.1.0",
    "primary_column": "geometry",
    "columns": {
        "geometry": {
            "encoding": "WKB",
            "geometry_types": ["Polygon", "MultiPolygon"],
            "crs": None,  # pixels of a slide are no place on earth
        }
    },
}


def check_geoparquet() -> None:
    """Check that the packages for GeoParquet are installed.

    Raises:
        OptionError: pyarrow is not installed.
    """
    if find_spec("pyarrow") is None:
        raise OptionError(
            "format",
            "GeoParquet needs pyarrow, which the extra 'parquet' of this program brings: run "
            f"{pip_install('pyarrow')}.",
        )


def write_geoparquet(path: Path, features: Iterable[Feature]) -> None:
    """Write results to a GeoParquet file, completely or not at all.

    A row per feature, in their order. Columns: ``id``, ``prompt_id``, ``object_type``,
    ``class_name``, ``predicted_iou`` (0 to 1), ``stability_score`` (0 to 1), ``area_um2`` (µm²),
    ``rank`` (from 1, where a click has several outlines), ``z`` and ``t`` (plane of a stack, from
    0), ``provenance`` (JSON: how it was made) and ``geometry`` (level-0 px, WKB). What a feature
    lacks is null.

    Args:
        features: results as :func:`.to_feature` makes them.

    Raises:
        OptionError: pyarrow is not installed.
        OutputError: it cannot be written there; what was there before is untouched.
    """
    check_geoparquet()
    import pyarrow
    from pyarrow import parquet

    schema = _make_schema(pyarrow)
    rows = map(_make_row, features)
    with (
        open_atomically(path) as file,
        parquet.ParquetWriter(file, schema, compression="zstd") as writer,
    ):
        while some := list(islice(rows, _ROWS_AT_ONCE)):
            writer.write_table(pyarrow.Table.from_pylist(some, schema))


def _make_schema(pyarrow: Any) -> Any:
    text, number = pyarrow.string(), pyarrow.float64()
    columns = {
        "id": text,
        "prompt_id": text,
        "object_type": text,
        "class_name": text,
        **dict.fromkeys(MEASUREMENTS, number),
        "rank": pyarrow.int8(),
        "z": pyarrow.int32(),
        "t": pyarrow.int32(),
        "provenance": text,
        "geometry": pyarrow.binary(),
    }
    return pyarrow.schema(list(columns.items()), {"geo": json.dumps(_GEO)})


def _make_row(feature: Feature) -> dict[str, object]:
    properties = feature["properties"]
    metadata = properties.get("metadata") or {}
    measured = properties.get("measurements") or {}
    plane = read_plane(feature["geometry"].get("plane"))
    return {
        "id": feature["id"],
        "prompt_id": metadata.get(PROMPT_KEY),
        "object_type": read_object_type(feature),
        "class_name": read_class_name(feature),
        **{column: measured.get(name) for column, name in MEASUREMENTS.items()},
        "rank": _read_rank(measured),
        "z": plane.z,
        "t": plane.t,
        "provenance": json.dumps(metadata),
        "geometry": shapely.to_wkb(shape(feature["geometry"])),
    }


def _read_rank(measured: dict[str, float]) -> int | None:
    rank = measured.get("Rank")
    return None if rank is None else int(rank)
