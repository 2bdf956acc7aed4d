"""The folder that ``wsisam-qupath export`` and the Groovy script write."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from wsisam_qupath.errors import PromptError, SlideError
from wsisam_qupath.geojson.cleaning import iterate_features, read_objects
from wsisam_qupath.geojson.manifest import ExportedImage, read_manifest
from wsisam_qupath.geometry import Mpp
from wsisam_qupath.prompts import Skipped
from wsisam_qupath.qupath.files.locations import Locations, locations, parse_pure_path
from wsisam_qupath.slide import SlideReference
from wsisam_qupath.slide.names import strip_format

from ..dataset import AnnotatedImage, Dataset
from .areas import is_area, split_areas
from .groups import GroupOf
from .slides import slides_in

FindSlide = Callable[[ExportedImage], Path]


def read_export(
    folder: Path,
    *,
    dataset: str,
    group_of: GroupOf = str,
    slides: Path | None = None,
    remap: tuple[tuple[str, str], ...] = (),
) -> Dataset:
    """Read an export: outlines from its GeoJSON, µm/px from its manifest.

    Areas of class ``Region*`` say where an image is annotated completely. One that has none is
    used as it is: an outline itself says what is not that object.

    Args:
        group_of: finds the patient by the slide's name without its ending.
        slides: folder in which slides are found by name, instead of where they were.
        remap: (OLD, NEW) beginnings of the paths of slides that were moved.

    Raises:
        PromptError: there is no manifest, it is damaged, or it lists no images.
        SlideError: there is no folder ``slides``.
        OptionError: ``remap`` cannot be used.
    """
    manifest = read_manifest(folder)
    if not manifest.images:
        raise PromptError(f"{folder} is an export without images. Export the project again.")
    find = (
        _find_in_folder(slides)
        if slides
        else _find_as_stated(locations(folder.absolute(), None, remap))
    )
    images: list[AnnotatedImage] = []
    damaged: list[Skipped] = []
    repaired = 0
    for image in manifest.images:
        try:
            slide = find(image)
            cleaned = read_objects(folder / image.file)
        except (SlideError, PromptError) as exc:
            damaged.append(Skipped(image.name, str(exc)))
            continue
        areas = split_areas([one for one in iterate_features(cleaned.features) if is_area(one)])
        damaged += [Skipped(f"{image.name}, {case.id}", case.reason) for case in cleaned.skipped]
        repaired += cleaned.repaired
        images.append(
            AnnotatedImage(
                image.file.removesuffix(".geojson"),
                dataset,
                # By its file: two images of a project may show one slide.
                group_of(strip_format(slide.name)),
                SlideReference(str(slide), _mpp(image)),
                areas.truths,
                areas.l0_complete,
            )
        )
    return Dataset(tuple(images), tuple(damaged), repaired)


def _find_in_folder(folder: Path) -> FindSlide:
    known = slides_in(folder, below=True)

    def find(image: ExportedImage) -> Path:
        try:
            name = parse_pure_path(image.uri).name
        except SlideError:  # it was on a server
            name = image.name
        return known.find(name)

    return find


def _find_as_stated(places: Locations) -> FindSlide:
    return lambda image: places.find(image.uri)


def _mpp(image: ExportedImage) -> Mpp | None:
    if image.mpp_x is None or image.mpp_y is None:
        return None
    return Mpp(image.mpp_x, image.mpp_y)
