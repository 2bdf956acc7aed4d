"""Slides with QuPath's own *Export objects as GeoJSON* beside them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from wsisam_qupath.errors import PromptError, SlideError
from wsisam_qupath.geojson import Feature
from wsisam_qupath.geojson.cleaning import Cleaned, iterate_features, read_objects
from wsisam_qupath.project.export.truth import select_truth
from wsisam_qupath.prompts import Skipped
from wsisam_qupath.qupath.values import ImageContents
from wsisam_qupath.slide import SlideReference
from wsisam_qupath.slide.names import strip_format

from ..dataset import AnnotatedImage, Dataset
from .areas import split_areas
from .groups import GroupOf
from .slides import SlideFolder, named_files, slides_in

ENDINGS = (".geojson", ".geojson.gz", ".json")
"""Endings of the annotation files; the last one, which HuBMAP uses, counts only without the
others."""


def read_geojson(
    folder: Path, *, dataset: str, group_of: GroupOf = str, slides: Path | None = None
) -> Dataset:
    """Read ``NAME.geojson`` with ``NAME.svs`` (or another slide) for each NAME.

    What is truth goes by the rules of ``export``: areas that a person drew or checked, children
    too; not points, lines, rectangles, classes that end in ``*`` and detections, which are counted.
    Areas of class ``Region*`` say where an image is annotated completely, see :func:`.split_areas`.

    Args:
        group_of: finds the patient by the slide's name without its ending.
        slides: folder of the slides, if they are not beside the GeoJSON.

    Raises:
        SlideError: there is no folder ``slides``.
    """
    known = slides_in(slides, below=True) if slides else slides_in(folder)
    images: list[AnnotatedImage] = []
    damaged: list[Skipped] = []
    repaired = 0
    files = next(filter(None, (named_files(folder, ending) for ending in ENDINGS)), [])
    for file in files:
        try:
            cleaned = read_objects(file)
            image, left_out = _read_image(file, cleaned, known, dataset, group_of)
        except (PromptError, SlideError) as exc:
            damaged.append(Skipped(file.name, str(exc)))
            continue
        damaged += [Skipped(f"{file.name}, {case.id}", case.reason) for case in cleaned.skipped]
        damaged += left_out
        repaired += cleaned.repaired
        images.append(image)
    return Dataset(tuple(images), tuple(damaged), repaired)


def _read_image(
    file: Path, cleaned: Cleaned, known: SlideFolder, dataset: str, group_of: GroupOf
) -> tuple[AnnotatedImage, list[Skipped]]:
    """Read the image of a file, and what in it is no ground truth.

    Raises:
        SlideError: its slide is not there.
    """
    name = Path(file.stem).stem if file.suffix.lower() == ".gz" else file.stem
    slide = known.find(name)
    flat = list(iterate_features(cleaned.features))
    drawn = [_without_children(one) for one in flat if _type(one) == "annotation"]
    truth = select_truth(ImageContents(len(flat) + 1, tuple(drawn), ()))
    left_out = Counter(truth.left_out)
    left_out.update(f"{_type(one)}s" for one in flat if _type(one) != "annotation")
    areas = split_areas(truth.features)
    return (
        AnnotatedImage(
            name,
            dataset,
            group_of(strip_format(slide.name)),
            SlideReference(str(slide)),
            areas.truths,
            areas.l0_complete,
        ),
        [Skipped(file.name, f"left out: {count} {what}") for what, count in left_out.items()],
    )


def _type(feature: Feature) -> str:
    return str(feature["properties"]["objectType"])


def _without_children(feature: Feature) -> Feature:
    properties = {k: v for k, v in feature["properties"].items() if k != "childObjects"}
    return {**feature, "properties": properties}
