"""Reads and changes the objects of one image. These functions run in QuPath's process.

Nothing that is in use is written here: a change goes into a file of its own, which is read back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from ...errors import ImageError
from ...geojson.properties import read_plane
from ...geojson.provenance import PROMPT_KEY
from ...prompts import PathClass, Plane
from ..values import Change, ImageContents, Staged
from . import image_data as files
from .features import make_features
from .image_data import StoredImage, list_all_objects
from .java import Java, java_class, translate_java_errors
from .outlines import Stored, are_equal, make_storable, read_outlines, read_planes
from .placing import (
    collect_ids,
    java_path_class,
    list_in_order,
    list_parents,
    make_objects,
    map_by_id,
    put_in,
    take_out,
    uuid,
)
from .streams import PATH_OBJECT, has_metadata_key, has_method, make_function


def read_image(project: Path, entry_id: str) -> ImageContents:
    """Read the annotations and our results of an image, without opening the slide.

    Args:
        project: absolute path of the ``.qpproj`` file.

    Raises:
        ImageError: its objects are damaged, or the project has no such image.
        ProjectError: the project file cannot be read.
    """
    image = files.find_image(project, entry_id)
    image_data = files.load(image)
    if image_data is None:
        return ImageContents(1, (), ())
    objects = list_all_objects(image_data)
    with translate_java_errors(f"Reading the objects of {image.name}", error=ImageError):
        return ImageContents(
            int(objects.size()),
            make_features(_collect_relevant(objects, "isAnnotation", "hasROI")),
            make_features(_find_our_detections(objects)),
        )


def _collect_relevant(objects: Java, *methods: str) -> Java:
    stream = objects.stream()
    for method in methods:
        stream = stream.filter(make_function(PATH_OBJECT, method, "Predicate"))
    return stream.toList()


def _find_our_detections(objects: Java) -> Java:
    # To ask an object for its metadata makes a map for it, in each of a million cells.
    knows = has_method(PATH_OBJECT, "hasMetadata")
    described = _collect_relevant(objects, "isDetection", *(["hasMetadata"] if knows else []))
    return described.stream().filter(has_metadata_key(PROMPT_KEY)).toList()


def stage_change(project: Path, entry_id: str, change: Change, to: Path) -> Staged:
    """Write the changed objects of an image to a new file, and verify the file.

    Args:
        project: absolute path of the ``.qpproj`` file.
        to: the new file; it is removed unless everything is right.

    Raises:
        ImageError: the image has changed since it was read, the file cannot be written, or it
            reads as something else than what was written.
    """
    image = files.find_image(project, entry_id)
    image_data = files.load(image) or files.make_image_data(image)
    try:
        with translate_java_errors(f"Changing the objects of {image.name}", error=ImageError):
            expected = _change_in_memory(image, image_data, change)
        files.write_objects(image, image_data, to)
        summary = files.make_summary(image, image_data)
        # Room for what is read back.
        del image_data
        _check(image, to, expected)
    except BaseException:  # Ctrl-C too must leave no file that was not read back
        with suppress(OSError):
            image.entry.files.remove(to)
        raise
    return Staged(to, summary["hierarchy"]["nObjects"], summary)


@dataclass(frozen=True)
class _Expected:
    """What the new file must hold.

    Attributes:
        n_objects: number of objects, with the root.
        ids: ids of all objects, a java.util.Set.
        added_ids: ids of the new objects, a java.util.List.
        parent_ids, planes, stored: parents, planes and outlines of the new objects, in the same
            order.
    """

    n_objects: int
    ids: Java
    added_ids: Java
    parent_ids: list[str]
    planes: list[Plane]
    stored: Stored


def _change_in_memory(image: StoredImage, image_data: Java, change: Change) -> _Expected:
    """Change the objects in memory.

    Raises:
        ImageError: they are not those that were read.
    """
    objects = list_all_objects(image_data)
    if objects.size() != change.n_objects:
        raise _make_changed_on_disk_error(image)
    known = map_by_id(objects)
    features = [one.feature for one in change.add]
    added_ids = java_class("java.util.ArrayList")([uuid(feature["id"]) for feature in features])
    removed = _remove_objects(image, known, change.remove)
    are_new = java_class("java.util.Collections").disjoint(known.keySet(), added_ids)
    if not are_new or len({feature["id"] for feature in features}) < len(features):
        raise ImageError(f"{image.name} holds some of the new objects already: run this again.")
    stored = make_storable(read_outlines(features))
    made = make_objects(features, added_ids, stored)
    take_out(removed)
    hierarchy = image_data.getHierarchy()
    parent_ids = put_in(change.add, made, known, hierarchy.getRootObject())
    hierarchy.fireHierarchyChangedEvent(hierarchy)
    ids = java_class("java.util.HashSet")(known.keySet())
    ids.addAll(added_ids)
    return _Expected(
        n_objects=change.n_objects - len(removed) + len(made),
        ids=ids,
        added_ids=added_ids,
        parent_ids=parent_ids,
        planes=[read_plane(feature["geometry"].get("plane")) for feature in features],
        stored=stored,
    )


def _remove_objects(image: StoredImage, known: Java, ids: Sequence[str]) -> list[Java]:
    """Remove the objects of these ids from the hierarchy and return them."""
    found = [known.remove(uuid(object_id)) for object_id in ids]
    if None in found:
        raise _make_changed_on_disk_error(image)
    return list(chain.from_iterable(found))


def _make_changed_on_disk_error(image: StoredImage) -> ImageError:
    return ImageError(
        f"{image.name} has changed on disk since it was read: close the project in QuPath, and "
        "run this again."
    )


def _check(image: StoredImage, path: Path, expected: _Expected) -> None:
    """Check that a file holds what was written.

    Raises:
        ImageError: it does not.
    """
    image_data = files.read_objects(image, path)
    with translate_java_errors(f"Checking the objects of {image.name}", error=ImageError):
        wrong = _difference(list_all_objects(image_data), expected)
    if wrong:
        raise ImageError(
            f"{image.name}: QuPath reads other {wrong} than were written, so the image was left "
            "as it is. Run this again, and report it if it happens again."
        )


def _difference(objects: Java, expected: _Expected) -> str | None:
    """Describe the first difference from what is expected."""
    if objects.size() != expected.n_objects or collect_ids(objects) != expected.ids:
        return "objects"
    added = list_in_order(map_by_id(objects), expected.added_ids)
    if list_parents(added) != expected.parent_ids:
        return "parents of objects"
    rois = added.stream().map(make_function(PATH_OBJECT, "getROI")).toList()
    if read_planes(rois) != expected.planes:
        return "planes of objects"
    return None if are_equal(expected.stored, rois) else "outlines"


def class_colors(stated: Mapping[str, tuple[int, int, int] | None]) -> dict[str, int]:
    """Give the colors in which QuPath shows classes, packed ARGB as signed integers.

    Args:
        stated: RGB by the names of classes; None lets QuPath choose.
    """
    with translate_java_errors("Making classes", error=ImageError):
        return {
            name: int(java_path_class(PathClass(name, color)).getColor())
            for name, color in stated.items()
        }
