"""Tell program-made objects (unmodified or since edited) from user-drawn ones."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable
from itertools import product
from typing import Any

import shapely
from shapely.errors import ShapelyError
from shapely.geometry import MultiPolygon, Polygon, shape

from ..errors import FormatError
from ..files.formats import RESULT
from . import Feature
from .properties import read_class_name
from .provenance import (
    ASKED_KEY,
    CLASS_KEY,
    DRAWN_KEY,
    PROMPT_KEY,
    SEARCH_KEY,
    TYPE_KEY,
    is_drawn,
)


def read_prompt_id(feature: Feature) -> str | None:
    """Read the id of the prompt that a program-made result belongs to; None for other objects."""
    prompt_id = _metadata(feature).get(PROMPT_KEY)
    return prompt_id if isinstance(prompt_id, str) else None


def read_question(feature: Feature) -> str | None:
    """Read what was drawn when a result was asked for; see :func:`.describe_question`."""
    asked = _metadata(feature).get(ASKED_KEY)
    return asked if isinstance(asked, str) else None


def read_rank(feature: Feature) -> int:
    """Read the place of a result among the answers to its prompt; 1 where it does not say."""
    measurements = _properties(feature).get("measurements")
    rank = measurements.get("Rank") if isinstance(measurements, dict) else None
    return int(rank) if isinstance(rank, (int, float)) and math.isfinite(rank) else 1


def is_made_by(feature: Feature, base_sha256: str, adapter_sha256: str | None) -> bool:
    """Whether the metadata of a result name these weights."""
    metadata = _metadata(feature)
    return (
        metadata.get("wsisam_base_sha256") == base_sha256
        and metadata.get("wsisam_adapter_sha256") == adapter_sha256
    )


def read_search_id(feature: Feature) -> str | None:
    """Read the id of the search over a project that found an object; None for other objects."""
    search_id = _metadata(feature).get(SEARCH_KEY)
    return search_id if isinstance(search_id, str) else None


def is_ours(feature: Feature) -> bool:
    """Whether the metadata of an object say that this program made it."""
    return read_prompt_id(feature) is not None


def is_of_newer_version(feature: Feature) -> bool:
    """Whether a newer version of this program made an object, with metadata of other meaning."""
    stated = _metadata(feature).get(RESULT.key, "1")
    try:
        RESULT.check_number("", int(str(stated)))
    except (ValueError, FormatError):
        return True
    return False


def is_untouched(feature: Feature) -> bool:
    """Whether a result is as it was written: same outline, class and type, no name, no lock.

    Whoever locks, names, reclassifies or redraws a result has made it their own.
    """
    properties, metadata = _properties(feature), _metadata(feature)
    if not is_ours(feature) or properties.get("isLocked") or properties.get("name"):
        return False
    if is_of_newer_version(feature):
        return False
    outline = read_outline(feature)
    return (
        read_class_name(feature) == metadata.get(CLASS_KEY)
        and properties.get("objectType", "annotation") == metadata.get(TYPE_KEY)
        and outline is not None
        and is_drawn(outline, str(metadata.get(DRAWN_KEY)))
    )


class Drawings:
    """Outlines that this program drew, to recognize objects that lost their id and metadata.

    QuPath makes a new object of a detection that is turned into an annotation.

    Args:
        signatures: signatures by :func:`.geojson.provenance.sign_outline`, each with the id of its
            prompt.
    """

    def __init__(self, signatures: Iterable[tuple[str, str]]) -> None:
        self._by_corner: defaultdict[tuple[int, int], list[tuple[str, str]]] = defaultdict(list)
        for signature, prompt_id in signatures:
            corner = _find_corner(signature)
            if corner is not None:
                self._by_corner[corner].append((signature, prompt_id))

    def read_prompt_id(self, feature: Feature) -> str | None:
        """Read the id of the prompt with a result of the same outline; None if there is none."""
        outline = read_outline(feature)
        if outline is None:
            return None
        x, y = (math.floor(value) for value in outline.bounds[:2])
        # The corner may have been rounded across the border of its cell.
        for corner in product(range(x - 1, x + 2), range(y - 1, y + 2)):
            for signature, prompt_id in self._by_corner.get(corner, ()):
                if is_drawn(outline, signature):
                    return prompt_id
        return None


def _find_corner(signature: str) -> tuple[int, int] | None:
    try:
        x0, y0 = map(float, signature.split(" ")[:2])
        return math.floor(x0), math.floor(y0)
    except (ValueError, OverflowError):
        return None


def read_outline(feature: Feature) -> Polygon | MultiPolygon | None:
    """Read the area of a feature; None for points, lines and what cannot be read."""
    geometry = feature.get("geometry")
    if not isinstance(geometry, dict) or geometry.get("type") not in ("Polygon", "MultiPolygon"):
        return None
    try:
        outline = shape(geometry)
    except (ShapelyError, ValueError, TypeError, IndexError):
        return None
    return None if shapely.is_empty(outline) else outline


def _properties(feature: Feature) -> dict[str, Any]:
    properties = feature.get("properties")
    return properties if isinstance(properties, dict) else {}


def _metadata(feature: Feature) -> dict[str, Any]:
    metadata = _properties(feature).get("metadata")
    return metadata if isinstance(metadata, dict) else {}
