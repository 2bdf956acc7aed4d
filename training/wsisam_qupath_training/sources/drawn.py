"""What is drawn on a slide, as an XML file of any program says it."""

from __future__ import annotations

from dataclasses import dataclass

from shapely.geometry import MultiPolygon, Polygon

from wsisam_qupath.geometry import Mpp

from ..dataset import Truth


@dataclass(frozen=True)
class Drawn:
    """What a file holds.

    Attributes:
        objects: with holes still filled.
        holes: what is to be cut out of them, level-0 px.
        lost: annotations that are no area, by name and reason.
        repaired: how many crossed themselves.
        mpp: µm/px of the slide, where the file states it.
    """

    objects: tuple[Truth, ...]
    holes: tuple[Polygon | MultiPolygon, ...]
    lost: tuple[tuple[str, str], ...]
    repaired: int
    mpp: Mpp | None = None
