"""Write results as GeoJSON that QuPath reads: one feature per object."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias

from ..files import compress, write_atomically
from ..options import ObjectType
from ..prompts.results import Result
from .properties import make_classification
from .provenance import make_metadata
from .shapes import geometry_json, snap_to_grid

Feature: TypeAlias = dict[str, Any]
"""A GeoJSON feature, ready for a JSON writer."""


MEASUREMENTS = {
    "predicted_iou": "Predicted IoU",
    "stability_score": "Stability score",
    "area_um2": "Area µm^2",
}
"""QuPath's names of a result's measurements, by the fields of :class:`.Result`."""


def to_feature(result: Result, object_type: ObjectType) -> Feature:
    """Convert a result to a feature as QuPath writes it: valid, level-0 px with two decimals."""
    properties: Feature = {"objectType": object_type}
    if result.prompt.path_class is not None:
        properties["classification"] = make_classification(result.prompt.path_class)
    properties["isLocked"] = False
    measurements = {name: getattr(result, field) for field, name in MEASUREMENTS.items()}
    if result.rank is not None:
        measurements["Rank"] = result.rank
    properties["measurements"] = _drop_nonfinite(measurements)
    outline = snap_to_grid(result.polygon)
    properties["metadata"] = make_metadata(result, outline, object_type)
    geometry = geometry_json(outline, result.prompt.plane)
    return {"type": "Feature", "id": result.id, "geometry": geometry, "properties": properties}


def encode_features(
    features: Iterable[Feature], about: Mapping[str, object] | None = None
) -> Iterator[str]:
    """Encode a FeatureCollection, one feature per line, in ASCII: valid in any encoding.

    Args:
        about: members of the collection, written before the features.
    """
    head = json.dumps({"type": "FeatureCollection", **(about or {})}, allow_nan=False)
    yield f'{head[:-1]}, "features": ['
    for number, feature in enumerate(features):
        yield ",\n" if number else "\n"
        yield json.dumps(feature, allow_nan=False)
    yield "\n]}\n"


def write_features(path: str | os.PathLike[str], features: Iterable[Feature]) -> None:
    """Write a FeatureCollection to a file, completely or not at all.

    Args:
        path: file to write; compressed with gzip if its name ends in ``.gz``.

    Raises:
        OutputError: it cannot be written there; what was there before is untouched.
    """
    target = Path(path)
    encoded = (text.encode("ascii") for text in encode_features(features))
    is_packed = target.suffix.lower() == ".gz"
    write_atomically(target, compress(encoded) if is_packed else encoded)


def _drop_nonfinite(measurements: Mapping[str, float]) -> dict[str, float]:
    return {name: float(value) for name, value in measurements.items() if math.isfinite(value)}
