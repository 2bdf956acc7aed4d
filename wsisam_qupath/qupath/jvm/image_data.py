"""Reads and writes QuPath's ImageData without opening the slide. Runs in QuPath's process.

QuPath's project entries are not used: reading a project makes folders in it, reading an entry takes
a damaged file for one without objects, and saving an entry writes the file in place.
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
from ...files import SafeFolder, name_of_open, read_file
from ..files.entries import ImageEntry
from ..files.integrity import check_count, check_data
from ..files.json_text import PROJECT_BYTES_MAX, SUMMARY_BYTES_MAX, as_object, parse
from .java import Java, java_class, java_path, translate_java_errors
from .streams import PATH_OBJECT, counts, has_method, make_function, text_or

_IMAGE_ID = "PROJECT_ENTRY_ID"
"""Property by which QuPath knows which image of which project an ImageData belongs to."""

_CHECK_THE_SLIDE = "check that its slide is there"


@dataclass(frozen=True)
class StoredImage:
    """An image of a project, to read or write its objects.

    Attributes:
        entry: QuPath entry; only its id, name and folder are set.
        project: absolute path of the ``.qpproj`` file.
        server_builder: JSON that tells QuPath how to open the slide.
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
        ProjectError: the project file cannot be read.
        ImageError: the project has no such image.
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
    """Read the images by entry id; time and size of the file only key the cache."""
    listed = as_object(parse(read_file(path, bytes_max=PROJECT_BYTES_MAX))).get("images")
    images = [as_object(image) for image in listed] if isinstance(listed, list) else []
    return {str(image.get("entryID")): image for image in images}


def load(image: StoredImage) -> Java:
    """Read a new ImageData from the image's file; None if there is no file.

    Raises:
        ImageError: the file is damaged.
    """
    stated = check_data(image.entry)
    if not image.entry.files.is_there(image.entry.qpdata):
        return None
    _adopt_class_colors(image.project)
    image_data = read_objects(image, image.entry.qpdata)
    check_count(image.entry, stated, list_all_objects(image_data).size())
    return image_data


def read_objects(image: StoredImage, path: Path) -> Java:
    """Read the ImageData that a file of an image holds.

    Raises:
        ImageError: QuPath cannot read it.
    """
    path_io = java_class("qupath.lib.io.PathIO")
    source = _source(image)
    fix = f"put back a copy of {path.name} from a backup"
    try:
        file = image.entry.files.open(path)
    except OSError as exc:
        raise ImageError(
            f"Reading the objects of {image.name} failed ({exc.strerror or exc}): {fix}."
        ) from exc
    with file, translate_java_errors(f"Reading the objects of {image.name}", fix, ImageError):
        opened = java_path(name_of_open(file, path))
        if _is_lazy():
            return path_io.readImageData(opened, source)
        pixels_as = java_class("java.awt.image.BufferedImage").class_
        return path_io.readImageData(opened, None, source, pixels_as)


def make_image_data(image: StoredImage) -> Java:
    """Make an ImageData without objects, as QuPath does for an image that was never saved.

    Raises:
        ImageError: QuPath knows no slide of it.
    """
    source = _source(image)
    unset = java_class("qupath.lib.images.ImageData$ImageType").UNSET
    hierarchy = java_class("qupath.lib.objects.hierarchy.PathObjectHierarchy")()
    return java_class("qupath.lib.images.ImageData")(source, hierarchy, unset)


def write_objects(image: StoredImage, image_data: Java, path: Path) -> None:
    """Write an ImageData to a new file of an image, in place of whatever has its name.

    Raises:
        ImageError: the disk is full, or the file cannot be written for another reason.
    """
    own_name = f"{java_class('java.io.File')(str(image.project)).getAbsolutePath()}"
    image_data.setProperty(_IMAGE_ID, f"{own_name}::{image.entry.id}")
    fix = "make room on its disk, and check that you may write there"
    what = f"Writing the objects of {image.name} to {path}"
    try:
        image.entry.files.make_folder(path.parent)
        file = image.entry.files.create(path)
    except OSError as exc:
        raise ImageError(f"{what} failed ({exc.strerror or exc}): {fix}.") from exc
    with file, translate_java_errors(what, fix, ImageError):
        # A stream, because QuPath would move a file of that name away.
        stream = java_class("java.io.FileOutputStream")(str(name_of_open(file, path)))
        java_class("qupath.lib.io.PathIO").writeImageData(stream, image_data)


def list_all_objects(image_data: Java) -> Java:
    """List every object in hierarchy order, the root first; a java.util.Collection."""
    return image_data.getHierarchy().getObjects(None, None)


def make_summary(image: StoredImage, image_data: Java) -> dict[str, Any]:
    """Make the content of ``summary.json`` as QuPath writes it, without the time."""
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
    chosen = objects.stream().filter(make_function(PATH_OBJECT, kind, "Predicate"))
    classes = chosen.map(make_function(PATH_OBJECT, "getPathClass")).map(text_or("Unclassified"))
    identity = java_class("java.util.function.Function").identity()
    return {str(name): count for name, count in counts(classes, identity).items()}


def _server_summary(image: StoredImage, image_data: Java) -> dict[str, int]:
    """State the size of the slide: from the old summary, or else from QuPath."""
    with suppress(OSError, ValueError):
        content = image.entry.files.read(image.entry.summary, bytes_max=SUMMARY_BYTES_MAX)
        stated = as_object(parse(content)).get("server")
        if stated:
            return as_object(stated)
    with translate_java_errors(f"Opening {image.name}", _CHECK_THE_SLIDE, ImageError):
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
    """Give classes the colors that the project states, as QuPath does on opening one.

    Java keeps one color per class: without this, colors of an earlier project would be saved in the
    next one. A damaged list is reported elsewhere.
    """
    listed: object = None
    with suppress(OSError, ValueError):
        path = project.parent / "classifiers" / "classes.json"
        content = SafeFolder(project.parent).read(path, bytes_max=SUMMARY_BYTES_MAX)
        listed = as_object(parse(content)).get("pathClasses")
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


def make_server_builder(image: StoredImage) -> Java:
    """Make what opens the slide of an image as the project states it: a ServerBuilder.

    Raises:
        ImageError: the project says nothing that QuPath understands.
    """
    kind = java_class("qupath.lib.images.servers.ImageServerBuilder$ServerBuilder").class_
    gson = java_class("qupath.lib.io.GsonTools").getInstance()
    with translate_java_errors(f"Opening {image.name}", _CHECK_THE_SLIDE, ImageError):
        builder = gson.fromJson(image.server_builder, kind)
    if builder is None:
        raise ImageError(f"{image.name} has no slide: remove it from the project in QuPath.")
    return builder


def _source(image: StoredImage) -> Java:
    """Make the pixel source of an ImageData: a ServerBuilder, or before 0.6 an ImageServer.

    Raises:
        ImageError: the project says nothing that QuPath understands, or the slide is gone and
            QuPath is older than 0.6.
    """
    builder = make_server_builder(image)
    if _is_lazy():
        return builder
    with translate_java_errors(f"Opening {image.name}", _CHECK_THE_SLIDE, ImageError):
        return builder.build()


def _is_lazy() -> bool:
    """Whether QuPath reads objects without opening the slide, as it does since 0.6."""
    return has_method("qupath.lib.images.ImageData", "getServerBuilder")
