"""Chooses what ``--find`` looks for in an image: more of what is annotated with a class there."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from ...files.names import compose
from ...geojson import Feature, examples_from_geojson
from ...geojson.authorship import is_untouched, read_outline, read_prompt_id, read_search_id
from ...geojson.properties import read_class_name, read_plane
from ...geometry import Box
from ...inference.find import MOST_EXAMPLES, Region, Search
from ...inference.tasks import NamedSearch
from ...options import MIN_SCORE
from ...prompts import Plane, Prompt
from ...prompts.grouping import derive_id
from ...prompts.prompt import group_by_plane
from ...qupath.values import ImageContents
from ...report.outcome import PromptRow
from ..history import Record
from .request import Redo
from .selection import ResultIdsOf


@dataclass(frozen=True)
class FindChoice:
    """What a user wants to find.

    Attributes:
        class_name: class of the annotations that are examples.
        result_class: class of what is found; None is that of the examples.
        min_score: predicted IoU below which an answer is no object.
        redo: whether searches that were done already are repeated; what they found is replaced.
    """

    class_name: str
    result_class: str | None = None
    min_score: float = MIN_SCORE
    redo: Redo | None = None

    def is_example(self, feature: Feature) -> bool:
        """Tell whether an annotation is of the class to look for, however its name is composed."""
        return _read_class(feature) == compose(self.class_name)

    def is_known(self, feature: Feature) -> bool:
        """Tell whether an object is of a class of which nothing is to be found twice."""
        classes = (self.class_name, self.result_class or self.class_name)
        return _read_class(feature) in {compose(name) for name in classes}


@dataclass(frozen=True)
class ImageSearches:
    """The searches of an image, and the objects there that matter to them.

    Attributes:
        tasks: searches to do, by their planes.
        ids: ids of these searches, and of those that were done before.
        rows: what was found before, or why nothing is looked for.
        replaces: ids of earlier finds that go when the searches are done.
        areas: annotated areas that finds are placed below, with their ids, by planes.
    """

    tasks: dict[Plane, NamedSearch] = field(default_factory=dict)
    ids: tuple[str, ...] = ()
    rows: tuple[PromptRow, ...] = ()
    replaces: tuple[str, ...] = ()
    areas: dict[Plane, list[tuple[str, Region]]] = field(default_factory=dict)


def choose_searches(
    contents: ImageContents,
    record: Record,
    choice: FindChoice,
    *,
    l0_box: Box,
    result_ids_of: ResultIdsOf,
) -> ImageSearches:
    """Choose the searches of an image: one for each plane with examples.

    Objects of classes that end in ``*`` are not wanted. A search that was done with the same
    examples, unwanted objects and model is not done again.

    Args:
        record: history of the image; it says which searches were done.
        l0_box: extent of the slide, level-0 px.
    """
    marked = [one for one in contents.annotations if choice.is_example(one)]
    wanted = examples_from_geojson(marked).clip_to_slide(l0_box)
    skipped = [PromptRow(one.id, "skipped", one.reason) for one in wanted.skipped]
    if not wanted.wanted:
        reason = "no annotation of this class is an example here, so nothing is looked for"
        return ImageSearches(rows=(*skipped, PromptRow(choice.class_name, "skipped", reason)))
    areas = _group_areas((*contents.annotations, *contents.results))
    unwanted = examples_from_geojson(
        [one for one in _list_areas(areas) if _is_ignored(one)]
    ).clip_to_slide(l0_box)
    searches: dict[Plane, NamedSearch] = {}
    ids: list[str] = []
    finds = [one for one in _list_areas(areas) if read_search_id(one) and choice.is_known(one)]
    replaced: list[Feature] = []
    for plane, examples in group_by_plane(wanted.wanted).items():
        rejected = group_by_plane(unwanted.unwanted).get(plane, ())
        search = Search(_spread(examples), tuple(rejected), min_score=choice.min_score)
        search_ids = _list_ids(search, choice, result_ids_of)
        ids.append(search_ids[0])
        if _is_done(search_ids, record, choice.redo):
            continue
        here = [one for one in finds if _read_plane(one) == plane]
        replaced += [one for one in here if choice.redo and is_untouched(one)]
        known = [one for one in areas[plane] if choice.is_known(one) and one not in replaced]
        searches[plane] = NamedSearch(search_ids[0], search, tuple(_outline_all(known)))
    left = [one for one in finds if one not in replaced]
    rows = (*skipped, *(_describe(one) for one in left))
    replaces = tuple(str(one["id"]) for one in replaced if "id" in one)
    return ImageSearches(searches, tuple(ids), rows, replaces, _find_holders(areas, choice))


def _read_class(feature: Feature) -> str | None:
    name = read_class_name(feature)
    return None if name is None else compose(name)


def _is_ignored(feature: Feature) -> bool:
    return (_read_class(feature) or "").endswith("*")


def _read_plane(feature: Feature) -> Plane:
    plane = read_plane((feature.get("geometry") or {}).get("plane"))
    return Plane(z=plane.z, t=plane.t)


def _group_areas(features: Iterable[Feature]) -> defaultdict[Plane, list[Feature]]:
    areas: defaultdict[Plane, list[Feature]] = defaultdict(list)
    for feature in features:
        if read_outline(feature) is not None:
            areas[_read_plane(feature)].append(feature)
    return areas


def _list_areas(areas: dict[Plane, list[Feature]]) -> list[Feature]:
    return [one for some in areas.values() for one in some]


def _spread(examples: Sequence[Prompt]) -> tuple[Prompt, ...]:
    """Choose at most ten examples; of more, those at even distances in the order of their sizes."""
    if len(examples) <= MOST_EXAMPLES:
        return tuple(examples)
    by_size = sorted(examples, key=lambda one: (one.l0_bounds.width, one.l0_bounds.height, one.id))
    step = (len(by_size) - 1) / (MOST_EXAMPLES - 1)
    return tuple(by_size[round(number * step)] for number in range(MOST_EXAMPLES))


def _list_ids(search: Search, choice: FindChoice, result_ids_of: ResultIdsOf) -> tuple[str, ...]:
    """List the id of a search, then those that it has in older versions of the answers."""
    marks = (*search.examples, *search.negatives)
    # The order of the tiles is part of it: a journal counts those that are done.
    about = ("nearest first", len(search.examples), choice.min_score, choice.result_class)
    versions = zip(*(result_ids_of(prompt) for prompt in marks), strict=True)
    return tuple(derive_id("search", *about, ids) for ids in versions)


def _is_done(search_ids: tuple[str, ...], record: Record, redo: Redo | None) -> bool:
    counted = {None: search_ids, "outdated": search_ids[:1], "all": ()}[redo]
    return any(one in record.empty for one in counted)


def _outline_all(features: Iterable[Feature]) -> Iterator[Region]:
    for feature in features:
        outline = read_outline(feature)
        if outline is not None:
            yield outline


def _describe(feature: Feature) -> PromptRow:
    """Make the row of an object that was found earlier."""
    prompt_id = read_prompt_id(feature) or ""
    if is_untouched(feature):
        return PromptRow(prompt_id, "answered", feature=feature)
    return PromptRow(prompt_id, "reviewed", "a user edited it or made it an annotation")


def _find_holders(
    areas: dict[Plane, list[Feature]], choice: FindChoice
) -> dict[Plane, list[tuple[str, Region]]]:
    """List what people annotated beside the examples, with its ids."""
    return {
        plane: [
            (str(one.get("id")), outline)
            for one in some
            if read_prompt_id(one) is None and not choice.is_known(one)
            for outline in _outline_all([one])
        ]
        for plane, some in areas.items()
    }
