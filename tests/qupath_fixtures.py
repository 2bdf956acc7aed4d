"""Projects made and read by QuPath itself. All but the fixture runs in QuPath's process.

Nothing here goes through what it is to test: QuPath's own reading and saving are the truth.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from wsisam_qupath.errors import QuPathError
from wsisam_qupath.pyramid import write_pyramid
from wsisam_qupath.qupath.process import QuPathProcess

Feature = dict[str, Any]


@dataclass(frozen=True)
class Seen:
    """What QuPath says of one object.

    Attributes:
        parent: id of its parent; None for children of the root.
        wkt: of its ROI's geometry.
    """

    id: str
    type: str
    parent: str | None
    path_class: str | None
    color: int | None
    name: str | None
    is_locked: bool
    plane: tuple[int, int, int]
    wkt: str
    measurements: dict[str, float]
    metadata: dict[str, str]


@pytest.fixture(scope="module")
def qupath() -> Iterator[QuPathProcess]:
    """QuPath's process; the test is skipped where there is no QuPath."""
    process = QuPathProcess()
    try:
        process.__enter__()
    except QuPathError as exc:
        pytest.skip(f"no QuPath here: {exc}")
    yield process
    process.__exit__(None, None, None)


def write_slide(path: Path, side_px: int = 512) -> Path:
    write_pyramid(path, np.full((side_px, side_px, 3), 220, np.uint8), mpp=0.5)
    return path


def make_project(folder: Path, slides: Sequence[Path]) -> Path:
    """A project of brightfield images, whose entry ids are 1, 2, ..."""
    from paquo.images import QuPathImageType
    from paquo.projects import QuPathProject

    project = QuPathProject(folder, mode="x")
    for slide in slides:
        project.add_image(slide, image_type=QuPathImageType.BRIGHTFIELD_H_E)
    project.save()
    return folder / "project.qpproj"


def add_objects(project: Path, entry_id: str, features: Sequence[Feature]) -> int:
    """Put GeoJSON features with their ``childObjects`` into an image, and save it.

    Returns:
        How many objects it holds then, with the root.
    """
    import jpype

    entry = java_entry(project, entry_id)
    image_data = entry.readImageData()
    content = json.dumps({"type": "FeatureCollection", "features": list(features)}).encode()
    stream = jpype.JClass("java.io.ByteArrayInputStream")(content)
    objects = jpype.JClass("qupath.lib.io.PathIO").readObjectsFromGeoJSON(stream)
    image_data.getHierarchy().addObjects(objects)
    entry.saveImageData(image_data)
    return int(image_data.getHierarchy().nObjects()) + 1


def add_tma_grid(project: Path, entry_id: str) -> None:
    """A 1 x 2 grid of cores."""
    import jpype

    make_core = jpype.JClass("qupath.lib.objects.PathObjects").createTMACoreObject
    cores = jpype.JClass("java.util.ArrayList")(
        [make_core(10.0, 10.0, 80.0, 80.0, False), make_core(110.0, 10.0, 80.0, 80.0, True)]
    )
    grid = jpype.JClass("qupath.lib.objects.hierarchy.DefaultTMAGrid").create(cores, 2)
    entry = java_entry(project, entry_id)
    image_data = entry.readImageData()
    image_data.getHierarchy().setTMAGrid(grid)
    entry.saveImageData(image_data)


def objects_in(project: Path, entry_id: str) -> list[Seen]:
    """All objects but the root, in QuPath's order, by QuPath's own reading of the entry."""
    hierarchy = java_entry(project, entry_id).readImageData().getHierarchy()
    return [_seen(one) for one in hierarchy.getObjects(None, None) if not one.isRootObject()]


def tma_core_names(project: Path, entry_id: str) -> list[bool]:
    """Whether each core of the grid is missing; empty if there is no grid."""
    grid = java_entry(project, entry_id).readImageData().getHierarchy().getTMAGrid()
    return [] if grid is None else [bool(core.isMissing()) for core in grid.getTMACoreList()]


def resave(project: Path, entry_id: str) -> dict[str, Any]:
    """Let QuPath save the image as it is; what it then writes to ``summary.json``."""
    entry = java_entry(project, entry_id)
    entry.saveImageData(entry.readImageData())
    path = project.parent / "data" / entry_id / "summary.json"
    summary: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return summary


def java_entry(project: Path, entry_id: str) -> Any:
    """An image of a project, as QuPath has it."""
    import jpype

    pixels_as = jpype.JClass("java.awt.image.BufferedImage").class_
    file = jpype.JClass("java.io.File")(str(project))
    java_project = jpype.JClass("qupath.lib.projects.ProjectIO").loadProject(file, pixels_as)
    (entry,) = (one for one in java_project.getImageList() if str(one.getID()) == entry_id)
    return entry


def _seen(one: Any) -> Seen:
    roi, path_class, parent = one.getROI(), one.getPathClass(), one.getParent()
    return Seen(
        id=str(one.getID()),
        type=str(one.getClass().getSimpleName()),
        parent=None if parent.isRootObject() else str(parent.getID()),
        path_class=None if path_class is None else str(path_class),
        color=None if path_class is None else int(path_class.getColor()),
        name=None if one.getName() is None else str(one.getName()),
        is_locked=bool(one.isLocked()),
        plane=(int(roi.getC()), int(roi.getZ()), int(roi.getT())),
        wkt=str(roi.getGeometry()),
        measurements={str(key): float(value) for key, value in one.getMeasurements().items()},
        metadata={str(key): str(value) for key, value in one.getMetadata().items()},
    )


def exported(project: Path, entry_id: str) -> list[Feature]:
    """The annotations of an image as QuPath exports them."""
    import jpype

    path_io = jpype.JClass("qupath.lib.io.PathIO")
    hierarchy = java_entry(project, entry_id).readImageData().getHierarchy()
    annotations = hierarchy.getAnnotationObjects()
    stream = jpype.JClass("java.io.ByteArrayOutputStream")()
    options = jpype.JClass("qupath.lib.io.PathIO$GeoJsonExportOptions")
    path_io.exportObjectsAsGeoJSON(stream, annotations, options.FEATURE_COLLECTION)
    features: list[Feature] = json.loads(bytes(stream.toByteArray()))["features"]
    return features


def add_ellipse_line_and_polyline(project: Path, entry_id: str) -> None:
    """Three annotations that no GeoJSON can tell of."""
    import jpype

    rois = jpype.JClass("qupath.lib.roi.ROIs")
    plane = jpype.JClass("qupath.lib.regions.ImagePlane").getDefaultPlane()
    numbers = jpype.JArray(jpype.JDouble)
    make = jpype.JClass("qupath.lib.objects.PathObjects").createAnnotationObject
    drawn = (
        rois.createEllipseROI(10.0, 20.0, 30.0, 40.0, plane),
        rois.createLineROI(1.0, 2.0, 3.0, 4.0, plane),
        rois.createPolylineROI(numbers([1.0, 5.0, 9.0]), numbers([1.0, 5.0, 1.0]), plane),
    )
    entry = java_entry(project, entry_id)
    image_data = entry.readImageData()
    image_data.getHierarchy().addObjects(
        jpype.JClass("java.util.ArrayList")(list(map(make, drawn)))
    )
    entry.saveImageData(image_data)


def validity(project: Path, entry_id: str) -> list[bool]:
    """Whether what QuPath makes of each outline is valid."""
    hierarchy = java_entry(project, entry_id).readImageData().getHierarchy()
    return [
        bool(one.getROI().getGeometry().isValid())
        for one in hierarchy.getObjects(None, None)
        if not one.isRootObject()
    ]


def colors_in_file(qpdata: Path) -> dict[str, int]:
    """The colours of classes as a file holds them; true in a process that met no others."""
    import jpype

    stream = jpype.JClass("java.io.FileInputStream")(str(qpdata))
    hierarchy = jpype.JClass("qupath.lib.io.PathIO").readHierarchy(stream)
    objects = [one for one in hierarchy.getObjects(None, None) if not one.isRootObject()]
    classes = [one.getPathClass() for one in objects]
    return {str(one): int(one.getColor()) for one in classes if one is not None}


def limit_files_to(size_bytes: int) -> None:
    """Keep this process from writing larger files, as a full disk does."""
    import resource

    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, resource.RLIM_INFINITY))


def speak() -> None:
    """Print in every way there is."""
    import jpype

    sys.stdout.write("Python speaks\n")
    sys.stdout.flush()
    os.write(1, b"the file descriptor speaks\n")
    system = jpype.JClass("java.lang.System")
    system.out.println("Java speaks")
    system.out.flush()


def log_warning() -> None:
    """What QuPath does all the time."""
    import jpype

    jpype.JClass("org.slf4j.LoggerFactory").getLogger("qupath.lib").warn("QuPath warns")


def parse_int(text: str) -> int:
    import jpype

    return int(jpype.JClass("java.lang.Integer").parseInt(text))


def fail(error: Exception) -> None:
    raise error


def exhaust_memory() -> None:
    import jpype

    raise jpype.JClass("java.lang.OutOfMemoryError")("Java heap space")
