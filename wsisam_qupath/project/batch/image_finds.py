"""What the searches of one image find, as it goes into QuPath, the history and the report."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import shapely
from shapely.geometry import shape

from ...geojson import Feature
from ...geojson.authorship import read_search_id
from ...inference.executors import Deliver, MakeWork, SearchWork
from ...inference.find import Region, count_tiles
from ...inference.tasks import NamedSearch, read_tile_search_id
from ...prompts import Plane
from ...prompts.planner import Planner
from ...prompts.results import SerializedResult
from ...qupath.values import Change, Placed
from ...report.outcome import KeptResult, Plan, PromptRow
from ...slide import Slide
from ..history import Written
from .image_results import describe_written
from .searching import ImageSearches


@dataclass(frozen=True)
class ImageFinds:
    """What the searches of one image have found, from its journal or new.

    Attributes:
        by_id: finds, searched tiles and ended searches by their ids; :meth:`add` adds to it.
    """

    searches: ImageSearches
    by_id: dict[str, SerializedResult]

    @classmethod
    def recall(
        cls,
        searches: ImageSearches,
        journaled: Mapping[str, SerializedResult],
        written_ids: Collection[object],
    ) -> ImageFinds:
        """Take over finds of a stopped run that were not written into the image.

        Args:
            journaled: results in the journal, by their ids.
            written_ids: ids of the objects that the image holds.
        """
        open_ids = {named.id for named in searches.tasks.values()}
        kept = {
            key: one
            for key, one in journaled.items()
            if key not in written_ids and _read_search(one) in open_ids
        }
        return cls(searches, kept)

    @property
    def spare(self) -> tuple[SerializedResult, ...]:
        """Results in the journal that are for another run: none in a search."""
        return ()

    @property
    def has_tasks(self) -> bool:
        """Whether anything is looked for in this run."""
        return bool(self.searches.tasks)

    def count_tasks(self) -> int:
        """Count the searches."""
        return len(self.searches.tasks)

    def count_done(self) -> int:
        """Count the searches that have ended."""
        return sum(one.id in self.by_id for one in self.searches.tasks.values())

    def add(self, results: Sequence[SerializedResult]) -> None:
        """Add what was found or searched."""
        self.by_id.update({result.id: result for result in results})

    def plan_work(
        self,
        planner: Planner,  # noqa: ARG002 - as other results
        deliver: Deliver,
    ) -> dict[Plane, MakeWork]:
        """Plan the search of each plane with open tiles, as a function of its slide."""
        found, tiles_done = self._group_found(), self._count_tiles()

        def make(named: NamedSearch, slide: Slide) -> SearchWork:
            known = (*named.known, *map(_read_outline, found[named.id]))
            started = replace(named, known=known, tiles_done=tiles_done[named.id])
            return SearchWork(slide, started, deliver)

        return {plane: partial(make, named) for plane, named in self._list_open().items()}

    def make_plan(self, planner: Planner, slide: Slide) -> Plan:
        """Count the examples and estimate how many patches there are to look at."""
        left = self._list_open().values()
        examples = [one for named in left for one in named.search.examples]
        tiles = sum(count_tiles(planner, slide.l0_box, one.search) for one in left)
        return Plan(Counter(one.kind for one in examples), tiles)

    def list_outlined(self) -> list[tuple[Plane, Feature]]:
        """List what was found, with the planes."""
        found = self._group_found()
        return [
            (plane, feature)
            for plane, named in self.searches.tasks.items()
            for feature in found[named.id]
        ]

    def make_change(self, n_objects: int) -> Change:
        """Make the change of the image: finds go below the smallest area that holds them."""
        placed = tuple(Placed(one.feature, one.parent_id) for one in self._place())
        return Change(n_objects, self.searches.replaces, placed)

    def list_kept_results(self) -> list[KeptResult]:
        """List what :meth:`make_change` would do, for QuPath to do it later."""
        placed = self._place()
        first = [replace(one, replaces=self.searches.replaces) for one in placed[:1]]
        return [*first, *placed[1:]]

    def list_written(self) -> list[Written]:
        """List what the history keeps of the finds."""
        return [describe_written(feature) for _, feature in self.list_outlined()]

    def list_empty(self) -> dict[str, str]:
        """Give the reasons of results without an outline: in a search there are none."""
        return {}

    def list_ended(self) -> dict[str, str]:
        """List the searches that have ended, for the history to record once all is written."""
        ids = (named.id for named in self.searches.tasks.values())
        return {one: "searched" for one in ids if one in self.by_id}

    def list_rows(self) -> tuple[PromptRow, ...]:
        """List what was found earlier, then what was found now, in the order of finding."""
        found = (one for one in self.by_id.values() if one.feature is not None)
        rows = (PromptRow(one.prompt_id, "outlined", feature=one.feature) for one in found)
        return (*self.searches.rows, *rows)

    def _list_open(self) -> dict[Plane, NamedSearch]:
        tasks = self.searches.tasks
        return {plane: named for plane, named in tasks.items() if named.id not in self.by_id}

    def _group_found(self) -> defaultdict[str, list[Feature]]:
        """Group what was found by the ids of the searches: of a stack, one for each plane."""
        found: defaultdict[str, list[Feature]] = defaultdict(list)
        for one in self.by_id.values():
            if one.feature is not None and (search_id := read_search_id(one.feature)):
                found[search_id].append(one.feature)
        return found

    def _count_tiles(self) -> Counter[str]:
        """Count the searched tiles by the ids of the searches."""
        ids = (read_tile_search_id(one) for one in self.by_id)
        return Counter(one for one in ids if one is not None)

    def _place(self) -> list[KeptResult]:
        placed: list[KeptResult] = []
        found = self._group_found()
        for plane, named in self.searches.tasks.items():
            features = found[named.id]
            outlines = [_read_outline(one) for one in features]
            parents = _find_holders(outlines, self.searches.areas.get(plane, []))
            placed += map(KeptResult, features, parents)
        return placed


def _read_search(result: SerializedResult) -> str | None:
    """Read the id of the search that found an object, or that has searched a tile or ended."""
    if result.feature is not None:
        return read_search_id(result.feature)
    return result.id.split(" ")[0]


def _read_outline(feature: Feature) -> Region:
    return shape(feature["geometry"])


def _find_holders(outlines: Sequence[Region], areas: Sequence[tuple[str, Region]]) -> list[str]:
    """Find the id of the smallest area that holds each outline; empty if none does."""
    if not outlines or not areas:
        return [""] * len(outlines)
    held = np.array([one.representative_point() for one in outlines], dtype=object)
    by_size = sorted(areas, key=lambda area: area[1].area)
    tree = shapely.STRtree([area for _, area in by_size])
    parents = [""] * len(outlines)
    pairs = tree.query(held, predicate="intersects").T.tolist()
    for outline, area in sorted(pairs, reverse=True):  # the smallest area comes last
        if by_size[area][1].area > outlines[outline].area:
            parents[outline] = by_size[area][0]
    return parents
