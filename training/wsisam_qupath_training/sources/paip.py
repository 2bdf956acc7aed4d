"""PAIP2019: liver slides with the whole and the viable tumour as mask slides beside them."""

from __future__ import annotations

from pathlib import Path

import shapely.affinity

from wsisam_qupath.errors import PromptError, SlideError
from wsisam_qupath.prompts import Skipped
from wsisam_qupath.slide import SlideReference, open_slide
from wsisam_qupath.slide.names import natural_key, strip_format

from ..dataset import AnnotatedImage, Dataset, Truth
from .groups import GroupOf
from .mask_slides import read_mask_slide
from .masks import trace_outlines
from .slides import slides_in

CLASSES = {"_whole.tif": "Whole tumour", "_viable.tif": "Viable tumour"}
"""Classes by the ending of the mask's name."""

LARGEST_PX = 1 << 24
"""A mask is read at the finest scale at which it has no more pixels than this."""

_SHAPE_TOLERANCE = 0.01
"""The scales along x and y may differ by this share: levels are rounded to whole pixels."""


def read_paip(
    folder: Path,
    *,
    dataset: str,
    group_of: GroupOf = str,
    slides: Path | None = None,
    mpp_if_unstated: float | None = None,
) -> Dataset:
    """Read ``NAME_whole.tif`` and ``NAME_viable.tif`` with ``NAME.svs`` for each NAME.

    Each connected region is an object; whole and viable ones overlap. Masks may be at any scale;
    those of slides are read at a coarser one, so that their outlines are exact to some level-0 px.

    Args:
        group_of: finds the patient by the slide's name without its ending.
        slides: folder of the slides, if they are not beside the masks.
        mpp_if_unstated: µm/px of slides that state none.

    Raises:
        SlideError: there is no folder ``slides``.
    """
    known = slides_in(slides, below=True) if slides else slides_in(folder)
    images: list[AnnotatedImage] = []
    damaged: list[Skipped] = []
    for name, masks in _masks(folder).items():
        try:
            slide = known.find(name)
            with open_slide(slide, mpp_if_unstated=mpp_if_unstated) as opened:
                size_px = (opened.width_px, opened.height_px)
        except SlideError as exc:
            damaged.append(Skipped(name, str(exc)))
            continue
        truths: list[Truth] = []
        for mask, class_name in masks:
            try:
                found, lost = _truths(mask, class_name, size_px)
            except PromptError as exc:
                damaged.append(Skipped(mask.name, str(exc)))
                continue
            truths += found
            damaged += lost
        group = group_of(strip_format(slide.name))
        images.append(
            AnnotatedImage(name, dataset, group, SlideReference(str(slide)), tuple(truths))
        )
    return Dataset(tuple(images), tuple(damaged))


def has_masks(folder: Path) -> bool:
    """Whether a slide has a mask, by its name."""
    return bool(_masks(folder))


def _masks(folder: Path) -> dict[str, list[tuple[Path, str]]]:
    """Find masks with their classes, by the slide's name."""
    found: dict[str, list[tuple[Path, str]]] = {}
    for path in sorted(folder.iterdir(), key=lambda path: natural_key(path.name)):
        for ending, class_name in CLASSES.items():
            if path.name.lower().endswith(ending):
                found.setdefault(path.name[: -len(ending)], []).append((path, class_name))
    return found


def _truths(
    path: Path, class_name: str, size_px: tuple[int, int]
) -> tuple[list[Truth], list[Skipped]]:
    """Make the objects of one mask; also count the regions that are too small.

    Raises:
        PromptError: it cannot be read, or is of another slide.
    """
    mask = read_mask_slide(path, lambda marks: marks > 0, largest_px=LARGEST_PX)
    width_px, height_px = mask.level_size_px
    scales = (size_px[0] / width_px, size_px[1] / height_px)
    if abs(scales[0] / scales[1] - 1) > _SHAPE_TOLERANCE:
        raise PromptError(
            f"It has {width_px} x {height_px} pixels, which is no scale of "
            f"its slide with {size_px[0]} x {size_px[1]}: take the mask of this slide."
        )
    truths, lost = [], []
    for number, outline in trace_outlines(mask.inside):
        if outline is None:
            lost.append(Skipped(f"{path.name}, region {number}", "it is too small"))
            continue
        l0_outline = shapely.affinity.affine_transform(outline, mask.to_l0(scales))
        truths.append(Truth(f"{class_name} {number}", l0_outline, class_name))
    return truths, lost
