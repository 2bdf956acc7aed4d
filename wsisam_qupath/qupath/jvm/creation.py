"""Adds slides to new projects. These functions run in QuPath's process.

Projects and their classes are paquo's. Images are not added by its ``add_image``, which compares
each image with all others and writes the whole project after each: the time for many slides would
grow with their square.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from ...errors import ImageError, QuPathError
from ...prompts import PathClass, Skipped
from ..values import Feature
from .java import translate_java_errors

if TYPE_CHECKING:
    from paquo.projects import QuPathProject  # starts a Java virtual machine

_Java: TypeAlias = Any
"""An object of a Java class."""

IMAGE_TYPES = {
    "brightfield-h-e": "BRIGHTFIELD_H_E",
    "brightfield-h-dab": "BRIGHTFIELD_H_DAB",
    "brightfield-other": "BRIGHTFIELD_OTHER",
    "fluorescence": "FLUORESCENCE",
    "other": "OTHER",
    "unset": "UNSET",
}
"""QuPath's names of its image types, by the words of the command line."""


@dataclass(frozen=True)
class NewImage:
    """A slide to add to a project.

    Attributes:
        label: added in brackets to the name if another image has the same one.
        features: objects to put into the image, cleaned; see :mod:`..geojson.cleaning`.
    """

    slide: Path
    label: str = ""
    features: tuple[Feature, ...] = ()


@dataclass(frozen=True)
class AddedImage:
    """The result of adding a slide.

    Attributes:
        ids: ids of its entries in the project, one for each image that the file holds.
        n_objects: number of objects that were put into the first of them.
        skipped: objects that QuPath did not accept.
        reason: why there is no entry; else empty.
    """

    ids: tuple[str, ...] = ()
    n_objects: int = 0
    skipped: tuple[Skipped, ...] = ()
    reason: str = ""


def add_images(
    project: Path, images: Sequence[NewImage], image_type: str
) -> tuple[AddedImage, ...]:
    """Add slides to a project and save it once; a slide that fails does not stop the others.

    Args:
        project: ``project.qpproj``; made if there is none, in an empty folder.
        image_type: one of :data:`IMAGE_TYPES`.

    Raises:
        QuPathError: the project cannot be made or written.
    """
    from paquo.java import ImageType  # needs a running Java virtual machine

    java_type = getattr(ImageType, IMAGE_TYPES[image_type])
    opened = _open_project(project)
    added = tuple(_add_image(opened.java_object, image, java_type) for image in images)
    _save_project(opened)
    return added


_unsaved: dict[Path, QuPathProject] = {}
"""Projects with images that were added and not saved yet, used by only one thread."""

_growing: dict[tuple[Path, str], _Java] = {}
"""ImageData of the image that is being given objects, by its project and entry id."""


def add_image(project: Path, image: NewImage, image_type: str) -> AddedImage:
    """Add one slide to a project, which has to be saved by :func:`save_images` later.

    To save after each would take time with the square of their number.

    Raises:
        QuPathError: the project cannot be made or opened.
    """
    from paquo.java import ImageType  # needs a running Java machine

    opened = _unsaved.get(project) or _open_project(project)
    _unsaved[project] = opened
    return _add_image(opened.java_object, image, getattr(ImageType, IMAGE_TYPES[image_type]))


def add_objects(project: Path, entry_id: str, features: Sequence[Feature]) -> AddedImage:
    """Add more objects to an image that was just added, in memory.

    :func:`save_objects` writes them: so a million objects pass in pieces, and are written once.

    Raises:
        QuPathError: QuPath cannot open the image.
    """
    objects, skipped = _objects(features)
    with translate_java_errors("Adding objects"):
        image_data = _growing.get((project, entry_id))
        if image_data is None:
            image_data = _entry_of(project, entry_id).readImageData()
            _growing[project, entry_id] = image_data
        image_data.getHierarchy().addObjects(_list_of(objects))
    return AddedImage((entry_id,), _count_with_children(objects), tuple(skipped))


def save_objects(project: Path, entry_id: str) -> None:
    """Write what :func:`add_objects` put into an image.

    Raises:
        QuPathError: it cannot be written.
    """
    with translate_java_errors("Saving objects", "check the space and permissions there"):
        image_data = _growing.pop((project, entry_id))
        try:
            _entry_of(project, entry_id).saveImageData(image_data)
        finally:
            image_data.getServer().close()


def _entry_of(project: Path, entry_id: str) -> _Java:
    entries = _unsaved[project].java_object.getImageList()
    return next(entry for entry in entries if str(entry.getID()) == entry_id)


def save_images(project: Path) -> None:
    """Save what :func:`add_image` added; make the project where there is none.

    Raises:
        QuPathError: it cannot be written.
    """
    _save_project(_unsaved.pop(project) if project in _unsaved else _open_project(project))


def forget_images(project: Path) -> None:
    """Forget what :func:`add_image` and :func:`add_objects` did since the last save."""
    _unsaved.pop(project, None)
    for key in [one for one in _growing if one[0] == project]:
        _growing.pop(key).getServer().close()


def _save_project(project: QuPathProject) -> None:
    fix = "check the space and permissions there"
    with translate_java_errors(f"Saving {project.path}", fix):
        try:
            project.save(images=False)  # else every image is written again
        except OSError as exc:
            raise QuPathError(f"Saving {project.path} failed ({exc}): {fix}.") from exc


def set_classes(project: Path, path_classes: Sequence[PathClass]) -> None:
    """Set the class list of a project.

    Raises:
        QuPathError: it cannot be written.
    """
    from paquo.classes import QuPathPathClass
    from paquo.java import PathClass as JavaClass

    opened = _open_project(project)
    with translate_java_errors(f"Writing the class list of {project}"):
        listed = []
        for path_class in path_classes:
            # paquo's own constructor refuses a colon, which stands in "Tumor: Necrosis".
            made = QuPathPathClass.from_java(JavaClass.fromString(path_class.name))
            if path_class.color is not None:
                made.color = path_class.color  # a class that exists already keeps its own else
            listed.append(made)
        opened.path_classes = listed
    _save_project(opened)


def _open_project(project: Path) -> QuPathProject:
    from paquo.projects import QuPathProject

    with translate_java_errors(f"Opening {project}"):
        try:
            return QuPathProject(project, mode="r+" if project.is_file() else "x")
        except (OSError, ValueError) as exc:
            raise QuPathError(f"{project} cannot be made or opened: {exc}.") from exc


def _add_image(java_project: _Java, image: NewImage, java_type: _Java) -> AddedImage:
    before = java_project.getImageList().size()
    try:
        with translate_java_errors(
            f"Adding {image.slide.name}", "see whether QuPath itself opens it", ImageError
        ):
            return _add(java_project, image, java_type)
    except ImageError as exc:
        entries = list(java_project.getImageList())[before:]
        for entry in entries:
            java_project.removeImage(entry, False)
            # Not removeImage(…, True), which would ask the desktop's trash.
            shutil.rmtree(str(entry.getEntryPath()), ignore_errors=True)
        return AddedImage(reason=str(exc))


def _add(java_project: _Java, image: NewImage, java_type: _Java) -> AddedImage:
    """Add all images that a file holds; the features go into the first.

    Raises:
        ImageError: QuPath has no reader for it.
    """
    objects, skipped = _objects(image.features)
    ids: list[str] = []
    servers = _servers(image.slide)
    with ExitStack() as opened:
        for server in servers:
            opened.callback(server.close)
        for server in servers:
            is_first = not ids
            entry = _entry(java_project, server, image.label)
            _save(entry, server, objects if is_first else [], java_type)
            ids.append(str(entry.getID()))
    return AddedImage(tuple(ids), _count_with_children(objects), tuple(skipped))


def _count_with_children(objects: Sequence[_Java]) -> int:
    return sum(1 + int(one.nDescendants()) for one in objects)


def _list_of(objects: Sequence[_Java]) -> _Java:
    from paquo.java import ArrayList

    return ArrayList(objects)


def _servers(slide: Path) -> list[_Java]:
    """Open the images of a file with the first of QuPath's readers that can.

    Raises:
        ImageError: none does.
    """
    import jpype
    from paquo.java import File, ImageServers

    reason = ""
    try:
        for support in ImageServers.getAllImageSupports(File(str(slide)).toURI()):
            try:
                return _build_servers(support.getBuilders())
            except jpype.JException as exc:
                reason = reason or f" ({exc.getMessage()})"
    except jpype.JException as exc:
        reason = f" ({exc.getMessage()})"
    raise ImageError(
        f"QuPath cannot open {slide}{reason}: it is damaged, or of a format that this QuPath does "
        "not read. Copy it again from its source, or convert it to OME-TIFF."
    )


def _build_servers(builders: Sequence[_Java]) -> list[_Java]:
    """Open all images, or leave none open."""
    with ExitStack() as opened:
        servers = [opened.enter_context(closing(builder.build())) for builder in builders]
        opened.pop_all()
    return servers


def _entry(java_project: _Java, server: _Java, label: str) -> _Java:
    """Make an entry that states size and µm/px as the builder of an open server knows them."""
    from paquo.java import ServerTools, String

    entry = java_project.addImage(server.getBuilder())
    name = str(ServerTools.getDisplayableImageName(server))
    entry.setImageName(String(f"{name} ({label})" if label else name))
    return entry


def _save(entry: _Java, server: _Java, objects: Sequence[_Java], java_type: _Java) -> None:
    """Write ``data.qpdata`` if there is anything to keep in it."""
    from paquo.java import ImageData, ImageType

    if not objects and java_type == ImageType.UNSET:
        return
    image_data = ImageData(server, java_type)
    image_data.getHierarchy().addObjects(_list_of(objects))
    entry.saveImageData(image_data)


def _objects(features: Sequence[Feature]) -> tuple[list[_Java], list[Skipped]]:
    """Parse objects with their children: all at once, or one by one if QuPath rejects one."""
    import jpype

    try:
        return _parse_objects(features), []
    except jpype.JException:
        pass
    objects: list[_Java] = []
    skipped: list[Skipped] = []
    for feature in features:
        try:
            objects += _parse_objects([feature])
        except jpype.JException as exc:
            reason = str(exc.getMessage()).strip().splitlines()
            skipped.append(Skipped(str(feature["id"]), f"QuPath refuses it: {reason[0]}"))
    return objects, skipped


def _parse_objects(features: Sequence[Feature]) -> list[_Java]:
    import jpype
    from paquo.java import PathIO

    if not features:
        return []
    text = json.dumps({"type": "FeatureCollection", "features": list(features)})
    stream = jpype.JClass("java.io.ByteArrayInputStream")(text.encode("ascii"))
    return list(PathIO.readObjectsFromGeoJSON(stream))
