"""The ``prepare`` command: encodes a slide ahead of time and keeps that on the disk."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import shapely

from ..errors import OptionError, OutputError
from ..files import cache_folder
from ..geojson import read_region
from ..geometry import PatchPair
from ..inference.embedding_store import FOLDER, GB, count_patch_bytes
from ..inference.find.tiles import choose_scale, is_glass, lay_tiles
from ..inference.loading import ResolvedModel
from ..inference.segmenter import Segmenter
from ..options import ModelSpec, OutlineOptions
from ..report.progress import (
    MessageConsole,
    Progress,
    count_noun,
    duration,
    show_progress,
    stderr_console,
)
from ..slide import Slide
from .inputs_outputs import open_for_reading
from .segment_run import LoadedModel, SegmentRequest, read_all_prompts


@dataclass(frozen=True)
class PrepareRequest:
    """The options of ``prepare``, under the names that they have on the command line."""

    slide: str
    prompts: Path | None = None
    within: Path | None = None
    object_size_um: float | None = None
    all_objects: bool = False
    mpp: float | None = None
    model: ModelSpec = field(default_factory=ModelSpec)

    @property
    def options(self) -> OutlineOptions:
        """The outline options that decide which patches are looked at."""
        return OutlineOptions(object_size_um=self.object_size_um)


def run_prepare(request: PrepareRequest) -> int:
    """Encode the patches that are not kept yet, and show progress on stderr.

    Returns:
        How many patch pairs were encoded.

    Raises:
        WsiSamError: see the error tree.
    """
    console = stderr_console()
    start = time.perf_counter()
    if not request.model.embeddings_gb:
        raise OptionError(
            "embeddings_gb", "is needed: say how many GB of the cache folder may be used, e.g. 20."
        )
    if request.within is not None and request.prompts is not None:
        raise OptionError("within", "is for a slide without prompts: leave one of both out.")
    loaded = LoadedModel(request.model)
    with open_for_reading(request.slide, request.mpp, console) as slide:
        wanted = _plan(request, slide, loaded.resolved, console)
        _warn_of_size(wanted, loaded.resolved, console)
        segmenter = loaded.load(console)
        left = _find_missing(segmenter, slide, wanted)
        with show_progress(
            console, "Encoding", len(wanted), done=len(wanted) - len(left)
        ) as progress:
            _encode(segmenter, slide, left, progress, console)
    seconds = duration(time.perf_counter() - start)
    console.print(
        f"{count_noun(len(left), 'patch pair')} encoded, {len(wanted) - len(left)} kept before; "
        f"{seconds}."
    )
    return len(left)


def _plan(
    request: PrepareRequest, slide: Slide, model: ResolvedModel, console: MessageConsole
) -> dict[PatchPair, int]:
    """Choose the pairs to encode, and how many patches of each."""
    planner = model.planner(slide.mpp, request.options)
    if request.prompts is not None:
        asked = SegmentRequest(
            request.slide,
            request.prompts,
            all_objects=request.all_objects,
            options=request.options,
        )
        prompts = read_all_prompts(asked, slide, planner, console)
        return model.plan_patches(planner, prompts)
    size_um = request.object_size_um
    hr_mpp = planner.hr_mpp if size_um is None else choose_scale(planner, size_um)
    whole = shapely.box(0, 0, slide.width_px, slide.height_px)
    region = whole if request.within is None else read_region(request.within).intersection(whole)
    if region.is_empty:
        raise OptionError("within", "the areas lie outside of the slide.")
    tiles = lay_tiles(planner, hr_mpp, region)
    with show_progress(console, "Looking for tissue", len(tiles)) as progress:
        return {pair: 1 for pair in progress.track(tiles) if not is_glass(slide, pair)}


def _warn_of_size(
    wanted: Mapping[PatchPair, int], model: ResolvedModel, console: MessageConsole
) -> None:
    needed_gb = sum(wanted.values()) * count_patch_bytes(model.base) / GB
    if needed_gb > model.embeddings_gb:
        console.print(
            f"All of it would take about {needed_gb:.2g} GB: of {model.embeddings_gb:g} GB, what "
            "is encoded first goes again. Allow more, or prepare less."
        )


def _find_missing(
    segmenter: Segmenter, slide: Slide, wanted: Mapping[PatchPair, int]
) -> dict[PatchPair, int]:
    stored = segmenter.predictor.stored
    assert stored is not None
    return {pair: count for pair, count in wanted.items() if not stored.holds(slide, pair, count)}


def _encode(
    segmenter: Segmenter,
    slide: Slide,
    left: Mapping[PatchPair, int],
    progress: Progress,
    console: MessageConsole,
) -> None:
    stored = segmenter.predictor.stored
    assert stored is not None
    try:
        for count in sorted(set(left.values())):
            pairs = [pair for pair, patches in left.items() if patches == count]
            with closing(segmenter.embed_pairs(slide, pairs, patch_count=count)) as embedded:
                for pair, _ in embedded:
                    if not stored.holds(slide, pair, count):
                        raise OutputError(
                            f"Nothing can be kept in {cache_folder() / FOLDER}: make room there, "
                            "allow writing, or allow more GB."
                        )
                    progress.advance()
    except KeyboardInterrupt:
        console.print("What was encoded is kept: the same command goes on there.")
        raise
