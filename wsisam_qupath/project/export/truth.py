"""Selects the annotations that are ground truth for training; gives reasons for the others.

The Groovy script for QuPath's *Run for project* goes by the same rules.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from shapely.geometry import MultiPolygon, Polygon

from ...geojson.authorship import is_untouched
from ...geojson.manifest import REGION_CLASS, UNCLASSIFIED
from ...geojson.properties import make_classification, read_class_name, read_path_class, read_plane
from ...geojson.shapes import UnusableError, geometry_json, read_area, snap_to_grid
from ...geojson.writing import Feature
from ...geometry import Box
from ...qupath.values import ImageContents

POINTS = "points"
LINES = "lines"
PROMPTS = "rectangles, which are prompts"
IGNORED = "class ends in *"
UNREVIEWED = "unreviewed results"
WITHOUT_AREA = "without area"

_KEPT = ("name", "isLocked")


@dataclass(frozen=True)
class Truth:
    """The ground truth of one image.

    Attributes:
        features: objects and regions, flat, in the order of the hierarchy.
        classes: number of objects by class, :data:`.UNCLASSIFIED` for those without.
        regions: number of areas that are declared as completely annotated.
        left_out: number of annotations that are no ground truth, by reason.
    """

    features: tuple[Feature, ...]
    classes: Mapping[str, int]
    regions: int
    left_out: Mapping[str, int]

    @property
    def objects(self) -> int:
        """Number of objects of all classes."""
        return sum(self.classes.values())


def select_truth(contents: ImageContents) -> Truth:
    """Select areas that a user drew or reviewed, and regions.

    Points, lines and rectangles are prompts, not objects. Results of this program are ground truth
    once a user has locked, named, edited or reclassified them, or turned a detection into an
    annotation.
    """
    features: list[Feature] = []
    classes: Counter[str] = Counter()
    left_out: Counter[str] = Counter()
    regions = 0
    for annotation in contents.annotations:
        chosen = _choose_annotation(annotation)
        if isinstance(chosen, str):
            left_out[chosen] += 1
            continue
        features.append(chosen)
        name = read_class_name(annotation) or ""
        if name == REGION_CLASS:
            regions += 1
        else:
            classes[name or UNCLASSIFIED] += 1
    if contents.results:
        left_out[UNREVIEWED] += len(contents.results)
    return Truth(tuple(features), _sort_counts(classes), regions, _sort_counts(left_out))


def _choose_annotation(annotation: Feature) -> Feature | str:
    """Give the annotation as it is exported, or the reason why it is not."""
    geometry = annotation.get("geometry")
    geometry = geometry if isinstance(geometry, dict) else {}
    area = _read_area(geometry)
    if isinstance(area, str):
        return area
    reason = _reason_against(annotation, isinstance(area, Box))
    if reason is not None:
        return reason
    outline = area.polygon if isinstance(area, Box) else snap_to_grid(area)
    return {
        "type": "Feature",
        "id": annotation["id"],
        "geometry": geometry_json(outline, read_plane(geometry.get("plane"))),
        "properties": _properties(annotation),
    }


def _read_area(geometry: Feature) -> Box | Polygon | MultiPolygon | str:
    """Read the area of an annotation, or the reason why it has none."""
    kind, coordinates = str(geometry.get("type")), geometry.get("coordinates")
    if kind in ("Point", "MultiPoint"):
        return POINTS
    if kind in ("LineString", "MultiLineString"):
        return LINES
    try:
        return read_area(coordinates if kind == "MultiPolygon" else [coordinates])
    except UnusableError:
        return WITHOUT_AREA


def _reason_against(annotation: Feature, is_rectangle: bool) -> str | None:
    name = read_class_name(annotation) or ""
    if name == REGION_CLASS:
        return None
    if name.endswith("*"):
        return IGNORED
    if is_rectangle:
        return PROMPTS
    return UNREVIEWED if is_untouched(annotation) else None


def _properties(annotation: Feature) -> Feature:
    given = annotation.get("properties") or {}
    properties: Feature = {"objectType": "annotation"}
    properties |= {key: given[key] for key in _KEPT if given.get(key)}
    path_class = read_path_class(given.get("classification"))
    if path_class is not None:
        properties["classification"] = make_classification(path_class)
    return properties


def _sort_counts(counts: Mapping[str, int]) -> dict[str, int]:
    return dict(sorted(counts.items()))
