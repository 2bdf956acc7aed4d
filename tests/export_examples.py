"""Annotations as QuPath writes them, results of ours, and an image as a manifest lists it."""

from __future__ import annotations

from typing import Any

from shapely.geometry import Point, Polygon, mapping

from command_line import identity
from wsisam_qupath.geojson import to_feature
from wsisam_qupath.geometry import Box
from wsisam_qupath.manifest import ExportedImage
from wsisam_qupath.prompts import PathClass, Prompt
from wsisam_qupath.results import Provenance, Result

ROUND = Point(200, 200).buffer(40)
RING = ROUND.difference(Point(200, 200).buffer(20))
TWO_PARTS = ROUND.union(Point(400, 400).buffer(30))
BOW_TIE = Polygon([(10, 10), (110, 110), (110, 10), (10, 110)])
GREEN = {"name": "Gland", "color": [0, 200, 0]}
REGION = {"name": "Region*", "color": [0, 0, 180]}

IMAGE = ExportedImage(
    "7", "a.svs", "a.svs.geojson", "file:/a.svs", 100, 200, 0.5, 0.25, {"Gland": 2}, 2, 1, {}
)


def drawn(number: int, geometry: Any = ROUND, **properties: Any) -> dict[str, Any]:
    """An annotation as QuPath writes it."""
    return {
        "type": "Feature",
        "id": identity(number),
        "geometry": mapping(geometry),
        "properties": {"objectType": "annotation", **properties},
    }


def result(number: int, kind: Any = "annotation", **changed: Any) -> dict[str, Any]:
    """A result of this program, changed by a person."""
    made = Result(
        Prompt("p1", l0_box=Box(0, 0, 10, 10), path_class=PathClass("Gland", (0, 200, 0))),
        identity(number),
        Point(100 + 50 * number, 300).buffer(20),
        0.9,
        0.9,
        1.0,
        Provenance("lite-medsam", "0" * 64, None, None, 1.0, None, "0.1.0"),
    )
    feature = to_feature(made, kind)
    feature["properties"] |= changed
    return feature
