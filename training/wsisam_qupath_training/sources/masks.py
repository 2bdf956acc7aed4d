"""Images with label masks beside them: 0 is background, k is object k."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import shapely
import shapely.affinity
from numpy.typing import NDArray
from shapely.geometry import MultiPolygon, Polygon
from skimage.measure import label, regionprops

from wsisam_qupath.errors import SlideError
from wsisam_qupath.files.names import name_key
from wsisam_qupath.geometry import Mpp, PatchPair
from wsisam_qupath.geometry.polygons import mask_to_polygon
from wsisam_qupath.prompts import Skipped
from wsisam_qupath.slide import SlideReference
from wsisam_qupath.slide.opening import read_size

from ..dataset import AnnotatedImage, Dataset, Part, Truth
from .marks import MARK_DAMAGE, read_marks
from .slides import named_files, slides_in

Labels = NDArray[np.integer]

SMALLEST_PX = 16
"""Objects of fewer pixels say nothing about an outline."""


def read_masks(
    folder: Path,
    *,
    dataset: str,
    mpp: float | None,
    ending: str = "_instances.png",
    class_name: str = "object",
    group_of: Callable[[str], str] = str,
    part_of: Callable[[str], Part | None] = lambda _: None,
) -> Dataset:
    """Read ``NAME_instances.png`` with ``NAME.jpg`` (or another image) for each NAME.

    A mask with two values marks regions: each connected one is an object.

    Args:
        mpp: µm/px of the images; None takes what they state.
        group_of, part_of: find patient and part by NAME.
    """
    images: list[AnnotatedImage] = []
    damaged: list[Skipped] = []
    slides = slides_in(folder, ending=ending).bare_paths
    for mask in named_files(folder, ending):
        name = mask.name[: -len(ending)]
        image = slides.get(name_key(name))
        if image is None:
            damaged.append(Skipped(mask.name, "there is no image beside it"))
            continue
        try:
            labels = _labels(mask)
            check_size(labels, image)
        except MARK_DAMAGE as exc:
            damaged.append(Skipped(mask.name, f"it cannot be used ({exc})"))
            continue
        truths, lost = _truths(labels, class_name)
        damaged += [Skipped(f"{mask.name}, object {number}", reason) for number, reason in lost]
        images.append(
            AnnotatedImage(
                name,
                dataset,
                group_of(name),
                SlideReference(str(image.resolve()), mpp, as_qupath=False),
                truths,
                part=part_of(name),
            )
        )
    return Dataset(tuple(images), tuple(damaged))


def check_size(labels: Labels, image: Path) -> None:
    """Check that a mask is as large as its image; whether that one is sound is seen later.

    Raises:
        ValueError: the image has another size.
    """
    height, width = labels.shape
    try:
        size = read_size(image)
    except SlideError:
        return
    if size != (width, height):
        raise ValueError(
            f"it has {width} x {height} pixels, and its image has {size[0]} x {size[1]}"
        )


def _labels(path: Path) -> Labels:
    marks = read_marks(path)
    if len(np.unique(marks)) <= 2:
        connected: Labels = label(marks > 0)  # type: ignore[no-untyped-call]
        return connected
    return marks


def _truths(labels: Labels, class_name: str) -> tuple[tuple[Truth, ...], list[tuple[int, str]]]:
    truths, lost = [], []
    for number, outline in trace_outlines(labels):
        if outline is None:
            lost.append((number, f"it has fewer than {SMALLEST_PX} pixels"))
        else:
            truths.append(Truth(str(number), outline, class_name))
    return tuple(truths), lost


def trace_outlines(
    labels: Labels | NDArray[np.bool_],
) -> Iterator[tuple[int, Polygon | MultiPolygon | None]]:
    """Trace each object's outline between pixel centers, with its holes, px of the mask.

    Args:
        labels: H x W; 0 is background, k is object k, and of a mask each connected region is one.

    Yields:
        Number and outline, level-0 px of the mask; None where it is too small to have one.
    """
    if labels.dtype == np.bool_:
        labels = label(labels)  # type: ignore[no-untyped-call]
    for region in regionprops(labels):  # type: ignore[no-untyped-call]
        if region.num_pixels < SMALLEST_PX:
            yield region.label, None
            continue
        row, column, _, _ = region.bbox
        outline = outline_mask(region.image, simplify_px=0.0)
        yield region.label, outline and shapely.affinity.translate(outline, column, row)


def outline_mask(inside: NDArray[np.bool_], simplify_px: float) -> Polygon | MultiPolygon | None:
    """Trace where a mask is true, px of the mask; an object at its edge ends there."""
    side = max(inside.shape) + 2
    logits = np.full((side, side), -1.0, dtype=np.float32)
    logits[1 : inside.shape[0] + 1, 1 : inside.shape[1] + 1][inside] = 1.0
    # A pair whose level-0 pixels are those of the mask, less the pixel of padding.
    frame = PatchPair(side / 2 - 1, side / 2 - 1, 1.0, side, Mpp(1.0, 1.0))
    return mask_to_polygon(logits, frame, simplify_um=simplify_px, min_area_um2=0.0)


def read_cover(path: Path) -> Polygon | MultiPolygon | None:
    """Read where a mask is not 0, px; None where it is 0 everywhere."""
    inside = read_marks(path) > 0
    return outline_mask(inside, simplify_px=1.0)
