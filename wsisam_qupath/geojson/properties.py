"""Ids, classes and planes between GeoJSON and Python, as QuPath reads and writes them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ..prompts import PathClass, Plane

_DELIMITER = ":"
"""Separator of the parts of a derived class: "Tumor: Positive"."""

_DEFAULT_PLANE = Plane()

LEGACY_TYPES = {
    "PathAnnotationObject": "annotation",
    "PathDetectionObject": "detection",
    "PathCellObject": "cell",
    "PathTileObject": "tile",
    "PathRootObject": "root",
    "TMACoreObject": "tmaCore",
}
"""Today's names of object types that QuPath 0.2 wrote in place of the id."""


def clean_text(value: object) -> str | None:
    """Read a string that is not blank and can be encoded as UTF-8; else None."""
    if not isinstance(value, str) or not value.strip():
        return None
    # JSON can hold half of a surrogate pair, which no file or terminal takes.
    return value.encode("utf-8", "replace").decode("utf-8")


def given_id(feature: object) -> str | None:
    """Read the id of a feature, or None; GeoJSON allows strings and numbers."""
    value = feature.get("id") if isinstance(feature, dict) else None
    if type(value) in (int, float):
        return str(value)
    given = clean_text(value)
    return None if given in LEGACY_TYPES else given


def read_object_type(feature: Mapping[str, object]) -> str:
    """Read QuPath's type of a feature: annotation, detection, cell, tile, tmaCore or root.

    Other programs write what they like under ``type``: what is none of QuPath's there says
    nothing. A type that QuPath's own key states and that is not known is given as it is.
    """
    properties = feature.get("properties")
    properties = properties if isinstance(properties, dict) else {}
    stated = clean_text(properties.get("objectType"))
    if stated is not None:
        return {"unknown": "annotation"}.get(stated, LEGACY_TYPES.get(stated, stated))
    for key in ("object_type", "type"):
        given = clean_text(properties.get(key)) or ""
        given = LEGACY_TYPES.get(given, given)
        if given in LEGACY_TYPES.values():
            return given
    return LEGACY_TYPES.get(str(feature.get("id")), "annotation")


def read_path_class(classification: object) -> PathClass | None:
    """Read a class in any form that QuPath writes; None if it is none, or unreadable.

    These are "X", {"name" or "names", "color"} and, before QuPath 0.4, {"name", "colorRGB",
    "parentClass"}. A color that cannot be read is left out.
    """
    if not isinstance(classification, dict):
        name = _join_names([classification])
        return PathClass(name) if name else None
    names = classification.get("names")
    if not isinstance(names, (list, tuple)):
        names = _lineage(classification)
    name = _join_names(names)
    if name is None:
        return None
    color = _rgb(classification.get("color"))
    packed = classification.get("colorRGB")
    if color is None and type(packed) is int:
        color = unpack_rgb(packed)
    return PathClass(name, color)


def read_class_name(feature: Mapping[str, Any]) -> str | None:
    """Read the name of a feature's class; None without one."""
    path_class = read_path_class((feature.get("properties") or {}).get("classification"))
    return path_class.name if path_class else None


def make_classification(path_class: PathClass) -> str | dict[str, object]:
    """Write a class in a form that QuPath reads: it refuses an object with a name and no color."""
    if path_class.color is None:
        return path_class.name
    names: list[str] = [name.strip() for name in path_class.name.split(_DELIMITER)]
    color = list(path_class.color)
    return (
        {"name": names[0], "color": color} if len(names) == 1 else {"names": names, "color": color}
    )


def read_plane(plane: object) -> Plane:
    """Read {"c", "z", "t"}, each of which may be missing; the default plane for anything else."""
    if not isinstance(plane, dict):
        return _DEFAULT_PLANE
    c, z, t = (plane.get(axis) for axis in "czt")
    return Plane(
        c if type(c) is int else _DEFAULT_PLANE.c,
        z if type(z) is int else _DEFAULT_PLANE.z,
        t if type(t) is int else _DEFAULT_PLANE.t,
    )


def plane_json(plane: Plane) -> dict[str, int]:
    return {"c": plane.c, "z": plane.z, "t": plane.t}


def _lineage(classification: dict[str, object]) -> list[object]:
    """Read the names from the first parent down to the class itself."""
    names: list[object] = []
    child: object = classification
    while isinstance(child, dict):
        names.insert(0, child.get("name"))
        child = child.get("parentClass")
    return names


def _join_names(names: Iterable[object]) -> str | None:
    """Join names as QuPath shows them; None if one is no text or QuPath would refuse it."""
    texts = [clean_text(name) for name in names]
    if not texts or any(text is None or "\n" in text or "\r" in text for text in texts):
        return None
    parts = [part.strip() for text in texts if text for part in text.split(_DELIMITER)]
    return f"{_DELIMITER} ".join(part for part in parts if part) or None


def _rgb(color: object) -> tuple[int, int, int] | None:
    """Read the first three of [r, g, b] or [r, g, b, alpha], each 0 to 255."""
    if not isinstance(color, (list, tuple)) or len(color) not in (3, 4):
        return None
    r, g, b = color[:3]
    if not all(type(value) is int and 0 <= value <= 255 for value in (r, g, b)):
        return None
    return (r, g, b)


def unpack_rgb(color: int) -> tuple[int, int, int]:
    """Unpack red, green and blue of Java's packed ARGB, which is negative where it is opaque."""
    return color >> 16 & 255, color >> 8 & 255, color & 255
