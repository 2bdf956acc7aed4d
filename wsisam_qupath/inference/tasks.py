"""The units of work that another thread, process or machine can take: plain values in and out."""

from __future__ import annotations

import os
import threading
from collections.abc import Generator, Iterator
from contextlib import closing, nullcontext
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from ..geojson import to_feature
from ..geojson.provenance import SEARCH_KEY
from ..options import DEFAULT_BASE, ModelSpec, ObjectType, OutlineOptions
from ..prompts import Prompt
from ..prompts.results import Empty, Result, SerializedResult, list_candidates
from ..slide import PixelSource, SlideReference
from .find import Region, Search, find_objects
from .loading import resolve
from .segmenter import Segmenter, Turn

_TILE = " tile "
"""Text between the id of a search and the number of a tile that it has searched."""


@dataclass(frozen=True)
class SegmentTask:
    """Prompts on one slide. Picklable, and so are its results."""

    slide: SlideReference
    prompts: tuple[Prompt, ...]
    model: ModelSpec = field(default_factory=ModelSpec)
    options: OutlineOptions = field(default_factory=OutlineOptions)

    def predict(self, segmenter: Segmenter, slide: PixelSource) -> Iterator[SerializedResult]:
        """Answer the prompts; see :meth:`.Segmenter.segment`."""
        results = segmenter.segment(slide, self.prompts, self.options)
        return serialize_results(results, self.options.object_type)


@dataclass(frozen=True)
class NamedSearch:
    """A search that can go on where it was stopped.

    Attributes:
        id: id of the search; the same for the same examples, model and options.
        known: outlines of objects that are there already, and are not found again.
        tiles_done: how many tiles were searched before it was stopped.
    """

    id: str
    search: Search
    known: tuple[Region, ...] = ()
    tiles_done: int = 0

    @property
    def tile_prefix(self) -> str:
        """Beginning of the ids of the tiles that the search has searched."""
        return f"{self.id}{_TILE}"


def read_tile_search_id(result_id: str) -> str | None:
    """Read the id of the search from the id of a searched tile; None for other results."""
    search_id, separator, _ = result_id.partition(_TILE)
    return search_id if separator else None


@dataclass(frozen=True)
class FindTask:
    """A search on one slide. Picklable, and so are its results."""

    slide: SlideReference
    search: NamedSearch
    model: ModelSpec = field(default_factory=ModelSpec)
    options: OutlineOptions = field(default_factory=OutlineOptions)

    def predict(self, segmenter: Segmenter, slide: PixelSource) -> Iterator[SerializedResult]:
        """Search the slide; see :func:`find`."""
        return find(segmenter, slide, self.search, self.options)


def load_segmenter(
    base: str = DEFAULT_BASE,
    *,
    adapter: str | os.PathLike[str] | None = "default",
    weights: str | os.PathLike[str] | None = None,
    device: str = "auto",
    backend: str = "auto",
    threads: int | None = None,
    precision: str = "auto",
    embeddings_gb: float = 0.0,
) -> Segmenter:
    """Load a model and make it ready for prompts.

    The first start of a model on a machine prepares it, which takes longer: seconds for the default
    model, up to a minute for others.

    Args:
        base: lite-medsam, mobile-sam, sam-vit-b, sam-vit-l, sam-vit-h or medsam.
        adapter: path of a WSI-SAM adapter for the base; "default" is the one that ships with this
            package, if there is one for the base; None is the base alone.
        weights: path of a copy of the base's weights.
        device: "auto", "cpu", "cuda", "cuda:1" … or "mps".
        backend: "auto", "torch" or "openvino".
        threads: CPU threads to compute with; None is one per core.
        precision: "auto", "int8", "bf16" or "f32"; "auto" is int8 on a CPU that gains by it, else
            bf16, which is float32 where the device has no bf16.
        embeddings_gb: how much of what the encoder made may be kept in the cache folder for later
            runs, GB; 0 keeps nothing.

    Raises:
        WsiSamError: the model cannot be loaded; see :func:`.resolve`.
    """
    chosen = adapter if adapter is None or adapter == "default" else Path(adapter)
    own_weights = None if weights is None else Path(weights)
    spec = ModelSpec(
        base,
        chosen,  # type: ignore[arg-type]
        own_weights,
        device,
        backend,
        threads,
        precision,
        embeddings_gb,
    )
    return Segmenter(resolve(spec).load())


def serialize_results(
    results: Generator[Result | Empty, None, None], object_type: ObjectType
) -> Generator[SerializedResult, None, None]:
    """Yield the results of :meth:`.Segmenter.segment` as plain values, each as soon as it is ready.

    Closing the iterator closes the results.
    """
    with closing(results):
        for one in results:
            if isinstance(one, Result):
                ranked = (to_feature(each, object_type) for each in list_candidates(one))
                feature, *others = ranked
                yield SerializedResult(one.id, one.prompt.id, feature, others=tuple(others))
            else:
                yield SerializedResult(one.id, one.prompt.id, None, one.reason)


def find(
    segmenter: Segmenter,
    slide: PixelSource,
    named: NamedSearch,
    options: OutlineOptions,
    *,
    turn: Turn = nullcontext,
) -> Generator[SerializedResult, None, None]:
    """Yield objects as plain values, each when it is found, and the tiles that were searched.

    A searched tile is a result without an outline, with an id that begins with the search's
    ``tile_prefix``; so is the whole search, with its own id, at the end.

    Raises:
        PromptError: see :func:`.find_objects`.
        SlideError: the slide's pixels cannot be read.
    """
    searched: list[str] = []
    found = find_objects(
        segmenter,
        slide,
        named.search,
        options,
        known=named.known,
        tiles_done=named.tiles_done,
        turn=turn,
        on_tile=lambda number, _total: searched.append(f"{named.tile_prefix}{number}"),
    )
    with closing(found) as objects:
        for one in objects:
            yield from _take_searched(searched)
            feature = to_feature(one, options.object_type)
            feature["properties"]["metadata"][SEARCH_KEY] = named.id
            yield SerializedResult(one.id, one.prompt.id, feature)
    yield from _take_searched([*searched, named.id])


def _take_searched(ids: list[str]) -> Iterator[SerializedResult]:
    while ids:
        done = ids.pop(0)
        yield SerializedResult(done, done, None, "searched")


def run_task(task: SegmentTask | FindTask) -> list[SerializedResult]:
    """Run a task: one result per prompt, or what a search finds.

    A process keeps its last model for the next task; its threads share it.

    Raises:
        WsiSamError: the slide or the model cannot be loaded.
    """
    with _loading:  # otherwise each of several threads would load a model
        segmenter = _load_last_segmenter(task.model)
    with task.slide.open() as slide:
        return list(task.predict(segmenter, slide))


_loading = threading.Lock()


@lru_cache(maxsize=1)
def _load_last_segmenter(model: ModelSpec) -> Segmenter:
    return Segmenter(resolve(model).load())
