"""Ground truth from GeoJSON areas: objects, and where the annotation is complete."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import shapely
from shapely.geometry import MultiPolygon, Polygon, shape

from wsisam_qupath.geojson import Feature
from wsisam_qupath.geojson.manifest import REGION_CLASS, UNCLASSIFIED
from wsisam_qupath.geojson.properties import read_path_class
from wsisam_qupath.geometry.validity import keep_polygons

from ..dataset import Truth


@dataclass(frozen=True)
class Areas:
    """The annotated areas of one image.

    Attributes:
        truths: the annotated objects.
        l0_complete: the areas of class :data:`.REGION_CLASS` as one; None without any. An outline
            itself says what is not that object, so that such an image can be learned from too.
    """

    truths: tuple[Truth, ...]
    l0_complete: Polygon | MultiPolygon | None


def split_areas(features: Sequence[Feature]) -> Areas:
    """Split clean area features into objects and completely annotated regions."""
    truths = make_truths(features)
    regions = [truth.l0_outline for truth in truths if truth.class_name == REGION_CLASS]
    return Areas(
        tuple(truth for truth in truths if truth.class_name != REGION_CLASS),
        keep_polygons(shapely.union_all(regions)) if regions else None,
    )


def make_truths(features: Sequence[Feature]) -> tuple[Truth, ...]:
    """Make objects of clean GeoJSON areas."""
    return tuple(
        Truth(str(feature["id"]), shape(feature["geometry"]), _class_name(feature))
        for feature in features
    )


def is_area(feature: Feature) -> bool:
    """Whether a clean feature is an area, not points or a line."""
    return str(feature["geometry"]["type"]) in ("Polygon", "MultiPolygon")


def _class_name(feature: Feature) -> str:
    found = read_path_class(feature["properties"].get("classification"))
    return found.name if found else UNCLASSIFIED
