"""PAIP2019: liver slides with the whole and the viable tumour as mask slides beside them."""

from __future__ import annotations

import math
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import shapely.affinity
from numpy.typing import NDArray

from wsisam_qupath.errors import PromptError, SlideError
from wsisam_qupath.prompts import Skipped
from wsisam_qupath.slide import SlideReference, open_slide
from wsisam_qupath.slide.names import natural_key, strip_format

from ..dataset import AnnotatedImage, Dataset, Truth
from .groups import GroupOf
from .masks import trace_outlines
from .slides import slides_in

CLASSES = {"_whole.tif": "Whole tumour", "_viable.tif": "Viable tumour"}
"""Classes by the ending of the mask's name."""

LARGEST_PX = 1 << 24
"""A mask is read at the finest scale at which it has no more pixels than this."""

_SHAPE_TOLERANCE = 0.01
"""The scales along x and y may differ by this share: levels are rounded to whole pixels."""

_FOREIGN = (OSError, ValueError, KeyError, IndexError, TypeError, struct.error, zlib.error)
"""Errors of tifffile and its codecs on damaged files."""


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
    mask = _read(path)
    scales = (size_px[0] / mask.full_size_px[0], size_px[1] / mask.full_size_px[1])
    if abs(scales[0] / scales[1] - 1) > _SHAPE_TOLERANCE:
        raise PromptError(
            f"It has {mask.full_size_px[0]} x {mask.full_size_px[1]} pixels, which is no scale of "
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


@dataclass(frozen=True)
class _Mask:
    """A mask at a scale at which it fits into memory.

    Attributes:
        inside: H x W, whether a pixel lies in an object.
        full_size_px: (width, height) of the level that it was read from.
        step: number of pixels of that level per pixel of ``inside``, along each axis.
    """

    inside: NDArray[np.bool_]
    full_size_px: tuple[int, int]
    step: int

    def to_l0(self, scales: tuple[float, float]) -> list[float]:
        """The affine map from px of ``inside`` to level-0 px, as shapely takes it.

        Args:
            scales: level-0 px per px of the level that it was read from, along x and y.
        """
        # The middle one of an even number of pixels lies half a pixel behind their center.
        behind = (self.step + 1) % 2 / 2
        x, y = scales
        return [self.step * x, 0.0, 0.0, self.step * y, behind * x, behind * y]


def _read(path: Path) -> _Mask:
    """Read every so many pixels of a level, tile by tile.

    Raises:
        PromptError: it cannot be read.
    """
    import tifffile  # for this format alone

    try:
        with tifffile.TiffFile(path) as tiff:
            page = _finest(tiff.series[0].levels)
            width, height = int(page.imagewidth), int(page.imagelength)
            step = math.ceil(math.sqrt(width * height / LARGEST_PX))
            return _Mask(_subsample(page, step), (width, height), step)
    except (tifffile.TiffFileError, *_FOREIGN) as exc:
        raise PromptError(f"It cannot be read ({exc}): copy it again from its source.") from exc


def _finest(levels: Any) -> Any:
    """Choose the finest level that need not be subsampled, else the coarsest."""
    pages = [level.keyframe for level in levels]
    fitting = [page for page in pages if page.imagewidth * page.imagelength <= LARGEST_PX]
    return fitting[0] if fitting else pages[-1]


def _subsample(page: Any, step: int) -> NDArray[np.bool_]:
    """Take the middle pixel of each ``step`` x ``step`` block."""
    first = step // 2
    size = [-(-(side - first) // step) for side in (page.imagelength, page.imagewidth)]
    inside = np.zeros(size, dtype=np.bool_)
    for tile, (_, _, top, left, *_), _ in page.segments():
        if tile is None:  # not written: all zero
            continue
        y, x = -(-(top - first) // step), -(-(left - first) // step)
        y, x = max(y, 0), max(x, 0)
        marks = tile[0, first + y * step - top :: step, first + x * step - left :: step]
        part = inside[y : y + marks.shape[0], x : x + marks.shape[1]]
        part |= (marks[: part.shape[0], : part.shape[1]] > 0).any(axis=-1)
    return inside
