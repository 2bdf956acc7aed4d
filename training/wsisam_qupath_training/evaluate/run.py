"""Measure all images, and keep the results until all images are done."""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from rich.console import Console

from wsisam_qupath import __version__
from wsisam_qupath.errors import PromptError, SlideError
from wsisam_qupath.files import compute_sha256
from wsisam_qupath.geometry import Box
from wsisam_qupath.prompts import Skipped
from wsisam_qupath.report.progress import Progress, count_noun, show_progress

from .choosing import SelectedObjects
from .image_run import ImageRun
from .kept import KeptResults, make_key, open_kept
from .models import Model, PredictorModel, describe_model
from .protocol import ProtocolSettings, measure_longest_um
from .results import EvaluationResults


def evaluate_models(
    chosen: Sequence[SelectedObjects],
    models: Sequence[Model],
    settings: ProtocolSettings,
    console: Console,
    *,
    boxes: Mapping[str, Sequence[Box]] | None = None,
    with_pictures: bool = False,
    resume: bool = True,
) -> EvaluationResults:
    """Ask every model about every object, with the same prompts.

    Each image that is done is kept until all are, so that the same evaluation goes on after a stop.

    Args:
        boxes: boxes of another model by image; see :func:`.match_boxes`.
        with_pictures: keep outlines for pictures; images that an earlier run measured are then
            measured again.
        resume: whether to use the results that a stopped run kept.

    Raises:
        PromptError: nothing could be measured.
        OptionError: a model answered in a wrong shape or number.
        OutputError: what is measured cannot be kept.
    """
    with show_progress(console, "Measuring sizes"):
        sizes_um = _median_sizes_um(chosen) if settings.scale == "median" else {}
    run = _Run(models, settings, sizes_um, boxes, with_pictures)
    datasets = sorted({one.image.dataset for one in chosen})  # others may be measured meanwhile
    with open_kept(run.describe() | {"datasets": datasets}, resume=resume) as kept:
        results = run.measure(chosen, kept, console)
    if not results.scores and not results.clicks:
        reason = f": {results.skipped[0].reason}" if results.skipped else ""
        raise PromptError(f"No object could be measured{reason or '. Choose others.'}")
    return results


@dataclass(frozen=True)
class _Run:
    """What all images of an evaluation share; see :func:`evaluate_models`."""

    models: Sequence[Model]
    settings: ProtocolSettings
    sizes_um: Mapping[tuple[str, str], float]
    boxes: Mapping[str, Sequence[Box]] | None
    with_pictures: bool

    def describe(self) -> dict[str, object]:
        """Describe everything that the results of every image depend on, as JSON."""
        return {
            "version": __version__,
            "models": [{**describe_model(one), "code": _name_code(one)} for one in self.models],
            "settings": asdict(self.settings),
            "sizes_um": sorted([*key, um] for key, um in self.sizes_um.items()),
        }

    def measure(
        self, chosen: Sequence[SelectedObjects], kept: KeptResults, console: Console
    ) -> EvaluationResults:
        """Measure the images that no earlier run did, and take the results of the others."""
        keys = [make_key(one, self._find_boxes(one)) for one in chosen]
        wanted = [] if self.with_pictures else keys
        earlier = {key: found for key in wanted if (found := kept.find(key)) is not None}
        if earlier:
            console.print(
                f"A run that was stopped had measured {count_noun(len(earlier), 'image')}: this "
                "one goes on there."
            )
        results = EvaluationResults()
        total = len(self.models) * sum(len(one.truths) for one in chosen)
        with show_progress(console, "Measuring objects", total) as progress:
            try:
                for one, key in zip(chosen, keys, strict=True):
                    if key in earlier:
                        progress.advance(len(self.models) * len(one.truths))
                        results.extend(earlier[key])
                    else:
                        results.extend(self._measure_image(one, key, kept, progress))
            except KeyboardInterrupt:
                console.print("The images that were done are kept: the same command goes on there.")
                raise
        return results

    def _measure_image(
        self, one: SelectedObjects, key: str, kept: KeptResults, progress: Progress
    ) -> EvaluationResults:
        results = EvaluationResults()
        asked = ImageRun(one, self.models, self.settings, results, progress, self.with_pictures)
        try:
            asked.ask(self.sizes_um, self._find_boxes(one))
            kept.add(key, results)
        except SlideError as exc:  # not kept: its drive may be there again the next time
            results.skipped.append(Skipped(one.image.name, str(exc)))
        return results

    def _find_boxes(self, one: SelectedObjects) -> Sequence[Box] | None:
        return None if self.boxes is None else self.boxes.get(one.image.name, ())


def _median_sizes_um(chosen: Sequence[SelectedObjects]) -> Mapping[tuple[str, str], float]:
    """Median object size by dataset and class, over all objects, measured or not."""
    sizes: dict[tuple[str, str], list[float]] = defaultdict(list)
    for one in chosen:
        try:
            with one.image.slide.open() as slide:
                mpp = slide.mpp
        except SlideError:
            continue  # named when it is measured
        for truth in one.image.truths:
            sizes[one.image.dataset, truth.class_name].append(measure_longest_um(truth, mpp))
    return {key: float(np.median(values)) for key, values in sizes.items()}


def _name_code(model: Model) -> str | None:
    """Checksum of a foreign model's module: with other code, it is another model."""
    if isinstance(model, PredictorModel):
        return None
    file = getattr(sys.modules.get(type(model).__module__), "__file__", None)
    return None if file is None else compute_sha256(Path(file))
