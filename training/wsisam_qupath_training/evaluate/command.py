"""Run ``evaluate``: measure models on annotated images; write tables, JSON, plots, pictures."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from rich.console import Console

from wsisam_qupath.errors import OptionError
from wsisam_qupath.files import check_writable, write_atomically
from wsisam_qupath.files.names import compose
from wsisam_qupath.options import ModelSpec
from wsisam_qupath.report.progress import count_noun, name_cases, show_progress

from ..dataset import AnnotatedImage, Dataset
from .boxes import read_boxes
from .choosing import SelectedObjects, Wanted, limit_objects, put_slide_classes, select_part
from .figures import write_figures
from .models import describe_model, load_models, reads_adapter
from .plots import write_plots
from .protocol import ProtocolSettings, describe_protocol
from .record import make_record
from .results import BASELINES, EvaluationResults
from .run import evaluate_models
from .summary import Block, By, calibration_errors, correlations, seconds, summarize
from .table import table_text

PAPER_MPP = 1.0
"""Pixel size that the paper calls 10x, µm."""


@dataclass(frozen=True)
class EvaluateRequest:
    """What the command line asks for; the names are those of its options.

    Attributes:
        models: specifications of the models, see :func:`.load_model`; the others are compared with
            the first.
        datasets: names of the datasets to measure; empty is all.
        limit: largest number of objects per dataset.
        slide_classes: table with the class of all objects of each slide; None keeps their own
            classes.
        json_file, plots, figures: files and folders to write beside the table.
        figures_count: largest number of objects with a picture.
        resume: whether to continue a stopped evaluation of the same images, models and options.
        model: base, weights, device, backend and threads of each model that names no others.
    """

    models: tuple[str, ...] = ("none",)
    part: Wanted = "test"
    datasets: tuple[str, ...] = ()
    limit: int | None = None
    by: By = "dataset"
    settings: ProtocolSettings = field(default_factory=ProtocolSettings)
    boxes: Path | None = None
    slide_classes: Path | None = None
    json_file: Path | None = None
    plots: Path | None = None
    figures: Path | None = None
    figures_count: int = 24
    resume: bool = True
    model: ModelSpec = field(default_factory=ModelSpec)

    def __post_init__(self) -> None:
        """Check the options that no other class checks.

        Raises:
            OptionError: a number is out of its range.
        """
        for name in ("limit", "figures_count"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise OptionError(name, f"{value} is too small: give 1 or more.")
        if not self.models:
            raise OptionError("compare", "there is no model to measure.")


@dataclass(frozen=True)
class Evaluation:
    """The results of an evaluation.

    Attributes:
        models: names of the models, which head the columns.
        blocks: means by dataset, class, image or patient.
        table: the means as text.
    """

    models: tuple[str, ...]
    results: EvaluationResults
    blocks: tuple[Block, ...]
    table: str


def run_evaluate(dataset: Dataset, request: EvaluateRequest, console: Console) -> Evaluation:
    """Measure models on annotated images, and write what the request names.

    Args:
        dataset: annotated images; rows of it that were damaged are named on the console.

    Raises:
        PromptError: there is nothing to measure.
        OptionError: an option is wrong.
        AdapterError, WeightsError, DeviceError: a model cannot be loaded.
        OutputError: a file cannot be written, or another program is measuring the same models on
            the same data.
    """
    if request.json_file is not None:
        check_writable(request.json_file)
    name_cases(console, "Damaged", dataset.damaged)
    images_given = dataset.images
    if request.slide_classes is not None:
        images_given = put_slide_classes(images_given, request.slide_classes)
    chosen = _choose_objects(images_given, request, console)
    images = [one.image for one in chosen]
    boxes = None if request.boxes is None else read_boxes(request.boxes, images)
    with show_progress(console, "Loading the models"):
        models = load_models(
            request.models, request.model, second_pass=request.settings.second_pass
        )
    if not any(reads_adapter(model) for model in models):
        console.print(
            "No adapter is measured: bases alone answer. Choose one, or add it to the comparison."
        )
    names = tuple(model.name for model in models)
    results = evaluate_models(
        chosen,
        models,
        request.settings,
        console,
        boxes=boxes,
        with_pictures=request.figures is not None,
        resume=request.resume,
    )
    name_cases(console, "Skipped", results.skipped)
    if boxes is not None:
        console.print(
            f"Boxes of the other model that fit no object: {results.spare_boxes}. Objects without "
            "a box count as 0.",
            markup=False,
        )
    with show_progress(console, "Summarizing the results"):
        blocks = summarize(results, names, request.by)
        table = table_text(
            describe_protocol(request.settings, models),
            blocks,
            (*names, *BASELINES),
            {
                "predicted and true IoU, r": {n: correlations(results, n) for n in names},
                "predicted IoU, calibration error": {
                    n: calibration_errors(results, n) for n in names
                },
            },
            {name: seconds(results, name) for name in names},
        )
        told = [describe_model(model) for model in models]
    with show_progress(console, "Writing the results"):
        _write(request, results, told, images, names)
    return Evaluation(names, results, blocks, table)


def _choose_objects(
    images: Sequence[AnnotatedImage], request: EvaluateRequest, console: Console
) -> tuple[SelectedObjects, ...]:
    wanted = _filter_datasets(images, request)
    of_part, remark = select_part(wanted, request.part)
    if remark is not None and request.part != "all":
        console.print(remark, markup=False)
    chosen = limit_objects(of_part, request.limit, request.settings.seed)
    if not chosen:
        raise OptionError("part", "no object is left to measure: choose another part or dataset.")
    patients = len({(one.image.dataset, one.image.group) for one in chosen})
    objects = sum(len(one.truths) for one in chosen)
    part = "" if remark is not None or request.part == "all" else f" of the {request.part} part"
    console.print(
        f"{count_noun(objects, 'object')} in {count_noun(len(chosen), 'image')} of "
        f"{count_noun(patients, 'patient')}{part}.",
        markup=False,
    )
    return chosen


def _filter_datasets(
    images: Sequence[AnnotatedImage], request: EvaluateRequest
) -> Sequence[AnnotatedImage]:
    names, wanted = {image.dataset for image in images}, {*map(compose, request.datasets)}
    if unknown := sorted(wanted - names):
        raise OptionError("datasets", f"{unknown[0]!r} is none of {', '.join(sorted(names))}.")
    return [image for image in images if not wanted or image.dataset in wanted]


def _write(
    request: EvaluateRequest,
    results: EvaluationResults,
    told: Sequence[Mapping[str, object]],
    images: Sequence[AnnotatedImage],
    models: Sequence[str],
) -> None:
    if request.json_file is not None:
        settings = {
            **asdict(request.settings),
            "part": request.part,
            "limit": request.limit,
            "models": list(request.models),
            "boxes": None if request.boxes is None else request.boxes.name,
        }
        record = make_record(results, told, settings, images)
        write_atomically(request.json_file, json.dumps(record, indent=1).encode())
    if request.plots is not None:
        write_plots(request.plots, results, models)
    if request.figures is not None:
        write_figures(request.figures, results.pictures, images, models, request.figures_count)
