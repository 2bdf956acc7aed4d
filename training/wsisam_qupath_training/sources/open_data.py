"""Read an open data set from the folder that torch-em's loader filled; torch-em is not needed."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from shapely.affinity import affine_transform
from shapely.geometry import MultiPolygon, Polygon

from wsisam_qupath.errors import PromptError
from wsisam_qupath.prompts import Skipped
from wsisam_qupath.report.progress import count_noun
from wsisam_qupath.slide import SlideReference, open_slide
from wsisam_qupath.slide.names import natural_key

from ..dataset import AnnotatedImage, Dataset, Truth
from .groups import GroupOf
from .marks import MARK_DAMAGE, read_marks
from .mask_slides import IsInside, MaskSlide, map_to_l0, read_mask_slide
from .masks import check_size, outline_mask, trace_outlines
from .open_sets import OpenSet

LARGEST_PX = 1 << 26
"""Masks of slides are read at the finest scale at which they have no more pixels than this."""

_FINE_UM = 0.5
"""Finer masks are thinned out: tracing them would take minutes, and nobody draws that exactly."""

_SIZE_TOLERANCE = 0.02
"""Share by which the sizes of a slide and its mask may differ: some scanners fill the last tile."""

_Region: TypeAlias = tuple[str, Polygon | MultiPolygon]
"""The class of an object, and its outline in level-0 px."""


def read_open_set(
    folder: Path,
    known: OpenSet,
    *,
    dataset: str,
    mpp: float | None = None,
    group_of: GroupOf | None = None,
    slides: Sequence[str] = (),
) -> Dataset:
    """Read the images of a set and what its masks outline.

    Args:
        mpp: µm/px instead of what the set states.
        group_of: patient by the file's name without its ending, instead of what is known.
        slides: only these, by their names without ending; empty is all.

    Raises:
        PromptError: nothing of the set is in the folder.
    """
    images = _images(folder, known)
    if not images:
        raise PromptError(
            f"{folder} holds no images where torch-em puts them. Remove the folder, so that the "
            "set is downloaded again, or correct the collection."
        )
    reader = _Reader(folder, known, dataset, mpp or known.mpp, group_of or known.groups(folder))
    for name, image in _name(images, folder).items():
        if not slides or image.stem in slides:
            reader.read(name, image)
    return reader.finish()


def find_slide(folder: Path, known: OpenSet, slide: str) -> Path | None:
    """Find a slide by its name without ending; None where it is not there."""
    return next((path for path in _images(folder, known) if path.stem == slide), None)


def _images(folder: Path, known: OpenSet) -> list[Path]:
    found = (path for pattern in known.images for path in folder.glob(pattern))
    images = [path for path in found if not path.name.startswith(".")]
    if known.has_slides:
        images = [path for path in images if not path.stem.endswith("_mask")]
    return sorted(images, key=lambda path: natural_key(path.as_posix()))


def _name(images: Sequence[Path], folder: Path) -> dict[str, Path]:
    """Name each image: by its file, with the folders where two files have the same name."""
    counts = Counter(path.stem for path in images)
    return {
        path.stem
        if counts[path.stem] == 1
        else path.relative_to(folder).with_suffix("").as_posix(): path
        for path in images
    }


@dataclass(frozen=True)
class _Read:
    """The objects of one image, and where its annotation is complete (None is everywhere)."""

    regions: list[_Region]
    l0_complete: Polygon | MultiPolygon | None
    mpp: float


class _Reader:
    """Reads the images of a set one by one, and lists what could not be used."""

    def __init__(
        self, folder: Path, known: OpenSet, dataset: str, mpp: float | None, group_of: GroupOf
    ) -> None:
        self._folder, self._known, self._dataset = folder, known, dataset
        self._mpp, self._group_of = mpp, group_of
        self._images: list[AnnotatedImage] = []
        self._damaged: list[Skipped] = []
        self._n_crumbs = 0

    def read(self, name: str, image: Path) -> None:
        """Read an image and its mask, or tell why not."""
        mask = self._known.mask_of(image)
        if not mask.is_file():
            self._damaged.append(Skipped(name, "there is no mask of it"))
            return
        try:
            read = self._read_slide if self._known.has_slides else self._read
            found = read(image, mask)
        except (*MARK_DAMAGE, PromptError) as exc:
            self._damaged.append(Skipped(name, f"it cannot be used ({exc})"))
            return
        self._images.append(
            AnnotatedImage(
                name,
                self._dataset,
                self._group_of(image.stem),
                SlideReference(str(image.resolve()), self._mpp, as_qupath=False),
                self._truths(found),
                found.l0_complete,
            )
        )

    def finish(self) -> Dataset:
        """Make a dataset of all that was read."""
        notes = []
        if self._n_crumbs:
            regions = count_noun(self._n_crumbs, "region")
            notes.append(
                f"{self._folder.name}: left out {regions} of masks that "
                f"{'is' if self._n_crumbs == 1 else 'are'} smaller than "
                f"{self._known.smallest_um:g} µm."
            )
        return Dataset(tuple(self._images), tuple(self._damaged), notes=tuple(notes))

    def _truths(self, found: _Read) -> tuple[Truth, ...]:
        least_px = math.pi * (self._known.smallest_um / found.mpp / 2) ** 2
        large = [one for one in found.regions if one[1].area >= least_px]
        self._n_crumbs += len(found.regions) - len(large)
        return tuple(
            Truth(f"{class_name} {number}", outline, class_name)
            for number, (class_name, outline) in enumerate(large, start=1)
        )

    def _read(self, image: Path, mask: Path) -> _Read:
        """Read the objects of an image that is no slide.

        Raises one of MARK_DAMAGE, or PromptError where nothing is annotated.
        """
        assert self._mpp is not None  # the collection asks for it
        marks = read_marks(mask)
        check_size(marks, image)
        step = max(1, int(_FINE_UM / self._mpp))
        marks, to_l0 = marks[step // 2 :: step, step // 2 :: step], map_to_l0(step)
        unknown = np.isin(marks, self._known.unknown)
        if unknown.all():
            raise PromptError("nothing of it is annotated")
        complete = outline_mask(~unknown, simplify_px=1.0) if unknown.any() else None
        regions = [
            (class_name, affine_transform(outline, to_l0))
            for class_name, numbers in self._known.classes.items()
            if (inside := _is_one_of(numbers)(marks)).any()
            for _, outline in trace_outlines(inside)
            if outline is not None
        ]
        return _Read(regions, complete and affine_transform(complete, to_l0), self._mpp)

    def _read_slide(self, image: Path, mask: Path) -> _Read:
        """Read the objects of a slide.

        Raises:
            SlideError, PromptError: the slide or its mask cannot be used.
        """
        with open_slide(image, mpp=self._mpp, as_qupath=False) as slide:
            size_px, mpp = (slide.width_px, slide.height_px), slide.mpp
        regions: list[_Region] = []
        for class_name, numbers in self._known.classes.items():
            read = read_mask_slide(mask, _is_one_of(numbers), largest_px=LARGEST_PX)
            regions += ((class_name, outline) for outline in _slide_outlines(read, size_px))
        return _Read(regions, None, math.sqrt(mpp.x * mpp.y))


def _is_one_of(numbers: tuple[int, ...]) -> IsInside:
    def is_inside(marks: NDArray[Any]) -> NDArray[np.bool_]:
        inside: NDArray[np.bool_] = np.isin(marks, numbers) if numbers else marks > 0
        return inside

    return is_inside


def _slide_outlines(mask: MaskSlide, size_px: tuple[int, int]) -> Iterator[Polygon | MultiPolygon]:
    """Trace the outlines in a mask that covers the same area as its slide, level-0 px.

    Raises:
        PromptError: it is of another slide.
    """
    full, level = mask.full_size_px, mask.level_size_px
    if any(abs(a / b - 1) > _SIZE_TOLERANCE for a, b in zip(full, size_px, strict=True)):
        raise PromptError(
            f"its mask has {full[0]} x {full[1]} pixels, and it has {size_px[0]} x {size_px[1]}"
        )
    to_l0 = mask.to_l0((full[0] / level[0], full[1] / level[1]))
    for _, outline in trace_outlines(mask.inside):
        if outline is not None:
            yield affine_transform(outline, to_l0)
