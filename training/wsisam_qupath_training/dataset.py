"""What training and evaluation speak of: annotated images, and the objects in them."""

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
        id: names it within its image.
        l0_outline: valid, level-0 px.
        class_name: of its QuPath class, or of its dataset; its letters are composed.
    """

    id: str
    l0_outline: Polygon | MultiPolygon
    class_name: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "class_name", compose(self.class_name))

    @property
    def l0_box(self) -> Box:
        """The smallest box around it."""
        return Box(*self.l0_outline.bounds)


@dataclass(frozen=True)
class AnnotatedImage:
    """An annotated image: a slide, or a field of view cut from one.

    Attributes:
        name: unique in its dataset; its letters are composed, as tables are read.
        dataset: which collection it comes from; its folder's name, as composed.
        group: the patient, or the slide where the patient is not known: never split. As composed.
        slide: opens it, with the µm/px to use.
        truths: its objects.
        l0_complete: where the annotation is complete; what is no object outside of it is unknown,
            not background. None is everywhere.
        part: where a file of the dataset says in which part it belongs; None leaves it to us.
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
        """Finds objects by the boxes around them, as places in :attr:`truths`."""
        return STRtree([truth.l0_outline for truth in self.truths])


@dataclass(frozen=True)
class Dataset:
    """Fields that were found sound, and what was not.

    Attributes:
        images: in the order of the source.
        damaged: rows, files or objects that could not be used, each with its reason.
        repaired: outlines that crossed themselves and were made valid.
        notes: what else was done to them or is odd, in sentences.
        has_own_split: whether the data or a table say which part an image belongs in.
    """

    images: tuple[AnnotatedImage, ...]
    damaged: tuple[Skipped, ...] = ()
    repaired: int = 0
    notes: tuple[str, ...] = ()
    has_own_split: bool = False

    def count_objects(self, part: Part, without: Collection[str] = ()) -> int:
        """How many objects a part of the split has.

        Args:
            without: datasets that do not count, by name.
        """
        return sum(
            len(image.truths)
            for image in self.images
            if image.part == part and image.dataset not in without
        )

    @property
    def classes(self) -> Mapping[str, int]:
        """Objects by class, the most frequent first."""
        counts = Counter(truth.class_name for image in self.images for truth in image.truths)
        return dict(counts.most_common())
