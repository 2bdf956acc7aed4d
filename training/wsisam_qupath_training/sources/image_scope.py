"""Outlines in XML of Aperio's ImageScope, such as those of MoNuSeg."""

from __future__ import annotations

import math
from xml.etree.ElementTree import Element

from shapely.geometry import MultiPolygon, Polygon

from wsisam_qupath.geojson.cleaning import clean_area
from wsisam_qupath.geojson.shapes import UnusableError
from wsisam_qupath.geometry import Mpp

from ..dataset import Truth
from .drawn import Drawn

_CLASS = "object"
"""Class of outlines in a layer without a name, as in all of MoNuSeg."""

_AREAS = ("0", "1")
"""ImageScope's types of areas drawn by hand and of rectangles; others have no outline."""


def is_image_scope(root: Element) -> bool:
    """Whether an XML file comes from ImageScope, by its outermost elements."""
    return root.tag == "Annotations" and root.find("Annotation/Regions") is not None


def read_image_scope(root: Element) -> Drawn:
    """Read the regions of all layers; the name of a layer is the class of its regions.

    Regions that ImageScope calls negative are cut out of the others.
    """
    objects: list[Truth] = []
    holes: list[Polygon | MultiPolygon] = []
    lost: list[tuple[str, str]] = []
    repaired = number = 0
    for layer in root.iterfind("Annotation"):
        for region in layer.iterfind("Regions/Region"):
            number += 1
            try:
                outline, was_repaired = _read_outline(region)
            except UnusableError as exc:
                lost.append((f"region {number}", str(exc)))
                continue
            repaired += was_repaired
            if region.get("NegativeROA") == "1":
                holes.append(outline)
            else:
                name = layer.get("Name", "").strip() or _CLASS
                objects.append(Truth(str(number), outline, name))
    mpp = _read_mpp(root)
    return Drawn(tuple(objects), tuple(holes), tuple(lost), repaired, mpp)


def _read_outline(region: Element) -> tuple[Polygon | MultiPolygon, bool]:
    """Read the area of a region, level-0 px, and whether it had to be repaired.

    Raises:
        UnusableError: it has none.
    """
    kind = region.get("Type", "0")
    if kind not in _AREAS:
        raise UnusableError(f"it is neither drawn by hand nor a rectangle but of type {kind[:40]}")
    vertices = region.findall("Vertices/Vertex")
    try:
        corners = [[float(one.get("X", "")), float(one.get("Y", ""))] for one in vertices]
    except ValueError as exc:
        raise UnusableError("its coordinates are not all numbers") from exc
    return clean_area([[corners]])


def _read_mpp(root: Element) -> Mpp | None:
    """Read the µm/px that the file states for its slide."""
    try:
        stated = float(root.get("MicronsPerPixel", ""))
    except ValueError:
        return None
    return Mpp(stated, stated) if math.isfinite(stated) and stated > 0 else None
