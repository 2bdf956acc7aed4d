"""Objects that nobody draws with care, made by QuPath's classes. Runs in QuPath's process."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qupath_fixtures import java_entry

ODD = "Seltsam: Größe"
"""A class that no project lists."""

CROSSING = ((20.0, 20.0), (120.0, 120.0), (20.0, 120.0), (120.0, 20.0))
"""Two triangles that share a corner: a polygon that crosses itself, level-0 px."""

GLAND = (262, 0, 208, 302)
"""x, y, width and height of a rectangle on the tissue, level-0 px."""


def add_odd_annotations(project: Path, entry_id: str) -> int:
    """One that can be outlined, one that crosses itself, and many that mark no object.

    Returns:
        How many.
    """
    import jpype

    rois = jpype.JClass("qupath.lib.roi.ROIs")
    plane = jpype.JClass("qupath.lib.regions.ImagePlane").getDefaultPlane()
    doubles = jpype.JArray(jpype.JDouble)

    def polygon(*corners: tuple[float, float]) -> Any:
        x, y = zip(*corners, strict=True)
        return rois.createPolygonROI(doubles(x), doubles(y), plane)

    drawn = [
        rois.createRectangleROI(*map(float, GLAND), plane),
        polygon(*CROSSING),
        polygon((10, 10), (10, 10), (10, 10)),
        polygon((10, 10), (50, 10), (90, 10)),
        rois.createLineROI(0.0, 0.0, 50.0, 50.0, plane),
        rois.createRectangleROI(0.0, 0.0, 0.0, 0.0, plane),
        rois.createRectangleROI(5000.0, 5000.0, 100.0, 100.0, plane),
        rois.createRectangleROI(math.nan, 10.0, 50.0, 50.0, plane),
        rois.createPointsROI(plane),
        rois.createPointsROI(doubles([1e9]), doubles([1e9]), plane),
        rois.createEmptyROI(),
    ]
    entry = java_entry(project, entry_id)
    image_data = entry.readImageData()
    path_class = jpype.JClass("qupath.lib.objects.classes.PathClass").fromString(ODD)
    make = jpype.JClass("qupath.lib.objects.PathObjects").createAnnotationObject
    for roi in drawn:
        image_data.getHierarchy().addObject(make(roi, path_class))
    entry.saveImageData(image_data)
    return len(drawn)


@dataclass(frozen=True)
class Odd:
    """What QuPath says of an object of which it may not be able to make a geometry.

    Attributes:
        parent: id of its parent; None for children of the root.
        corners: x and y, level-0 px, as text.
        wkt: of a detection.
    """

    parent: str | None
    path_class: str
    color: int
    corners: str
    wkt: str | None


def odd_objects_in(project: Path, entry_id: str) -> dict[str, Odd]:
    """All objects but the root by their ids, by QuPath's own reading of the entry."""
    hierarchy = java_entry(project, entry_id).readImageData().getHierarchy()
    listed = [one for one in hierarchy.getObjects(None, None) if not one.isRootObject()]
    return {str(one.getID()): _odd(one) for one in listed}


def _odd(one: Any) -> Odd:
    roi, path_class, parent = one.getROI(), one.getPathClass(), one.getParent()
    return Odd(
        parent=None if parent.isRootObject() else str(parent.getID()),
        path_class=str(path_class),
        color=int(path_class.getColor()),
        corners=str([(float(point.getX()), float(point.getY())) for point in roi.getAllPoints()]),
        wkt=str(roi.getGeometry()) if one.isDetection() else None,
    )


def features_in(project: Path, entry_id: str) -> dict[str, dict[str, Any]]:
    """All objects but the root as QuPath's GeoJSON by their ids, fast, with ``parent``."""
    import jpype

    hierarchy = java_entry(project, entry_id).readImageData().getHierarchy()
    listed = [one for one in hierarchy.getObjects(None, None) if not one.isRootObject()]
    gson = jpype.JClass("qupath.lib.io.GsonTools").getInstance()
    features = json.loads(str(gson.toJson(jpype.JClass("java.util.ArrayList")(listed))))
    parents = [str(one.getParent().getID()) for one in listed]
    return {
        feature["id"]: {**feature, "parent": parent}
        for feature, parent in zip(features, parents, strict=True)
    }


def nuclei_in(project: Path, entry_id: str) -> dict[str, str]:
    """WKT of the nuclei of all cells, by the cells' ids."""
    cells = java_entry(project, entry_id).readImageData().getHierarchy().getCellObjects()
    return {
        str(cell.getID()): str(cell.getNucleusROI().getGeometry())
        for cell in cells
        if cell.hasNucleus()
    }
