"""GeoJSON as QuPath has it, and the prompts that are read from it."""

from __future__ import annotations

from typing import Any

from wsisam_qupath.geojson import prompts_from_geojson
from wsisam_qupath.geometry import Box
from wsisam_qupath.prompts import Prompt, PromptSet

EVERYWHERE = Box(-1e9, -1e9, 1e9, 1e9)


def feature(kind: str, coordinates: object, **properties: object) -> dict[str, Any]:
    feature_id = properties.pop("id", None)
    return {
        "type": "Feature",
        **({"id": feature_id} if feature_id is not None else {}),
        "geometry": {"type": kind, "coordinates": coordinates},
        "properties": properties,
    }


def rectangle(x0: float, y0: float, x1: float, y1: float, **properties: object) -> dict[str, Any]:
    ring = [[x0, y0], [x1, y0], [x1, y1], [x0, y1], [x0, y0]]
    return feature("Polygon", [ring], **properties)


def prompts_of(document: object, **options: Any) -> PromptSet:
    return prompts_from_geojson(document, **{"hr_l0_box_of": lambda _: EVERYWHERE, **options})


def only(document: object) -> Prompt:
    (prompt,) = prompts_of(document).prompts
    return prompt


def reason(document: object) -> str:
    found = prompts_of(document)
    assert not found.prompts
    return found.skipped[0].reason
