"""Removes objects from a hierarchy and adds new ones. Runs in QuPath's process."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any

from ...errors import ImageError
from ...geojson.properties import read_path_class, read_plane
from ...geojson.provenance import DRAWN_KEY, PROMPT_KEY
from ...prompts import PathClass, Plane
from ..values import Feature, Placed
from .java import Java, java_class
from .outlines import Stored, make_rois
from .streams import PATH_OBJECT, get_from, has_method, make_function, text_or

_OWN_KEYS = (PROMPT_KEY, DRAWN_KEY)
"""Metadata keys with values that differ from object to object; all others are those of the run."""


def map_by_id(objects: Java) -> Java:
    """Map ids to lists of objects (a java.util.Map), as an id may occur twice."""
    grouping = java_class("java.util.stream.Collectors").groupingBy
    return objects.stream().collect(grouping(make_function(PATH_OBJECT, "getID")))


def collect_ids(objects: Java) -> Java:
    """Collect the ids of objects in a java.util.HashSet."""
    collectors = java_class("java.util.stream.Collectors")
    found = objects.stream().map(make_function(PATH_OBJECT, "getID")).collect(collectors.toSet())
    return java_class("java.util.HashSet")(found)


def list_in_order(known: Java, ids: Java) -> Java:
    """List the objects of these ids in a java.util.List.

    Args:
        known: map from :func:`map_by_id`; it has all of the ids.
        ids: a java.util.List.
    """
    elements = make_function("java.util.Collection", "stream")
    return ids.stream().map(get_from(known)).flatMap(elements).toList()


def list_parents(objects: Java) -> list[str]:
    """List the ids of the objects' parents."""
    parents = objects.stream().map(make_function(PATH_OBJECT, "getParent"))
    texts = parents.map(make_function(PATH_OBJECT, "getID")).map(text_or(""))
    return str(texts.collect(java_class("java.util.stream.Collectors").joining(" "))).split()


def uuid(text: str) -> Java:
    return java_class("java.util.UUID").fromString(text)


def take_out(objects: Iterable[Java]) -> None:
    """Remove objects; their children move up to their parents.

    QuPath's own removal moves them to the root, past all annotations that they lie in.
    """
    listed = java_class("java.util.ArrayList")
    childless: list[Java] = []
    for one in objects:
        if not one.hasChildObjects():
            childless.append(one)
            continue
        parent = one.getParent()
        parent.removeChildObject(one)
        parent.addChildObjects(listed(one.getChildObjects()))
    # Last, for until now their parents could change; and in bulk.
    groups: dict[str, tuple[Java, list[Java]]] = {}
    for one in childless:
        parent = one.getParent()
        groups.setdefault(str(parent.getID()), (parent, []))[1].append(one)
    for parent, children in groups.values():
        parent.removeChildObjects(listed(children))


def put_in(placed: Sequence[Placed], made: Sequence[Java], known: Java, root: Java) -> list[str]:
    """Add objects below their parents, after the children that these have.

    Args:
        made: objects from :func:`make_objects`, one for each of `placed`.
        known: existing objects, from :func:`map_by_id`.

    Returns:
        The ids of the parents: of the root where a parent is not there.
    """
    groups: dict[str | None, list[Java]] = {}
    for one, made_object in zip(placed, made, strict=True):
        groups.setdefault(one.parent_id, []).append(made_object)
    parents = {parent_id: _find_parent(parent_id, known, root) for parent_id in groups}
    listed = java_class("java.util.ArrayList")
    for parent_id, children in groups.items():
        parents[parent_id].addChildObjects(listed(children))
    ids = {parent_id: str(parent.getID()) for parent_id, parent in parents.items()}
    return [ids[one.parent_id] for one in placed]


def _find_parent(parent_id: str | None, known: Java, root: Java) -> Java:
    try:
        found = known.get(uuid(parent_id)) if parent_id else None
    except java_class("java.lang.IllegalArgumentException"):  # it is no id of QuPath's
        found = None
    return found[0] if found else root


def make_objects(features: Sequence[Feature], ids: Java, stored: Stored) -> list[Java]:
    """Make QuPath's objects complete: changing them after they are added would move them.

    Args:
        ids: ids of the features, a java.util.List.

    Raises:
        ImageError: a feature is of a type that is not made here.
    """
    planes = [_java_plane(read_plane(feature["geometry"].get("plane"))) for feature in features]
    rois = make_rois(stored, planes)
    shared = _Shared()
    objects = []
    for feature, java_id, roi in zip(features, ids, rois, strict=True):
        made = _make_object(feature["properties"], roi, shared)
        made.setID(java_id)
        objects.append(made)
    return objects


class _Shared:
    """Values that many objects share, made once: so Java writes them once and is called less."""

    def __init__(self) -> None:
        self._classes: dict[str, Java] = {}
        self._texts: dict[str, Java] = {}
        self._maps: dict[tuple[tuple[str, str], ...], Java] = {}
        self._string = java_class("java.lang.String")

    def path_class(self, classification: object) -> Java:
        """Give the class of an object; null without one."""
        key = repr(classification)
        if key not in self._classes:
            path_class = read_path_class(classification)
            self._classes[key] = None if path_class is None else java_path_class(path_class)
        return self._classes[key]

    def text(self, text: str) -> Java:
        if text not in self._texts:
            self._texts[text] = self._string(text)
        return self._texts[text]

    def map_of(self, items: tuple[tuple[str, str], ...]) -> Java:
        if items not in self._maps:
            self._maps[items] = java_class("java.util.LinkedHashMap")(len(items))
            for key, value in items:
                self._maps[items].put(self.text(key), self.text(value))
        return self._maps[items]


def _make_object(properties: Mapping[str, Any], roi: Java, shared: _Shared) -> Java:
    makers = java_class("qupath.lib.objects.PathObjects")
    path_class = shared.path_class(properties.get("classification"))
    if properties["objectType"] == "detection":
        made = makers.createDetectionObject(roi, path_class)
    elif properties["objectType"] == "annotation":
        made = makers.createAnnotationObject(roi, path_class)
    else:
        raise ImageError(f"An object of type {properties['objectType']} cannot be placed.")
    _measure(made, properties.get("measurements") or {}, shared)
    _describe(made, properties.get("metadata") or {}, shared)
    if properties.get("name") is not None:
        made.setName(shared.text(properties["name"]))
    if properties.get("isLocked"):
        made.setLocked(True)
    return made


def _measure(made: Java, measurements: Mapping[str, float], shared: _Shared) -> None:
    if not measurements:
        return
    listed = made.getMeasurementList()
    for name, value in measurements.items():
        listed.put(shared.text(name), float(value))
    # Lets QuPath share the names among all objects.
    listed.close()


def _describe(made: Java, metadata: Mapping[str, str], shared: _Shared) -> None:
    if not metadata:
        return
    if not has_method(PATH_OBJECT, "hasMetadata"):
        # Before 0.6, QuPath keeps metadata of detections, but offers no method to set them.
        for key, value in metadata.items():
            _setter_of_metadata().invoke(made, shared.text(key), shared.text(value))
        return
    kept = made.getMetadata()
    of_the_run = tuple((key, value) for key, value in metadata.items() if key not in _OWN_KEYS)
    kept.putAll(shared.map_of(of_the_run))
    for key in _OWN_KEYS:
        if key in metadata:
            kept.put(shared.text(key), shared.text(metadata[key]))


@cache
def _setter_of_metadata() -> Java:
    text = java_class("java.lang.String").class_
    setter = java_class(PATH_OBJECT).class_.getDeclaredMethod("storeMetadataValue", text, text)
    setter.setAccessible(True)
    return setter


@cache
def java_path_class(path_class: PathClass) -> Java:
    """Give QuPath's class of a name, with the color that it has, or the stated one if new."""
    color = None
    if path_class.color is not None:
        packed = java_class("qupath.lib.common.ColorTools").packRGB(*path_class.color)
        color = java_class("java.lang.Integer")(packed)
    return java_class("qupath.lib.objects.classes.PathClass").fromString(path_class.name, color)


@cache
def _java_plane(plane: Plane) -> Java:
    planes = java_class("qupath.lib.regions.ImagePlane")
    return planes.getPlaneWithChannel(plane.c, plane.z, plane.t)
