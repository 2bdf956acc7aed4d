"""The rows of a report, for every file format. No I/O."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TypeAlias

from ..geojson import Feature
from ..geojson.writing import MEASUREMENTS
from ..prompts.results import Scalar
from .outcome import ImageOutcome, PromptRow

Row: TypeAlias = dict[str, Scalar]

_OF_IMAGE = ("image", "image_id", "image_state", "image_reason", "slide")
_OF_PROMPT = ("prompt_id", "kind", "class", "state", "reason", "z", "t")
_OF_OUTLINE = ("result_id", "predicted_iou", "stability_score", "area_um2")
_OF_PLACE = ("x0_px", "y0_px", "x1_px", "y1_px")

COLUMNS = (*_OF_IMAGE[:3], *_OF_PROMPT, *_OF_OUTLINE, *_OF_PLACE, *_OF_IMAGE[3:])
"""The keys of every row.

``reason`` says why a prompt has no outline, ``image_reason`` why an image failed, both with the
fix. ``x0_px`` and so on are the bounding box of prompt and outline, level-0 px.
"""


@dataclass(frozen=True)
class ReportHeader:
    """What a report says about the whole run.

    Attributes:
        project: name of the project.
        version: version of this program.
        adapter: name of the adapter; None without one.
        options: names and values as the user gave them.
        started: time when the run began, with its time zone.
    """

    project: str
    version: str
    base: str
    adapter: str | None
    device: str
    backend: str
    options: Mapping[str, Scalar]
    started: datetime
    seconds: float


def make_rows(outcomes: Iterable[ImageOutcome]) -> list[Row]:
    """Make one row per prompt, and one per image without prompts; absent values are None."""
    return [make_row(image, row) for image in outcomes for row in image.rows or (None,)]


def make_row(image: ImageOutcome, row: PromptRow | None) -> Row:
    """Make the row of a prompt, with the keys of :data:`COLUMNS`."""
    values: Row = dict.fromkeys(COLUMNS)
    values |= {
        "image": image.name,
        "image_id": image.id,
        "image_state": image.state,
        "image_reason": image.reason or None,
        "slide": None if image.slide is None else str(image.slide),
    }
    if row is not None:
        values |= _prompt_part(row)
    return values


def _prompt_part(row: PromptRow) -> Row:
    part: Row = {
        "prompt_id": row.prompt_id,
        "kind": row.prompt.kind.value if row.prompt else None,
        "class": row.path_class.name if row.path_class else None,
        "state": row.state,
        "reason": row.reason or None,
        "z": row.plane.z,
        "t": row.plane.t,
    }
    if row.feature is not None:
        part |= _read_measurements(row.feature)
    if (box := row.l0_bounds) is not None:
        corners = (round(corner, 2) for corner in (box.x0, box.y0, box.x1, box.y1))
        part |= zip(_OF_PLACE, corners, strict=True)
    return part


def _read_measurements(feature: Feature) -> Row:
    measurements = feature["properties"].get("measurements", {})
    part: Row = {"result_id": feature["id"]}
    for column, name in MEASUREMENTS.items():
        value = float(measurements.get(name, math.nan))
        part[column] = round(value, 4) if math.isfinite(value) else None
    return part
