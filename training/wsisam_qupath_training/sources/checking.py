"""Checks that the images of every format must pass before training."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from wsisam_qupath.errors import OptionError, SlideError
from wsisam_qupath.geometry import Box
from wsisam_qupath.prompts import Skipped
from wsisam_qupath.slide import Slide, open_slide

from ..dataset import AnnotatedImage, Dataset, Truth

SMALLEST_AREA_PX = 9.0
"""Smaller objects, in level-0 px², say nothing about an outline."""


def check_dataset(dataset: Dataset, *, mpp_if_unstated: float | None = None) -> Dataset:
    """Open each slide once; leave out what cannot be used, with the reason.

    Left out are slides that cannot be opened or have no stated µm/px, objects of fewer than
    :data:`SMALLEST_AREA_PX`, and those that lie wholly off their slide. Fields that lost all of
    their objects stay, and so do objects that overlap or reach over the edge.

    Args:
        mpp_if_unstated: µm/px of slides for which neither the source nor the file states it.
    """
    images: list[AnnotatedImage] = []
    damaged = list(dataset.damaged)
    for image in dataset.images:
        try:
            found = _check_image(image, mpp_if_unstated)
        except (SlideError, OptionError) as exc:
            damaged.append(Skipped(image.name, str(exc)))
            continue
        images.append(found.image)
        damaged += found.lost
    return replace(dataset, images=tuple(images), damaged=tuple(damaged))


@dataclass(frozen=True)
class _Checked:
    image: AnnotatedImage
    lost: list[Skipped]


def _check_image(image: AnnotatedImage, mpp_if_unstated: float | None) -> _Checked:
    """Check one image.

    Raises:
        SlideError: its slide cannot be opened, or states no µm/px.
        OptionError: its µm/px is out of range.
    """
    own = image.slide
    with own.open() if own.mpp else _open_slide(image, mpp_if_unstated) as slide:
        l0_box, reference = slide.l0_box, own if own.mpp else slide.reference
    reasons = [(truth, _reason_against(truth, l0_box)) for truth in image.truths]
    return _Checked(
        replace(
            image,
            slide=reference,
            truths=tuple(truth for truth, reason in reasons if reason is None),
        ),
        [
            Skipped(f"{image.name}, object {truth.id}", reason)
            for truth, reason in reasons
            if reason is not None
        ],
    )


def _open_slide(image: AnnotatedImage, mpp_if_unstated: float | None) -> Slide:
    return open_slide(
        Path(image.slide.location),
        mpp_if_unstated=mpp_if_unstated,
        as_qupath=image.slide.as_qupath,
    )


def _reason_against(truth: Truth, l0_box: Box) -> str | None:
    shared = truth.l0_box.intersection(l0_box)
    if shared.width <= 0 or shared.height <= 0:
        return "it lies outside of the slide"
    if truth.l0_outline.area < SMALLEST_AREA_PX:
        return f"it has fewer than {SMALLEST_AREA_PX:g} pixels"
    return None
