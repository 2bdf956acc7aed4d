"""The ``evaluate`` command: annotated images and models in; tables, JSON, plots, pictures out."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from rich.console import Console

from wsisam_qupath.console import counted, name_cases
from wsisam_qupath.errors import OptionError
from wsisam_qupath.files import check_writable, write_atomically

from ..fields import Dataset, Field
from .answerers import Loading, described, load_answerers
from .boxes import read_boxes
from .choosing import Chosen, Wanted, fields_of_part, limited
from .figures import write_figures
from .plots import write_plots
from .protocol import ProtocolSettings
from .record import record_of
from .run import Findings, ask_all
from .summary import Block, By, correlations, seconds, summarise
from .table import table_text

PAPER_MPP = 1.0
"""10x, as the paper counts it."""


@dataclass(frozen=True)
class EvaluateRequest:
    """What the command line asks for; the names are those of its options.

    Attributes:
        models: see :func:`.load_answerer`; the first is what the others are compared with.
        datasets: only these, where any is named.
        limit: objects of each dataset, at most.
        json_file, plots, figures: what is written beside the table.
        figures_count: objects that are drawn, at most.
    """

    models: tuple[str, ...] = ("none",)
    part: Wanted = "test"
    datasets: tuple[str, ...] = ()
    limit: int | None = None
    by: By = "dataset"
    settings: ProtocolSettings = field(default_factory=ProtocolSettings)
    boxes: Path | None = None
    json_file: Path | None = None
    plots: Path | None = None
    figures: Path | None = None
    figures_count: int = 24
    loading: Loading = field(default_factory=Loading)

    def __post_init__(self) -> None:
        """Check what its parts do not.

        Raises:
            OptionError: a number is out of its range.
        """
        for flag, value in (("--limit", self.limit), ("--figures-count", self.figures_count)):
            if value is not None and value < 1:
                raise OptionError(f"{flag} is {value}. Give 1 or more.")
        if not self.models:
            raise OptionError("There is no model to measure. Give --adapter or --compare.")


@dataclass(frozen=True)
class Evaluation:
    """What was measured.

    Attributes:
        models: names of the columns.
        blocks: means by dataset, class, image or patient.
        table: the same as text.
    """

    models: tuple[str, ...]
    findings: Findings
    blocks: tuple[Block, ...]
    table: str


def run_evaluate(dataset: Dataset, request: EvaluateRequest, console: Console) -> Evaluation:
    """Measure models on annotated images, and write what the request names.

    Args:
        dataset: see ``sources``; what was damaged in it is named on the console.

    Raises:
        PromptError: there is nothing to measure.
        OptionError: an option is wrong.
        AdapterError, WeightsError, DeviceError: a model cannot be loaded.
        OutputError: a file cannot be written.
    """
    if request.json_file is not None:
        check_writable(request.json_file)
    name_cases(console, "Damaged", dataset.damaged)
    chosen = _chosen(dataset.fields, request, console)
    fields = [one.field for one in chosen]
    boxes = None if request.boxes is None else read_boxes(request.boxes, fields)
    with console.status("Loading the models"):
        answerers = load_answerers(request.models, request.loading)
    models = tuple(answerer.name for answerer in answerers)
    findings = ask_all(
        chosen,
        answerers,
        request.settings,
        console,
        boxes=boxes,
        with_pictures=request.figures is not None,
    )
    name_cases(console, "Skipped", findings.skipped)
    if boxes is not None:
        console.print(
            f"Boxes of the other model that fit no object: {findings.spare_boxes}. Objects without "
            "a box count as 0.",
            markup=False,
        )
    blocks = summarise(findings, models, request.by)
    table = table_text(
        blocks,
        models,
        {model: correlations(findings, model) for model in models},
        {model: seconds(findings, model) for model in models},
    )
    told = [described(answerer) for answerer in answerers]
    _write(request, findings, told, fields, models)
    return Evaluation(models, findings, blocks, table)


def _chosen(
    fields: Sequence[Field], request: EvaluateRequest, console: Console
) -> tuple[Chosen, ...]:
    wanted = _named(fields, request)
    of_part, remark = fields_of_part(wanted, request.part)
    if remark is not None and request.part != "all":
        console.print(remark, markup=False)
    chosen = limited(of_part, request.limit, request.settings.seed)
    if not chosen:
        raise OptionError("No object is left to measure. Check --dataset and --part.")
    patients = len({(one.field.dataset, one.field.group) for one in chosen})
    objects = sum(len(one.truths) for one in chosen)
    part = "" if remark is not None or request.part == "all" else f" of the {request.part} part"
    console.print(
        f"{counted(objects, 'object')} in {counted(len(chosen), 'image')} of "
        f"{counted(patients, 'patient')}{part}.",
        markup=False,
    )
    return chosen


def _named(fields: Sequence[Field], request: EvaluateRequest) -> Sequence[Field]:
    names = {field.dataset for field in fields}
    if unknown := sorted(set(request.datasets) - names):
        raise OptionError(f"There is no dataset {unknown[0]!r}, but {', '.join(sorted(names))}.")
    return [f for f in fields if not request.datasets or f.dataset in request.datasets]


def _write(
    request: EvaluateRequest,
    findings: Findings,
    told: Sequence[Mapping[str, object]],
    fields: Sequence[Field],
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
        record = record_of(findings, told, settings, fields)
        write_atomically(request.json_file, json.dumps(record, indent=1).encode())
    if request.plots is not None:
        write_plots(request.plots, findings, models)
    if request.figures is not None:
        write_figures(request.figures, findings.pictures, fields, models, request.figures_count)
