"""Annotations of one slide, as the XML file of any program states them."""

from __future__ import annotations

from dataclasses import dataclass

from shapely.geometry import MultiPolygon, Polygon

from wsisam_qupath.geometry import Mpp

from ..dataset import Truth


@dataclass(frozen=True)
class Drawn:
    """The annotations of an XML file.

    Attributes:
        objects: the objects, with holes still filled.
        holes: areas to be cut out of the objects, level-0 px.
        lost: annotations that are no area, by name and reason.
        repaired: number of outlines that crossed themselves.
        mpp: µm/px of the slide, if the file states it.
    """

    objects: tuple[Truth, ...]
    holes: tuple[Polygon | MultiPolygon, ...]
    lost: tuple[tuple[str, str], ...]
    repaired: int
    mpp: Mpp | None = None
