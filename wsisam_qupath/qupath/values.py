"""Plain, picklable values exchanged with QuPath's process."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

Feature: TypeAlias = dict[str, Any]
"""A GeoJSON feature as QuPath writes it."""


@dataclass(frozen=True)
class ImageContents:
    """The annotations and our results in ``data.qpdata``.

    Attributes:
        n_objects: all objects with the root, as ``summary.json`` counts them.
        annotations: every annotation with a ROI, flat, in the order of the hierarchy.
        results: detections that this program made, by their metadata.
    """

    n_objects: int
    annotations: tuple[Feature, ...]
    results: tuple[Feature, ...]


@dataclass(frozen=True)
class Placed:
    """A new object and where in the hierarchy it belongs.

    Attributes:
        feature: feature as :func:`.geojson.to_feature` makes it: id, classification, geometry with
            plane, measurements, metadata.
        parent_id: id of the object that it goes below; None is the root.
    """

    feature: Feature
    parent_id: str | None


@dataclass(frozen=True)
class Change:
    """A change of the objects of one image.

    Attributes:
        n_objects: number of objects that the image must hold before the change, with the root.
        remove: ids of objects to remove; their children move up to their parents.
        add: objects to add after the removal.
    """

    n_objects: int
    remove: tuple[str, ...]
    add: tuple[Placed, ...]


@dataclass(frozen=True)
class Staged:
    """A changed ``data.qpdata``, written beside the old one and verified.

    Attributes:
        path: path of the new file.
        n_objects: number of objects in it, with the root.
        summary: content for ``summary.json``, without its time stamp.
    """

    path: Path
    n_objects: int
    summary: Mapping[str, Any] = field(default_factory=dict)
