"""Find all objects like some examples, or all objects of about one size, on a slide.

Patches over the tissue are encoded once. Places with features like those of the examples become
prompts, a point and the rectangle around the ground of each, which the decoder answers on that
patch. Of answers that overlap the one with the highest predicted IoU is an object.
"""

from __future__ import annotations

import hashlib
import math
import uuid
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, nullcontext
from dataclasses import replace
from itertools import islice
from typing import TypeAlias

import numpy as np
import shapely

from ...errors import PromptError
from ...geometry import Box, PatchPair
from ...geometry.polygons import area_um2, cover_patch
from ...options import OutlineOptions
from ...prompts import Plane, Prompt
from ...prompts.results import Result
from ...slide import PixelSource
from ..answers import Question, is_cut_off, make_outline
from ..backends import Embedding, Prediction
from ..read_ahead import Check, go_on
from ..segmenter import PROMPTS_AT_ONCE, Segmenter, Turn
from .likeness import PLACES, BoolMap, ExampleFeatures, Likeness, Tokens
from .overlaps import FoundOutlines
from .places import Place, find_places, spread_places
from .search import Search, choose_class, clip_region, cut_to_slide
from .tiles import (
    Region,
    choose_scale,
    find_middle,
    is_glass,
    lay_tiles,
    list_places,
    measure_tissue,
    sort_tiles,
)

_SIZE_FACTOR = 4.0
"""Found objects have at least a quarter of the area of the smallest example, and at most four
times that of the largest."""

_TISSUE_SHARE = 0.25
"""Least tissue of a found object, as a share of that in the barest example: F1 of two images of
GlaS and two of fat cells rose from 0.68 to 0.70."""

_SMALLEST_PX = 4
"""Smallest size of objects that are looked for, pixels of the slide."""

_MOST_LEARNED = 20
"""Most unwanted objects that the look of what is not wanted is learned from; none is found
again."""

_GRID_SHARE = 0.5
"""Distance of the points that are asked without examples, as a share of an object's size."""

_NAMESPACE = uuid.UUID("5f0a4b7e-1c58-4f39-9a51-6b3d8d8f2c10")
"""Namespace of the UUIDv5 ids of found objects."""

OnTile: TypeAlias = Callable[[int, int], None]


def _tell_nobody(done: int, total: int) -> None:
    """Report no progress."""


def find_objects(
    segmenter: Segmenter,
    slide: PixelSource,
    search: Search,
    options: OutlineOptions | None = None,
    *,
    known: Sequence[Region] = (),
    tiles_done: int = 0,
    turn: Turn = nullcontext,
    check: Check = go_on,
    on_tile: OnTile = _tell_nobody,
) -> Generator[Result, None, None]:
    """Yield objects as they are found, tile by tile; not the examples themselves.

    Args:
        options: must state ``object_size_um`` if there is no example.
        known: outlines of objects that are there already; they are not found a second time.
        tiles_done: how many tiles an earlier search has done.
        turn, check: see :meth:`.Segmenter.segment`.
        on_tile: called with the number of tiles that are done, and the largest number that there
            may be: a tile with nothing but glass counts until it is looked at.

    Raises:
        PromptError: an example cannot be outlined or lies outside of the slide, there is neither
            an example nor a size, the objects are too small or too large for the slide, or the
            areas lie outside of it.
        SlideError: the slide's pixels cannot be read.
    """
    options = options or OutlineOptions()
    outlines = _outline_all(segmenter, slide, search.examples, options, are_needed=True)
    rejected = [one for one in map(_fill_box, search.negatives) if not _holds_any(one, outlines)]
    unwanted = _outline_all(segmenter, slide, rejected, options, are_needed=False)
    finder = _Finder(segmenter, slide, search, options, outlines, unwanted, turn, check)
    for outline in known:
        finder.found.add(outline)
    yield from finder.find(tiles_done, on_tile)


def _outline_all(
    segmenter: Segmenter,
    slide: PixelSource,
    prompts: Sequence[Prompt],
    options: OutlineOptions,
    *,
    are_needed: bool,
) -> tuple[Region, ...]:
    """Outline prompts on the slide: as they are drawn, or as the model answers.

    Args:
        are_needed: whether a prompt without an outline is an error, or is left out.

    Raises:
        PromptError: one that is needed has none.
    """
    outlines: list[Region] = []
    asked = []
    for prompt in prompts:
        if prompt.l0_outline is None:
            asked.append(prompt)
        elif not (inside := cut_to_slide(prompt.l0_outline, slide.l0_box)).is_empty:
            outlines.append(inside)
        elif are_needed:
            raise PromptError(
                f"The example {prompt.id} lies outside of the slide: choose one that lies on it."
            )
    for answer in segmenter.segment(slide, asked, replace(options, candidates=1)):
        if isinstance(answer, Result):
            outlines.append(answer.polygon)
        elif are_needed:
            raise PromptError(
                f"The example {answer.prompt.id} cannot be outlined: {answer.reason}. Draw its "
                "outline."
            )
    return tuple(outlines)


def _fill_box(prompt: Prompt) -> Prompt:
    """Give a prompt an outline in place of its rectangle."""
    box = prompt.l0_box
    if box is None:
        return prompt
    return replace(prompt, l0_box=None, l0_outline=box.polygon)


def _holds_any(prompt: Prompt, outlines: Sequence[Region]) -> bool:
    """Whether a prompt's outline is around one of some objects."""
    around = prompt.l0_outline
    return around is not None and any(
        around.contains(one.representative_point()) and around.area > one.area for one in outlines
    )


class _Finder:
    """The state of one search on one slide.

    Attributes:
        found: what is there already, including the examples.
    """

    def __init__(
        self,
        segmenter: Segmenter,
        slide: PixelSource,
        search: Search,
        options: OutlineOptions,
        examples: Sequence[Region],
        negatives: Sequence[Region],
        turn: Turn,
        check: Check,
    ) -> None:
        self._segmenter, self._slide, self._search = segmenter, slide, search
        self._turn, self._check = turn, check
        planner = segmenter.planner(slide, options)
        sizes_um = [planner.measure_longest_um(Box.around(outline)) for outline in examples]
        if not sizes_um:
            if options.object_size_um is None:
                raise PromptError(
                    "There is nothing to look for: give an example, or the size of the objects."
                )
            sizes_um = [options.object_size_um]
        self._size_um = float(np.median(sizes_um))
        _check_size(self._size_um, slide)
        self._l0_region = clip_region(search.l0_region, slide.l0_box)
        self._options = replace(options, object_size_um=self._size_um, candidates=1)
        self._planner = segmenter.planner(slide, self._options)
        self._hr_mpp = choose_scale(self._planner, max(sizes_um))
        self._examples, self._negatives = examples, negatives
        tissue = [measure_tissue(slide, outline) for outline in examples]
        self._least_tissue = _TISSUE_SHARE * min(tissue, default=0.0)
        self._path_class = choose_class(search, options)
        self._plane = search.examples[0].plane if search.examples else Plane()
        self._digest = _describe(examples, negatives)
        self.found = FoundOutlines(self._size_um / slide.mpp.x)
        for outline in (*examples, *negatives):
            self.found.add(outline)

    def find(self, tiles_done: int, on_tile: OnTile) -> Generator[Result, None, None]:
        """Search the tiles after the first few, those near an example first."""
        region = self._l0_region
        likeness = self._learn() if self._examples else None
        tiles = sort_tiles(lay_tiles(self._planner, self._hr_mpp, region), self._examples)
        glass: list[PatchPair] = []
        embedded = self._segmenter.embed_pairs(
            self._slide,
            islice(self._skip_glass(tiles, glass), tiles_done, None),
            turn=self._turn,
            check=self._check,
        )
        with closing(embedded):
            for done, (pair, embedding) in enumerate(embedded, start=tiles_done + 1):
                places = self._find_places(pair, embedding, likeness)
                yield from self._answer(pair, embedding, list(places), region)
                on_tile(done, len(tiles) - len(glass))

    def _skip_glass(
        self, tiles: Sequence[PatchPair], glass: list[PatchPair]
    ) -> Iterator[PatchPair]:
        """Yield the tiles with tissue; the others are added to a list."""
        for pair in tiles:
            self._check()
            if is_glass(self._slide, pair):
                glass.append(pair)
            else:
                yield pair

    def _learn(self) -> Likeness:
        """Look at the examples, each in the middle of a patch.

        On the tile that is searched anyway they would cost nothing, but away from its middle they
        look different: F1 of four images fell from 0.68 to 0.62.
        """
        examples = [self._look_at(outline) for outline in self._examples]
        negatives = [self._look_at(outline) for outline in self._negatives[:_MOST_LEARNED]]
        return Likeness.learn(examples, negatives)

    def _look_at(self, outline: Region) -> ExampleFeatures:
        inside = outline.representative_point()  # on the patch, whatever the shape
        pair = self._planner.place_pair((inside.x, inside.y), self._hr_mpp)
        embedded = self._segmenter.embed_pairs(
            self._slide, [pair], turn=self._turn, check=self._check
        )
        ((_, embedding),) = embedded
        return ExampleFeatures(
            self._read_tokens(embedding),
            cover_patch(outline, pair, PLACES).astype(np.float32),
            self._lies_in_slide(pair),
        )

    def _read_tokens(self, embedding: Embedding) -> Tokens:
        tokens = self._segmenter.predictor.backend.read_tokens(embedding.patches[0])
        return tokens.reshape(PLACES, PLACES, -1)

    def _lies_in_slide(self, pair: PatchPair) -> BoolMap:
        box, places = self._slide.l0_box, list_places(pair, PLACES)
        x, y = places[..., 0], places[..., 1]
        inside: BoolMap = (x >= box.x0) & (x < box.x1) & (y >= box.y0) & (y < box.y1)
        return inside

    def _find_places(
        self, pair: PatchPair, embedding: Embedding, likeness: Likeness | None
    ) -> Iterator[Place]:
        middle = find_middle(pair)
        if likeness is None:
            return spread_places(pair, middle, _GRID_SHARE * self._size_um)
        tokens, in_slide = self._read_tokens(embedding), self._lies_in_slide(pair)
        like = np.where(in_slide, likeness.measure(tokens), np.float32(-1))
        return find_places(like, likeness.measure_unwanted(tokens), pair, middle, self._size_um)

    def _answer(
        self, pair: PatchPair, embedding: Embedding, places: Sequence[Place], region: Region
    ) -> Iterator[Result]:
        """Find new objects at some places of a tile, the surest first."""
        answers = [*self._ask(pair, embedding, places)]
        for answer in sorted(answers, key=lambda one: -one.predicted_iou):
            if answer.predicted_iou < self._search.min_score:
                break
            if not self._has_size(answer.polygon) or self.found.has(answer.polygon):
                continue
            if not region.intersects(answer.polygon.representative_point()):
                continue
            if not self._is_bare(answer.polygon):  # last, since it reads pixels
                self.found.add(answer.polygon)
                yield answer

    def _ask(
        self, pair: PatchPair, embedding: Embedding, places: Sequence[Place]
    ) -> Iterator[Result]:
        """Ask for all answers at some places; if a tile cuts all off, also on a coarser pair."""
        whole: set[Place] = set()
        cut: dict[Place, None] = {}
        for place, prompt, prediction in self._predict(pair, embedding, places):
            if prediction.is_empty:
                continue
            if is_cut_off(prediction, pair, self._slide.l0_box):
                cut[place] = None
                continue
            whole.add(place)
            result = self._make_result(pair, prompt, prediction)
            if result is not None:
                yield result
        wider = [self._mark_point(place) for place in cut if place not in whole]
        for answer in self._segmenter.segment(
            self._slide, wider, self._options, turn=self._turn, check=self._check
        ):
            if isinstance(answer, Result):
                yield answer

    def _predict(
        self, pair: PatchPair, embedding: Embedding, places: Sequence[Place]
    ) -> Iterator[tuple[Place, Prompt, Prediction]]:
        questions = [(place, prompt) for place in places for prompt in self._make_prompts(place)]
        for start in range(0, len(questions), PROMPTS_AT_ONCE):
            some = questions[start : start + PROMPTS_AT_ONCE]
            self._check()
            with self._turn():
                answers = self._segmenter.answer(pair, embedding, [prompt for _, prompt in some])
            for (place, prompt), predictions in zip(some, answers, strict=True):
                yield place, prompt, predictions[0]

    def _make_prompts(self, place: Place) -> Iterator[Prompt]:
        yield self._mark_point(place)
        if place.l0_box is not None:
            name = self._name("rectangle", place)
            yield Prompt(name, l0_box=place.l0_box, path_class=self._path_class, plane=self._plane)

    def _mark_point(self, place: Place) -> Prompt:
        return Prompt(
            self._name("point", place),
            l0_positives=(place.l0_point,),
            path_class=self._path_class,
            plane=self._plane,
        )

    def _name(self, kind: str, place: Place) -> str:
        """Make the id of a prompt, the same in each search for the same."""
        x, y = place.l0_point
        return str(uuid.uuid5(_NAMESPACE, f"{self._digest} {kind} {x:.2f} {y:.2f}"))

    def _make_result(
        self, pair: PatchPair, prompt: Prompt, prediction: Prediction
    ) -> Result | None:
        outline = make_outline(self._slide, pair, prediction, self._options)
        if outline is None:
            return None
        mpp, model = self._slide.mpp, self._segmenter.model
        return Result(
            prompt,
            model.predict_result_id(prompt, mpp, self._options),
            outline.polygon,
            outline.predicted_iou,
            outline.stability_score,
            area_um2(outline.polygon, mpp),
            self._segmenter.describe_origin(Question(prompt, fits_hr=True), outline),
        )

    def _has_size(self, outline: Region) -> bool:
        """Whether an outline is about as large as what is looked for."""
        areas = [example.area for example in self._examples] or [self._expected_area]
        least, most = min(areas) / _SIZE_FACTOR, max(areas) * _SIZE_FACTOR
        return bool(least <= outline.area <= most)

    def _is_bare(self, outline: Region) -> bool:
        """Whether an outline holds bare glass, which no example does to that degree."""
        if not self._least_tissue:
            return False
        return measure_tissue(self._slide, outline) < self._least_tissue

    @property
    def _expected_area(self) -> float:
        """The area of a disk of the size that is looked for, level-0 px²."""
        mpp = self._slide.mpp
        return math.pi / 4 * self._size_um**2 / (mpp.x * mpp.y)


def _check_size(size_um: float, slide: PixelSource) -> None:
    mpp, l0_box = slide.mpp, slide.l0_box
    least_um = _SMALLEST_PX * max(mpp.x, mpp.y)
    most_um = math.hypot(l0_box.width * mpp.x, l0_box.height * mpp.y)
    if not least_um <= size_um <= most_um:
        raise PromptError(
            f"Objects of {size_um:g} µm cannot be found on this slide: choose some of "
            f"{least_um:.2g} to {most_um:.0f} µm."
        )


def _describe(*outlines: Sequence[Region]) -> str:
    """Name examples and negatives by their shapes, so that another search has other ids."""
    content = b"|".join(b"".join(shapely.to_wkb(one) for one in some) for some in outlines)
    return hashlib.sha256(content).hexdigest()
