"""The metadata of a result: how it was made, and how it looked when it was written."""

from __future__ import annotations

import json
from typing import Any

import shapely
from shapely.geometry import MultiPolygon, Polygon

from ..files.formats import RESULT
from ..options import ObjectType
from ..prompts import Point, Prompt
from ..prompts.results import Result

PROMPT_KEY = "wsisam_prompt_id"
"""Metadata key that marks program-made results."""

DRAWN_KEY = "wsisam_drawn"
CLASS_KEY = "wsisam_class"
TYPE_KEY = "wsisam_type"
ASKED_KEY = "wsisam_asked"
"""Metadata key of what was drawn to ask for a result; see :func:`describe_question`."""

SEARCH_KEY = "wsisam_search"
"""Metadata key of the id of the search over a project that found an object."""

_TOLERANCE_PX = 0.02
"""Largest difference of bounds and lengths that count as equal, px: QuPath keeps coordinates as
float32 and writes them with two decimals."""

_FLOAT32_STEP = 2.0**-23


def make_metadata(
    result: Result, l0_geometry: Polygon | MultiPolygon, object_type: ObjectType
) -> dict[str, str]:
    """Make the metadata of a result: strings only, as QuPath keeps them.

    Args:
        l0_geometry: the outline as it is written, level-0 px.
    """
    provenance, path_class = result.provenance, result.prompt.path_class
    values = {
        PROMPT_KEY: result.prompt.id,
        TYPE_KEY: object_type,
        CLASS_KEY: path_class.name if path_class else None,
        DRAWN_KEY: sign_outline(l0_geometry),
        ASKED_KEY: describe_question(result.prompt),
        "wsisam_base": provenance.base,
        "wsisam_base_sha256": provenance.base_sha256,
        "wsisam_adapter": provenance.adapter,
        "wsisam_adapter_sha256": provenance.adapter_sha256,
        "wsisam_hr_mpp": f"{provenance.hr_mpp:.6g}",
        "wsisam_lr_mpp": None if provenance.lr_mpp is None else f"{provenance.lr_mpp:.6g}",
        "wsisam_patch": provenance.patch,
        "wsisam_version": provenance.version,
        # The floats are those of the device; int8 answers differ from all of them.
        "wsisam_precision": "int8" if provenance.precision == "int8" else None,
        "wsisam_answers": str(provenance.answers),
        RESULT.key: str(RESULT.number),
    }
    return {name: value for name, value in values.items() if value is not None}


def add_client(feature: dict[str, Any], client_name: str) -> dict[str, Any]:
    """Add to the provenance of a result who asked a server for it, if that is known.

    Returns:
        The same feature.
    """
    metadata = feature["properties"].get("metadata")
    if client_name and metadata is not None:
        metadata["wsisam_client"] = client_name
    return feature


def describe_question(prompt: Prompt) -> str:
    """Describe what was drawn to mark an object, so that a later prompt can be compared with it.

    That is the signature of its rectangle or outline, the points inside and outside of it, and the
    signature of the background.
    """
    area = prompt.l0_box.polygon if prompt.l0_box else prompt.l0_outline
    question = {
        "area": None if area is None else sign_outline(area),
        "inside": _round_points(prompt.l0_positives),
        "outside": _round_points(prompt.l0_negatives),
    }
    if prompt.l0_background is not None:
        question["background"] = sign_outline(prompt.l0_background)
    return json.dumps(question, separators=(",", ":"))


def _round_points(points: tuple[Point, ...]) -> list[list[float]]:
    return [[round(x, 2), round(y, 2)] for x, y in points]


def sign_outline(l0_geometry: Polygon | MultiPolygon) -> str:
    """Compute the signature of an outline: its bounds, area and length, level-0 px.

    It shows whether the outline was edited since, and survives QuPath's rounding, which
    exact coordinates do not.
    """
    numbers = (*l0_geometry.bounds, l0_geometry.area, l0_geometry.length)
    return " ".join(f"{number:.2f}" for number in numbers)


def is_drawn(l0_geometry: Polygon | MultiPolygon, signature: str) -> bool:
    """Whether an outline has a signature. A damaged signature fits no outline."""
    try:
        *bounds, area, length = map(float, signature.split(" "))
    except ValueError:
        return False
    if len(bounds) != 4:
        return False
    tolerance_px = _TOLERANCE_PX + _FLOAT32_STEP * max(map(abs, bounds))
    found = shapely.bounds(l0_geometry).tolist()
    return (
        all(abs(a - b) <= tolerance_px for a, b in zip(found, bounds, strict=True))
        and abs(l0_geometry.area - area) <= tolerance_px * max(length, 1.0)
        and abs(l0_geometry.length - length) <= tolerance_px * max(length, 1.0)
    )
