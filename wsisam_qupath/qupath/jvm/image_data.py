"""QuPath's ImageData from and to files, without opening the slide. Runs in QuPath's process.

Not through QuPath's project entries: reading a project makes folders in it, their reading takes
damaged objects for none, and their saving writes the file in place.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from ...errors import ImageError, ProjectError, escape
from ..files.entries import ImageEntry
from ..files.integrity import check_count, check_data
from ..files.json_text import as_object, parse
from .java import Java, java_class, java_path, translate_java_errors
from .streams import PATH_OBJECT, counts, has_method, make_function, make_predicate, text_or

_IMAGE_ID = "PROJECT_ENTRY_ID"
"""A property by which QuPath tells which image of which project an ImageData is."""


@dataclass(frozen=True)
class StoredImage:
    """Where the objects of an image are kept.

    Attributes:
        entry: with id, name and folder; the rest is left empty.
        project: absolute, of the ``.qpproj`` file.
        server_builder: what makes QuPath open the slide, JSON.
    """

    entry: ImageEntry
    project: Path
    server_builder: str

    @property
    def name(self) -> str:
        return escape(self.entry.name)


def find_image(project: Path, entry_id: str) -> StoredImage:
    """Look an image up in the project file.

    Raises:
        ProjectError: the file cannot be read.
        ImageError: it has no such image.
    """
    try:
        state = project.stat()
        images = _images(project, state.st_mtime_ns, state.st_size)
    except (OSError, ValueError) as exc:
        raise ProjectError(
            f"The project {project} cannot be read any more ({exc}): open it in QuPath to see "
            "whether it is damaged."
        ) from exc
    if entry_id not in images:
        raise ImageError(
            f"{project} has no image {entry_id} any more: close the project in QuPath and run "
            "this again."
        )
    raw = images[entry_id]
    entry = ImageEntry(
        id=entry_id,
        name=str(raw.get("imageName") or entry_id),
        folder=project.parent / "data" / entry_id,
        uri="",
        slide=None,
    )
    return StoredImage(entry, project, json.dumps(raw.get("serverBuilder")))


@lru_cache(maxsize=1)
def _images(path: Path, _mtime_ns: int, _size_bytes: int) -> Mapping[str, dict[str, Any]]:
    """By entry id. Time and size only say which state of the file is meant."""
    listed = as_object(parse(path.read_bytes())).get("images")
    images = [as_object(image) for image in listed] if isinstance(listed, list) else []
    return {str(image.get("entryID")): image for image in images}


def load(image: StoredImage) -> Java:
    """A new ImageData with all that the image's file holds; None where there is no file.

    Raises:
        ImageError: the file is damaged.
    """
    stated = check_data(image.entry)
    if not image.entry.qpdata.exists():
        return None
    _adopt_class_colors(image.project)
    image_data = read_file(image, image.entry.qpdata)
    check_count(image.entry, stated, list_all_objects(image_data).size())
    return image_data


def read_file(image: StoredImage, path: Path) -> Java:
    """The ImageData that a file holds.

    Raises:
        ImageError: QuPath cannot read it.
    """
    path_io = java_class("qupath.lib.io.PathIO")
    source = _source(image)
    cure = f"put back a copy of {path.name} from a backup"
    with translate_java_errors(f"Reading the objects of {image.name}", cure, ImageError):
        if _is_lazy():
            return path_io.readImageData(java_path(path), source)
        pixels_as = java_class("java.awt.image.BufferedImage").class_
        return path_io.readImageData(java_path(path), None, source, pixels_as)


def make_image_data(image: StoredImage) -> Java:
    """An ImageData without objects, as QuPath makes it for an image that was never saved.

    Raises:
        ImageError: QuPath knows no slide of it.
    """
    source = _source(image)
    unset = java_class("qupath.lib.images.ImageData$ImageType").UNSET
    hierarchy = java_class("qupath.lib.objects.hierarchy.PathObjectHierarchy")()
    return java_class("qupath.lib.images.ImageData")(source, hierarchy, unset)


def write_file(image: StoredImage, image_data: Java, path: Path) -> None:
    """Write an ImageData to a new file.

    Raises:
        ImageError: the disk is full, or the file cannot be written for another reason.
    """
    own_name = f"{java_class('java.io.File')(str(image.project)).getAbsolutePath()}"
    image_data.setProperty(_IMAGE_ID, f"{own_name}::{image.entry.id}")
    cure = "make room on its disk, and check that you may write there"
    with translate_java_errors(f"Writing the objects of {image.name} to {path}", cure, ImageError):
        # A stream, because QuPath would move a file of that name away.
        stream = java_class("java.io.FileOutputStream")(str(path))
        java_class("qupath.lib.io.PathIO").writeImageData(stream, image_data)


def list_all_objects(image_data: Java) -> Java:
    """Every object in the order of the hierarchy, the root first; a java.util.Collection."""
    return image_data.getHierarchy().getObjects(None, None)


def make_summary(image: StoredImage, image_data: Java) -> dict[str, Any]:
    """What QuPath writes to ``summary.json``, without the time."""
    objects = list_all_objects(image_data)
    names = java_class("qupath.lib.objects.PathObjectTools")
    types = counts(objects.stream(), make_function("java.lang.Object", "getClass"))
    summary: dict[str, Any] = {"imageType": str(image_data.getImageType().name())}
    server = _server_summary(image, image_data)
    if server:
        summary["server"] = server
    summary["hierarchy"] = {
        "nObjects": int(objects.size()),
        "objectTypeCounts": {
            str(names.getSuitableName(java_type, True)): count for java_type, count in types.items()
        },
        "annotationClassificationCounts": _class_counts(objects, "isAnnotation"),
        "detectionClassificationCounts": _class_counts(objects, "isDetection"),
    }
    return summary


def _class_counts(objects: Java, kind: str) -> dict[str, int]:
    chosen = objects.stream().filter(make_predicate(PATH_OBJECT, kind))
    classes = chosen.map(make_function(PATH_OBJECT, "getPathClass")).map(text_or("Unclassified"))
    identity = java_class("java.util.function.Function").identity()
    return {str(name): count for name, count in counts(classes, identity).items()}


def _server_summary(image: StoredImage, image_data: Java) -> dict[str, int]:
    """The size of the slide: as it was stated before, or else as QuPath knows it."""
    with suppress(OSError, ValueError):
        stated = as_object(parse(image.entry.summary.read_bytes())).get("server")
        if stated:
            return as_object(stated)
    with translate_java_errors(
        f"Opening {image.name}", "check that its slide is there", ImageError
    ):
        if _is_lazy():
            metadata = image_data.getServerMetadata()
        else:
            metadata = image_data.getServer().getMetadata()
    return {
        "width": int(metadata.getWidth()),
        "height": int(metadata.getHeight()),
        "sizeC": int(metadata.getSizeC()),
        "sizeZ": int(metadata.getSizeZ()),
        "sizeT": int(metadata.getSizeT()),
    }


def _adopt_class_colors(project: Path) -> None:
    """Give classes the colours that the project states, as QuPath does on opening one.

    Java keeps one colour for a class: those of an earlier project would go into the next one's
    files without this. A damaged list is for others to complain about.
    """
    listed: object = None
    with suppress(OSError, ValueError):
        path = project.parent / "classifiers" / "classes.json"
        listed = as_object(parse(path.read_bytes())).get("pathClasses")
    integer = java_class("java.lang.Integer")
    for stated in map(as_object, listed if isinstance(listed, list) else []):
        name, color = stated.get("name"), stated.get("color")
        if isinstance(name, str) and type(color) is int:
            with (
                suppress(ImageError),
                translate_java_errors(f"Making the class {name}", error=ImageError),
            ):
                path_class = java_class("qupath.lib.objects.classes.PathClass").fromString(name)
                path_class.setColor(integer(color))


def _source(image: StoredImage) -> Java:
    """What an ImageData gets its pixels from: a ServerBuilder, or before 0.6 an ImageServer.

    Raises:
        ImageError: the project says nothing that QuPath understands, or the slide is gone and
            QuPath is older than 0.6.
    """
    kind = java_class("qupath.lib.images.servers.ImageServerBuilder$ServerBuilder").class_
    gson = java_class("qupath.lib.io.GsonTools").getInstance()
    with translate_java_errors(
        f"Opening {image.name}", "check that its slide is there", ImageError
    ):
        builder = gson.fromJson(image.server_builder, kind)
        if builder is None:
            raise ImageError(f"{image.name} has no slide: remove it from the project in QuPath.")
        return builder if _is_lazy() else builder.build()


def _is_lazy() -> bool:
    """Whether QuPath reads objects without opening the slide: since 0.6."""
    return has_method("qupath.lib.images.ImageData", "getServerBuilder")
