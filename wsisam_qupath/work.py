"""The unit of work that another thread, process or machine can take: plain values in and out."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from .engine import Segmenter, SegmentOptions
from .geojson import to_feature
from .geojson.writing import Feature, ObjectType
from .loading import load_predictor
from .prompts import Prompt
from .results import Result
from .slide import SlideReference


@dataclass(frozen=True)
class ModelSpec:
    """Which model is to run where; see :func:`.load_predictor` for the values."""

    base: str = "lite-medsam"
    adapter: Path | None = None
    weights: Path | None = None
    device: str = "auto"
    backend: str = "auto"


@dataclass(frozen=True)
class Job:
    """Prompts on one slide. Picklable, and so are the features that answer it."""

    slide: SlideReference
    prompts: tuple[Prompt, ...]
    model: ModelSpec = field(default_factory=ModelSpec)
    options: SegmentOptions = field(default_factory=SegmentOptions)
    object_type: ObjectType = "detection"


def load_segmenter(model: ModelSpec | None = None) -> Segmenter:
    """Load a model and make it ready for prompts.

    Raises:
        WsiSamError: see :func:`.load_predictor`.
    """
    model = model or ModelSpec()
    return Segmenter(
        load_predictor(
            model.base,
            adapter=model.adapter,
            weights=model.weights,
            device=model.device,
            backend=model.backend,
        )
    )


def run_job(job: Job) -> list[Feature]:
    """Answer a job: one GeoJSON feature for each prompt that yields something.

    A process keeps its last model for the next job.

    Raises:
        WsiSamError: the slide or the model cannot be loaded.
    """
    segmenter = _last_segmenter(job.model)
    with (
        job.slide.open() as slide,
        closing(segmenter.segment(slide, job.prompts, job.options)) as answers,
    ):
        return [to_feature(a, job.object_type) for a in answers if isinstance(a, Result)]


@lru_cache(maxsize=1)
def _last_segmenter(model: ModelSpec) -> Segmenter:
    return load_segmenter(model)
