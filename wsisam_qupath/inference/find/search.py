"""What a search looks for, and where."""

from __future__ import annotations

from dataclasses import dataclass

import shapely

from ...errors import PromptError
from ...geometry import Box
from ...geometry.validity import keep_polygons
from ...options import MIN_SCORE, OutlineOptions
from ...prompts import PathClass, Prompt
from ...prompts.planner import Planner
from .tiles import Region, choose_scale, lay_tiles

MOST_EXAMPLES = 10


@dataclass(frozen=True)
class Search:
    """What is looked for, and where.

    Attributes:
        examples: one to ten objects, by outline, rectangle or points; none looks for all objects
            of about ``OutlineOptions.object_size_um``.
        negatives: objects that are not looked for, given the same way; a rectangle means all that
            is in it. One that contains an example is the frame of a region and says nothing; nor
            does one at which there is no object.
        l0_region: area to look in, level-0 px; None is the whole slide.
        min_score: predicted IoU below which an answer is no object, 0 to 1.

    Raises:
        PromptError: there are too many examples, or they lie on several planes.
    """

    examples: tuple[Prompt, ...] = ()
    negatives: tuple[Prompt, ...] = ()
    l0_region: Region | None = None
    min_score: float = MIN_SCORE

    def __post_init__(self) -> None:
        if len(self.examples) > MOST_EXAMPLES:
            raise PromptError(
                f"{len(self.examples)} examples are too many: choose up to {MOST_EXAMPLES} that "
                "look unlike each other."
            )
        if len({(one.plane.z, one.plane.t) for one in self.examples}) > 1:
            raise PromptError(
                "The examples lie on several planes of the image: choose those of one plane."
            )


def count_tiles(planner: Planner, l0_box: Box, search: Search) -> int:
    """Estimate how many patches a search covers its region with: glass included, as drawn."""
    extents = [one.l0_extent for one in search.examples]
    sizes_um = [planner.measure_longest_um(box) for box in extents if box is not None]
    hr_mpp = choose_scale(planner, max(sizes_um, default=0.0))
    return len(lay_tiles(planner, hr_mpp, clip_region(search.l0_region, l0_box)))


def clip_region(l0_region: Region | None, l0_box: Box) -> Region:
    """Clip a region to the slide; without a region it is the whole slide.

    Raises:
        PromptError: the region lies outside of the slide.
    """
    if l0_region is None:
        return _fill(l0_box)
    inside = cut_to_slide(l0_region, l0_box)
    if inside.is_empty:
        raise PromptError("The areas to look in lie outside of the slide: draw them on it.")
    return inside


def cut_to_slide(l0_outline: Region, l0_box: Box) -> Region:
    """The part of an outline on the slide, which may be empty; one that lies on it stays as is."""
    whole = _fill(l0_box)
    if whole.contains(l0_outline):
        return l0_outline
    return keep_polygons(shapely.intersection(l0_outline, whole))


def _fill(box: Box) -> Region:
    whole: Region = box.polygon
    return whole


def choose_class(search: Search, options: OutlineOptions) -> PathClass | None:
    """Choose the class of what is found: the one asked for, or that of the first example."""
    if options.class_name is not None:
        return PathClass(options.class_name)
    return next((one.path_class for one in search.examples if one.path_class), None)
