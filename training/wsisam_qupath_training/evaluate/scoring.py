"""How well a mask fits an annotated object while it is clicked, in pixels over one patch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import shapely
from shapely.geometry import MultiPolygon, Polygon

from wsisam_qupath.errors import OptionError
from wsisam_qupath.geometry import FloatArray, PatchPair
from wsisam_qupath.geometry.raster import pixel_coverage
from wsisam_qupath.geometry.validity import make_valid
from wsisam_qupath.prompts.encoding import MASK_PX, MaskArray

from ..dataset import AnnotatedImage
from ..sampling.clicker import Mask


@dataclass(frozen=True)
class Target:
    """An object over a patch.

    Attributes:
        truth: S x S, pixels of which the object covers at least half.
        known: S x S, pixels where the annotation is known; others do not count.
        outside_px: area of the object outside of the patch, pixels of this raster.
    """

    truth: Mask
    known: Mask
    outside_px: float


@dataclass(frozen=True)
class Overlap:
    """Areas of an object, of an answer, and of what they share, pixels."""

    truth_px: float
    predicted_px: float
    shared_px: float

    @property
    def iou(self) -> float:
        """The IoU of object and answer, 0 to 1."""
        return self.shared_px / (self.truth_px + self.predicted_px - self.shared_px)


def make_target(
    l0_outline: Polygon | MultiPolygon,
    l0_known: Polygon | MultiPolygon,
    pair: PatchPair,
    side_px: int,
) -> Target:
    """Rasterize an object and the annotated area over the HR patch.

    An object of which no pixel is half covered is the pixel that it covers most.
    """
    outline = _move_to_raster(l0_outline, pair, side_px)
    covered = pixel_coverage(outline, side_px)
    truth = covered >= 0.5
    if not truth.any():
        truth = (covered == covered.max()) & (covered > 0)
    frame = shapely.box(0, 0, side_px, side_px)
    outside = 0.0 if frame.covers(outline) else shapely.difference(outline, frame).area
    return Target(truth, _rasterize_known(l0_known, pair, side_px), float(outside))


def overlap(target: Target, predicted: Mask) -> Overlap:
    """Count the known pixels; parts of the object outside of the patch count as missed."""
    truth, answer = target.truth & target.known, predicted & target.known
    return Overlap(
        max(float(np.count_nonzero(truth)) + target.outside_px, 1.0),
        float(np.count_nonzero(answer)),
        float(np.count_nonzero(truth & answer)),
    )


def check_logits(mask_logits: MaskArray) -> MaskArray:
    """Check that the logits of a foreign model have the right shape, and return them.

    Raises:
        OptionError: it does not.
    """
    if mask_logits.shape != (MASK_PX, MASK_PX):
        raise OptionError(
            "compare",
            f"a model returned logits of shape {mask_logits.shape} instead of {MASK_PX} x "
            f"{MASK_PX} over the HR patch. Correct its predict().",
        )
    return mask_logits


def find_known_part(
    image: AnnotatedImage, slide_box: Polygon | MultiPolygon
) -> Polygon | MultiPolygon:
    """Find the part of an image where the annotation is known; never outside of the image."""
    if image.l0_complete is None:
        return slide_box
    outlines = [truth.l0_outline for truth in image.truths]
    return shapely.intersection(shapely.union_all([image.l0_complete, *outlines]), slide_box)


def _move_to_raster(
    l0_geometry: Polygon | MultiPolygon, pair: PatchPair, side_px: int
) -> Polygon | MultiPolygon:
    def scale(l0_points: FloatArray) -> FloatArray:
        return pair.l0_to_hr(l0_points) * (side_px / pair.size_px)

    return make_valid(shapely.transform(l0_geometry, scale))


def _rasterize_known(l0_known: Polygon | MultiPolygon, pair: PatchPair, side_px: int) -> Mask:
    if shapely.box(*pair.hr_l0_box.corners().ravel()).within(l0_known):
        return np.ones((side_px, side_px), dtype=bool)
    known: Mask = pixel_coverage(_move_to_raster(l0_known, pair, side_px), side_px) >= 0.5
    return known
