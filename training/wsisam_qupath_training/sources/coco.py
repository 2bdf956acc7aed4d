"""MS COCO polygons and their images: ``CATCH.json`` or ``CATCH.sqlite``, and files like them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

from wsisam_qupath.errors import SlideError
from wsisam_qupath.files.names import compose
from wsisam_qupath.geojson.coco import CocoAnnotations, read_coco_annotations
from wsisam_qupath.prompts import Skipped
from wsisam_qupath.report.progress import count_noun
from wsisam_qupath.slide import SlideReference
from wsisam_qupath.slide.names import find_existing, split_location

from ..dataset import AnnotatedImage, Dataset, Part, Truth
from .areas import make_truths
from .painting import AreaCheck, check_areas, paint
from .slides import SlideFolder, slides_in


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

    Where the areas that the file states leave out what an outline encloses, as those of CATCH do,
    inner outlines are cut out of outer ones; so they are in databases of SlideRunner.

    Args:
        slides: folder with the images by the names in the file, also in its subfolders.
        mpp: µm/px of all images; None takes what they state.
        group_of, part_of: find patient and part by the image's name without its ending.

    Raises:
        PromptError: the file is not COCO.
        SlideError: there is no folder ``slides``.
    """
    catch = read_coco_annotations(file)
    known = slides_in(slides, below=True)
    truths = {name: make_truths(features) for name, features in catch.features.items()}
    layers = _Layers(catch, truths.values())
    images: list[AnnotatedImage] = []
    damaged = list(catch.damaged)
    stems = Counter(
        compose(Path((name, *split_location(name))[-1]).stem) for name in catch.features
    )
    for name, drawn in truths.items():
        try:
            path = _find_image(known, name)
        except SlideError as exc:
            damaged.append(Skipped(name, str(exc)))
            continue
        stem = compose(path.stem)
        images.append(
            AnnotatedImage(
                stem if stems[stem] == 1 else name,
                dataset,
                group_of(stem),
                SlideReference(str(path.resolve()), mpp, as_qupath=False),
                layers.lay(drawn, name, damaged),
                part=part_of(stem),
            )
        )
    return Dataset(tuple(images), tuple(damaged), catch.repaired, layers.notes(file))


class _Layers:
    """Lays outlines over each other, or leaves them as they are, and counts what it does."""

    def __init__(self, annotations: CocoAnnotations, images: Iterable[tuple[Truth, ...]]) -> None:
        self._areas = annotations.areas
        self._is_painted = annotations.is_painted
        self._check = AreaCheck()
        if self._areas:
            self._check = sum((check_areas(one, self._areas) for one in images), AreaCheck())
            self._is_painted |= self._check.leaves_out_enclosed
        self._cut = 0

    def lay(
        self, truths: tuple[Truth, ...], image: str, damaged: list[Skipped]
    ) -> tuple[Truth, ...]:
        """Lay one image's outlines over each other; wholly hidden ones count as damaged."""
        if not self._is_painted:
            return truths
        painted = paint(truths)
        self._cut += painted.cut
        damaged += [
            Skipped(f"{image}, object {name}", "others cover it wholly") for name in painted.hidden
        ]
        return painted.truths

    def notes(self, file: Path) -> tuple[str, ...]:
        """Notes for the user."""
        notes = []
        if self._cut:
            notes.append(
                f"{file.name}: inner outlines were cut out of {count_noun(self._cut, 'outline')} "
                "around them."
            )
        if differing := len(self._check.differing):
            notes.append(
                f"{file.name} states another area than its outline has for "
                f"{count_noun(differing, 'object')} of {len(self._areas)}."
            )
        return tuple(notes)


def _find_image(slides: SlideFolder, name: str) -> Path:
    """Find the image that a file name means, which may be a path of another computer.

    Raises:
        SlideError: it is not in the folder.
    """
    parts = split_location(name)
    found = find_existing(slides.folder.joinpath(*parts)) if parts else None
    if found is not None and found.is_file():
        return found
    return slides.find_location(name)
