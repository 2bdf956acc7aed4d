"""Training samples: augmented patch pairs with the objects in them. No model, no PyTorch."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeVar

import numpy as np
import shapely
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict
from pydantic import Field as Limited
from shapely.geometry import MultiPolygon, Polygon

from wsisam_qupath.geometry import Box, FloatArray, PatchPair
from wsisam_qupath.geometry.polygons import cover_patch
from wsisam_qupath.inference.backends import ImageArray
from wsisam_qupath.prompts import Prompt
from wsisam_qupath.prompts.encoding import MASK_PX
from wsisam_qupath.prompts.planner import Planner
from wsisam_qupath.slide import Slide

from ..dataset import AnnotatedImage, Truth

Mask = NDArray[np.bool_]
Rng = np.random.Generator
S = TypeVar("S", bound=np.generic)

TURNS = 8
"""Number of turns: four quarter turns, and the same of the mirror image."""


class SamplingSettings(BaseModel):
    """How patch pairs are sampled.

    Pairs come in chains about one center: the LR patch of each is the HR patch of the next, so
    that a chain of two pairs needs three encodes, and shows one object at three scales.

    Attributes:
        placement: ``object`` places pairs around objects, at scales that fit them; ``random``
            anywhere that a patch meets an annotation, at one scale, where objects end with their
            patch (see :func:`.draw_random_patches`). The settings of scales, centers and anchors
            below are for ``object``.
        chain: number of pairs in a chain.
        zoomed_share: share of the chains with a free scale, at which the object's longest side is
            between the two ``zoomed_*`` multiples of the first HR patch (log-uniform). Above 1 it
            does not fit; its outline beyond the patch is known all the same.
        default_share: share of the chains with the scale at which one click is answered.
        scale_jitter: standard deviation of the logarithm of the scale.
        center_jitter: how far the center strays along each axis, as a share of the HR patch
            (uniform).
        on_point_share: share of the chains that are centered on a point in the object instead of
            its box.
        widest_share: largest width of the HR patch, as a share of the image's longer side.
        stain_jitter: standard deviation of the logarithm of the optical densities' gains.
        mixing_jitter: standard deviation of how much the optical densities of the channels mix.
        largest_objects: largest number of objects in a pair; more are left out at random.
        least_visible: share of an object's area that must lie in the HR patch, except for the
            object that the chain was placed for.
        least_mask_px: least number of pixels of the 256 x 256 mask that an object must cover.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    placement: Literal["object", "random"] = "object"
    chain: int = Limited(default=2, ge=1, le=4)
    zoomed_share: float = Limited(default=0.5, ge=0, le=1)
    zoomed_least: float = Limited(default=0.06, gt=0, le=1)
    zoomed_most: float = Limited(default=3.0, gt=0, le=8)
    default_share: float = Limited(default=0.15, ge=0, le=1)
    scale_jitter: float = Limited(default=0.18, ge=0)
    center_jitter: float = Limited(default=0.125, ge=0, le=0.5)
    on_point_share: float = Limited(default=0.4, ge=0, le=1)
    widest_share: float = Limited(default=1.2, gt=0)
    stain_jitter: float = Limited(default=0.12, ge=0)
    mixing_jitter: float = Limited(default=0.04, ge=0)
    largest_objects: int = Limited(default=8, ge=1)
    least_visible: float = Limited(default=0.6, ge=0, le=1)
    least_mask_px: int = Limited(default=48, ge=1)


@dataclass(frozen=True)
class Sample:
    """Where to read a patch pair, and how its pixels are changed.

    Attributes:
        image: index of the image.
        pair: patch pair to read, before it is turned.
        level: number of the pair in its chain; 0 is the finest.
        turn: number of the turn, 0 to 7; see :func:`turn_array`.
        stain: 3 x 3 matrix by which optical densities are multiplied.
        anchor: id of the object that the pair was placed for; empty where it was placed at random.
        seed: random seed for the choice of the other objects.
    """

    image: int
    pair: PatchPair
    level: int
    turn: int
    stain: tuple[tuple[float, float, float], ...]
    anchor: str
    seed: int


@dataclass(frozen=True)
class SampleMasks:
    """The objects of a view over both patches, after its turn.

    Attributes:
        hr_masks, lr_masks: N x 256 x 256 masks of the objects; the anchor is the first.
        hr_objects: 256 x 256 pixels of any object, also of those that were left out.
        hr_known, lr_known: 256 x 256 pixels where the annotation is known.
        hr_whole_px: N areas of the whole objects, also outside of the patch, HR mask px; in patches
            placed at random only the area inside.
        is_whole: N flags, whether the object lies wholly in the HR patch.
    """

    hr_masks: Mask
    lr_masks: Mask
    hr_objects: Mask
    hr_known: Mask
    lr_known: Mask
    hr_whole_px: FloatArray
    is_whole: Mask

    def select(self, rows: Sequence[int]) -> SampleMasks:
        """Select objects by their places, as if no others were annotated."""
        own = list(rows)
        hr_masks = self.hr_masks[own]
        return replace(
            self,
            hr_masks=hr_masks,
            lr_masks=self.lr_masks[own],
            hr_objects=_merge_masks(list(hr_masks)),
            hr_whole_px=self.hr_whole_px[own],
            is_whole=self.is_whole[own],
        )


def draw_samples(
    images: Sequence[AnnotatedImage],
    slides: Sequence[Slide],
    count: int,
    *,
    size_px: int,
    hr_mpp: float,
    weights: Mapping[str, float],
    settings: SamplingSettings,
    seed: int,
) -> Iterator[Sample]:
    """Draw views around objects: datasets by weight, larger objects more often (by the root).

    The first of many views are those of fewer.

    Args:
        count: number of samples; the last chain may stay unfinished.
        images, slides: images of one part of the split with their slides, in the same order; images
            without objects are never read.
        size_px, hr_mpp: side of the base's input, px, and the scale that the adapter is for, µm/px.
        weights: weight of each dataset by name; 1 where none is given.
    """
    choices = _choices(images, slides, weights)
    for number in range(math.ceil(count / settings.chain)):
        rng = np.random.default_rng((seed, number))
        image, truth = choices.objects[int(rng.choice(len(choices.objects), p=choices.shares))]
        planner = Planner(slides[image].mpp, size_px, hr_mpp)
        finest = _draw_sample(image, truth, slides[image], planner, settings, rng)
        for level in range(min(settings.chain, count - number * settings.chain)):
            yield coarsen(finest, level)


def read_patches(slide: Slide, sample: Sample) -> tuple[ImageArray, ImageArray]:
    """Read the HR and the LR patch of a view, S x S x 3 uint8 RGB each, turned and stained."""
    hr_l0_box, lr_l0_box = sample.pair.l0_boxes
    return read_patch(slide, sample, hr_l0_box), read_patch(slide, sample, lr_l0_box)


def read_patch(slide: Slide, sample: Sample, l0_box: Box) -> ImageArray:
    """Read one patch of a sample, S x S x 3 uint8 RGB, turned and stained."""
    size_px = sample.pair.size_px
    patch = turn_array(slide.read(l0_box, size_px, size_px), sample.turn)
    return restain(patch, np.array(sample.stain))


def turn_array(array: NDArray[S], turn: int) -> NDArray[S]:
    """Apply one of eight symmetries: bit 4 mirrors left and right, then come quarter turns."""
    if turn >= TURNS // 2:
        array = array[:, ::-1]
    return np.ascontiguousarray(np.rot90(array, turn % 4))


def restain(patch: ImageArray, stain: FloatArray) -> ImageArray:
    """Multiply optical densities by a 3 x 3 matrix; white stays white."""
    density = -np.log((patch.astype(np.float32) + 1) / 256)
    changed = 256 * np.exp(-np.maximum(density @ stain.T.astype(np.float32), 0)) - 1
    whole: ImageArray = np.clip(np.rint(changed), 0, 255).astype(np.uint8)
    return whole


def rasterize_targets(
    image: AnnotatedImage, sample: Sample, settings: SamplingSettings
) -> SampleMasks:
    """Rasterize the objects of an image as they lie in a view."""
    pair = sample.pair
    chosen, near, hr_masks, whole_px = _choose_objects(image, sample, settings)
    hr_box = shapely.box(*_xyxy(pair, 1.0))
    return SampleMasks(
        hr_masks=_stack_masks([turn_array(hr_masks[t.id], sample.turn) for t in chosen]),
        lr_masks=_stack_masks(
            [turn_array(_raster(t.l0_outline, pair, 2.0), sample.turn) for t in chosen]
        ),
        hr_objects=turn_array(_merge_masks(list(hr_masks.values())), sample.turn),
        hr_known=turn_array(_rasterize_known(image, near, pair, 1.0), sample.turn),
        lr_known=turn_array(_rasterize_known(image, near, pair, 2.0), sample.turn),
        hr_whole_px=np.array([whole_px[t.id] for t in chosen], dtype=np.float64),
        is_whole=np.array([hr_box.contains(t.l0_outline) for t in chosen], dtype=bool),
    )


def name_objects(
    image: AnnotatedImage, sample: Sample, settings: SamplingSettings
) -> tuple[str, ...]:
    """List the ids of a view's objects, in the order of :func:`rasterize_targets`."""
    return tuple(truth.id for truth in _choose_objects(image, sample, settings)[0])


def _choose_objects(
    image: AnnotatedImage, sample: Sample, settings: SamplingSettings
) -> tuple[list[Truth], list[Truth], dict[str, Mask], dict[str, float]]:
    """Choose the objects near a view, and of those their masks and areas in the HR patch."""
    pair, rng = sample.pair, np.random.default_rng(sample.seed)
    near = _find_near(image, pair)
    hr_masks = {t.id: _raster(t.l0_outline, pair, 1.0) for t in near}
    whole_px = {t.id: _measure_whole_px(t, pair) for t in near}
    if settings.placement == "random":
        whole_px = {name: float(mask.sum()) for name, mask in hr_masks.items()}
    enough = [t for t in near if _is_seen(t, hr_masks[t.id], whole_px[t.id], sample, settings)]
    others = [t for t in enough if t.id != sample.anchor]
    order = rng.permutation(len(others))[: settings.largest_objects - 1]
    chosen = [t for t in enough if t.id == sample.anchor] + [others[i] for i in order]
    return chosen, near, hr_masks, whole_px


@dataclass(frozen=True)
class _Choices:
    objects: list[tuple[int, Truth]]
    shares: FloatArray


def _choices(
    images: Sequence[AnnotatedImage], slides: Sequence[Slide], weights: Mapping[str, float]
) -> _Choices:
    objects = [(index, truth) for index, image in enumerate(images) for truth in image.truths]
    sizes = np.array([math.sqrt(_measure_longest_um(t, slides[i])) for i, t in objects])
    names = np.array([images[i].dataset for i, _ in objects])
    shares = np.zeros(len(objects))
    for name in set(names.tolist()):
        own = names == name
        shares[own] = weights.get(name, 1.0) * sizes[own] / sizes[own].sum()
    return _Choices(objects, shares / shares.sum())


def _draw_sample(
    image: int, truth: Truth, slide: Slide, planner: Planner, settings: SamplingSettings, rng: Rng
) -> Sample:
    scale = _scale(truth, planner, settings, rng) * math.exp(rng.normal(0, settings.scale_jitter))
    sides_um = np.array([slide.width_px * slide.mpp.x, slide.height_px * slide.mpp.y])
    hr_mpp = min(scale, settings.widest_share * float(sides_um.max()) / planner.size_px)
    patch_um = planner.size_px * hr_mpp
    stray_um = rng.uniform(-1, 1, 2) * settings.center_jitter * patch_um
    mpp = np.array([planner.mpp.x, planner.mpp.y])
    centre_um = move_inwards(
        np.array(_center(truth, settings, rng)) * mpp + stray_um, sides_um, patch_um
    )
    l0_x, l0_y = (centre_um / mpp).tolist()
    return Sample(
        image,
        PatchPair(l0_x, l0_y, hr_mpp, planner.size_px, planner.mpp),
        0,
        int(rng.integers(TURNS)),
        draw_stain(settings, rng),
        truth.id,
        int(rng.integers(2**31)),
    )


def coarsen(sample: Sample, level: int) -> Sample:
    """Make the next pair of a chain: its HR patch is the LR patch of the one before."""
    pair = replace(sample.pair, hr_mpp=sample.pair.hr_mpp * 2**level)
    return replace(sample, pair=pair, level=level, seed=sample.seed + level)


def move_inwards(centre_um: FloatArray, sides_um: FloatArray, patch_um: float) -> FloatArray:
    """Move a patch off the edge of a small image, where the slide would show tissue, not white."""
    half = np.minimum(patch_um, sides_um) / 2
    return np.clip(centre_um, half, sides_um - half)


def _scale(truth: Truth, planner: Planner, settings: SamplingSettings, rng: Rng) -> float:
    """Choose the µm per HR px of a chain, before jitter."""
    kind = rng.random()
    if kind < settings.zoomed_share:
        share = math.exp(
            rng.uniform(math.log(settings.zoomed_least), math.log(settings.zoomed_most))
        )
        box = truth.l0_box
        longest_um = max(box.width * planner.mpp.x, box.height * planner.mpp.y)
        finest = min(planner.mpp.x, planner.mpp.y) / 2
        return max(longest_um / (share * planner.size_px), finest)
    if kind < settings.zoomed_share + settings.default_share:
        return planner.click_mpp
    return planner.pair(Prompt(truth.id, l0_box=truth.l0_box)).hr_mpp


def _center(truth: Truth, settings: SamplingSettings, rng: Rng) -> tuple[float, float]:
    if rng.random() >= settings.on_point_share:
        return truth.l0_box.center
    box = truth.l0_box
    for _ in range(50):
        x, y = rng.uniform(box.x0, box.x1), rng.uniform(box.y0, box.y1)
        if shapely.intersects_xy(truth.l0_outline, x, y):
            return float(x), float(y)
    inside = truth.l0_outline.representative_point()
    return float(inside.x), float(inside.y)


def draw_stain(settings: SamplingSettings, rng: Rng) -> tuple[tuple[float, float, float], ...]:
    """Draw how the stain of a view differs; see :class:`Sample`."""
    common = rng.normal(0, settings.stain_jitter)
    gains = np.exp(common + rng.normal(0, settings.stain_jitter, 3))
    mixing = rng.normal(0, settings.mixing_jitter, (3, 3)) * (1 - np.eye(3))
    matrix = np.diag(gains) + mixing
    return tuple((float(a), float(b), float(c)) for a, b, c in matrix)


def _measure_longest_um(truth: Truth, slide: Slide) -> float:
    return max(truth.l0_box.width * slide.mpp.x, truth.l0_box.height * slide.mpp.y)


def _xyxy(pair: PatchPair, zoom: float) -> tuple[float, float, float, float]:
    box = pair.hr_l0_box if zoom == 1.0 else pair.lr_l0_box
    return box.x0, box.y0, box.x1, box.y1


def _find_near(image: AnnotatedImage, pair: PatchPair) -> list[Truth]:
    """Find the objects with boxes that meet the LR patch, in their order."""
    lr_box = pair.lr_l0_box
    touched = sorted(image.object_index.query(shapely.box(*_xyxy(pair, 2.0))))
    shared = [(t, t.l0_box.intersection(lr_box)) for t in map(image.truths.__getitem__, touched)]
    return [t for t, box in shared if box.width > 0 and box.height > 0]


def _measure_whole_px(truth: Truth, pair: PatchPair) -> float:
    """Measure the area of an object, HR mask px, as if the patch had no end."""
    l0_per_mask = np.array([pair.hr_l0_box.width, pair.hr_l0_box.height]) / MASK_PX
    return float(truth.l0_outline.area / l0_per_mask.prod())


def _is_seen(
    truth: Truth, hr_mask: Mask, whole_px: float, sample: Sample, settings: SamplingSettings
) -> bool:
    share = 0.0 if truth.id == sample.anchor else settings.least_visible
    return int(hr_mask.sum()) >= max(settings.least_mask_px, share * whole_px)


def _raster(outline: Polygon | MultiPolygon, pair: PatchPair, zoom: float) -> Mask:
    """Mask pixels that are covered at least by half, over the HR (zoom 1) or LR patch (2)."""
    return cover_patch(outline, pair, MASK_PX, zoom=zoom) >= 0.5


def _rasterize_known(
    image: AnnotatedImage, near: Sequence[Truth], pair: PatchPair, zoom: float
) -> Mask:
    if image.l0_complete is None:
        return np.ones((MASK_PX, MASK_PX), dtype=bool)
    known = _raster(image.l0_complete, pair, zoom)
    for truth in near:
        known |= _raster(truth.l0_outline, pair, zoom)
    return known


def _merge_masks(masks: Sequence[Mask]) -> Mask:
    """Merge masks: pixels that lie in any of them."""
    inside = np.zeros((MASK_PX, MASK_PX), dtype=bool)
    for mask in masks:
        inside |= mask
    return inside


def _stack_masks(masks: Sequence[Mask]) -> Mask:
    return np.stack(masks) if masks else np.zeros((0, MASK_PX, MASK_PX), dtype=bool)
