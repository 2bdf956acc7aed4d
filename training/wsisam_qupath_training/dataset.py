"""Data classes for annotated images and the objects in them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, TypeAlias

from shapely import STRtree
from shapely.geometry import MultiPolygon, Polygon

from wsisam_qupath.files.names import compose
from wsisam_qupath.geometry import Box
from wsisam_qupath.prompts import Skipped
from wsisam_qupath.slide import SlideReference

Part: TypeAlias = Literal["train", "val", "test"]
"""A part of a split. Patients (or slides) are wholly in one of them."""

PARTS: tuple[Part, ...] = ("train", "val", "test")


@dataclass(frozen=True)
class Truth:
    """An annotated object.

    Attributes:
        id: name of the object, distinct within its image.
        l0_outline: valid, level-0 px.
        class_name: name of its QuPath class, or of its class in the dataset, with composed letters.
    """

    id: str
    l0_outline: Polygon | MultiPolygon
    class_name: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "class_name", compose(self.class_name))

    @property
    def l0_box(self) -> Box:
        """The smallest box around the outline, level-0 px."""
        return Box(*self.l0_outline.bounds)


@dataclass(frozen=True)
class AnnotatedImage:
    """An annotated image: a slide, or a field of view cut from one.

    Attributes:
        name: name of the image, unique in its dataset, with composed letters, as tables are read.
        dataset: name of the collection that it comes from, which is that of its folder, with
            composed letters.
        group: name of its patient, or of its slide where the patient is not known, with composed
            letters. Images of a group always stay in the same part of a split.
        slide: opens the slide, with the µm/px to use.
        truths: the annotated objects of the image.
        l0_complete: area in which every object is annotated; None is the whole image. Outside of
            it, what is no object is unknown, not background.
        part: part of the split that a file of the dataset names for it; None where none does.
        least_points: the fewest points, without a box, by which training asks for its objects.
    """

    name: str
    dataset: str
    group: str
    slide: SlideReference
    truths: tuple[Truth, ...]
    l0_complete: Polygon | MultiPolygon | None = None
    part: Part | None = None
    least_points: int = 1

    def __post_init__(self) -> None:
        for name in ("name", "dataset", "group"):
            object.__setattr__(self, name, compose(getattr(self, name)))

    @cached_property
    def object_index(self) -> STRtree:
        """Search tree over the boxes of the objects; it finds their places in :attr:`truths`."""
        return STRtree([truth.l0_outline for truth in self.truths])


@dataclass(frozen=True)
class Dataset:
    """Annotated images that passed all checks, and what was left out.

    Attributes:
        images: the annotated images, in the order of the source.
        damaged: rows, files or objects that could not be used, each with its reason.
        repaired: number of outlines that crossed themselves and were made valid.
        notes: sentences about anything else that was changed or is unusual.
        has_own_split: whether the data or a table say which part an image belongs in.
    """

    images: tuple[AnnotatedImage, ...]
    damaged: tuple[Skipped, ...] = ()
    repaired: int = 0
    notes: tuple[str, ...] = ()
    has_own_split: bool = False

    def count_objects(self, part: Part, without: Collection[str] = ()) -> int:
        """Count the objects in a part of the split.

        Args:
            without: names of datasets that do not count.
        """
        return sum(
            len(image.truths)
            for image in self.images
            if image.part == part and image.dataset not in without
        )

    @property
    def classes(self) -> Mapping[str, int]:
        """The number of objects of each class, the most frequent class first."""
        counts = Counter(truth.class_name for image in self.images for truth in image.truths)
        return dict(counts.most_common())
