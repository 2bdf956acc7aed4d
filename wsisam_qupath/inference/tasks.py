"""The unit of work that another thread, process or machine can take: plain values in and out."""

from __future__ import annotations

import threading
from collections.abc import Generator, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from ..geojson import to_feature
from ..geojson.provenance import ObjectType
from ..model.bases import find_base
from ..model.shipped import AdapterChoice, load_chosen_adapter, parse_adapter_choice
from ..prompts import Prompt
from ..prompts.results import Result, SerializedResult
from ..slide import PixelSource, SlideReference
from .loading import load_predictor
from .options import SegmentOptions
from .segmenter import Segmenter, Tally, Turn


@dataclass(frozen=True)
class ModelSpec:
    """Which model is to run where; see :func:`.load_predictor` for the values.

    The adapter is the one that comes with this package, if it has one for the base.
    """

    base: str = "lite-medsam"
    adapter: AdapterChoice = "default"
    weights: Path | None = None
    device: str = "auto"
    backend: str = "auto"
    threads: int | None = None


@dataclass(frozen=True, kw_only=True)
class ModelRequest:
    """What a user says of the model; the names are those of :func:`.model_options`."""

    base: str = "lite-medsam"
    adapter: str = "default"
    weights: Path | None = None
    device: str = "auto"
    backend: str = "auto"

    @property
    def model(self) -> ModelSpec:
        """The model as every thread, process or machine loads it."""
        adapter = parse_adapter_choice(self.adapter)
        return ModelSpec(self.base, adapter, self.weights, self.device, self.backend)


@dataclass(frozen=True)
class SegmentTask:
    """Prompts on one slide. Picklable, and so are the answers."""

    slide: SlideReference
    prompts: tuple[Prompt, ...]
    model: ModelSpec = field(default_factory=ModelSpec)
    options: SegmentOptions = field(default_factory=SegmentOptions)
    object_type: ObjectType = "detection"


def load_segmenter(model: ModelSpec | None = None, *, tally: Tally | None = None) -> Segmenter:
    """Load a model and make it ready for prompts.

    Args:
        tally: counts what it does; None for one of its own.

    Raises:
        WsiSamError: see :func:`.load_predictor`.
    """
    model = model or ModelSpec()
    base = find_base(model.base)
    return Segmenter(
        load_predictor(
            base,
            adapter=load_chosen_adapter(model.adapter, base),
            weights=model.weights,
            device=model.device,
            backend=model.backend,
            threads=model.threads,
        ),
        tally=tally,
    )


def predict(
    segmenter: Segmenter,
    slide: PixelSource,
    prompts: Sequence[Prompt],
    options: SegmentOptions,
    object_type: ObjectType,
    *,
    turn: Turn = nullcontext,
) -> Generator[SerializedResult, None, None]:
    """Answers as they are ready; see :meth:`.Segmenter.segment`.

    Raises:
        SlideError: the slide's pixels cannot be read.
    """
    with closing(segmenter.segment(slide, prompts, options, turn=turn)) as found:
        for one in found:
            if isinstance(one, Result):
                yield SerializedResult(one.id, one.prompt.id, to_feature(one, object_type))
            else:
                yield SerializedResult(one.id, one.prompt.id, None, one.reason)


def run_task(task: SegmentTask) -> list[SerializedResult]:
    """Answer a job: each prompt once.

    A process keeps its last model for the next job; its threads share it.

    Raises:
        WsiSamError: the slide or the model cannot be loaded.
    """
    with _loading:  # else each thread that comes first would load a model
        segmenter = _load_last_segmenter(task.model)
    with task.slide.open() as slide:
        return list(predict(segmenter, slide, task.prompts, task.options, task.object_type))


_loading = threading.Lock()


@lru_cache(maxsize=1)
def _load_last_segmenter(model: ModelSpec) -> Segmenter:
    return load_segmenter(model)
