"""MS COCO polygons beside their images: ``CATCH.json`` with its slides, and files like it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

from wsisam_qupath.errors import SlideError
from wsisam_qupath.geojson.coco import read_coco_annotations
from wsisam_qupath.prompts import Skipped
from wsisam_qupath.slide import SlideReference
from wsisam_qupath.slide.names import find_existing, split_location

from ..dataset import AnnotatedImage, Dataset, Part
from .areas import make_truths
from .slides import slides_in


def read_coco(
    file: Path,
    *,
    slides: Path,
    dataset: str,
    mpp: float | None,
    group_of: Callable[[str], str] = str,
    part_of: Callable[[str], Part | None] = lambda _: None,
) -> Dataset:
    """Read polygons in level-0 pixels and the slides that they were drawn on.

    Args:
        slides: folder that holds the images by the names of the file.
        mpp: µm/px of all of them; None takes what they state.
        group_of, part_of: patient and part by the image's name without its ending.

    Raises:
        PromptError: the file is not COCO.
    """
    catch = read_coco_annotations(file)
    images: list[AnnotatedImage] = []
    damaged = list(catch.damaged)
    stems = Counter(Path((name, *split_location(name))[-1]).stem for name in catch.features)
    for name, features in catch.features.items():
        try:
            path = _find_image(slides, name)
        except SlideError as exc:
            damaged.append(Skipped(name, str(exc)))
            continue
        stem = path.stem
        images.append(
            AnnotatedImage(
                stem if stems[stem] == 1 else name,
                dataset,
                group_of(stem),
                SlideReference(str(path.resolve()), mpp, as_qupath=False),
                make_truths(features),
                part=part_of(stem),
            )
        )
    return Dataset(tuple(images), tuple(damaged), catch.repaired)


def _find_image(slides: Path, name: str) -> Path:
    """Find the image that a file name means, which may be a path of another computer.

    Raises:
        SlideError: it is not in the folder.
    """
    parts = split_location(name)
    found = find_existing(slides.joinpath(*parts)) if parts else None
    if found is not None and found.is_file():
        return found
    return slides_in(slides, below=True).find_location(name)
