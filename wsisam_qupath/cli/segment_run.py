"""The ``segment`` command: prompts and a slide in, GeoJSON out."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console

from ..errors import OptionError
from ..files import check_writable, compute_sha256, estimate_size
from ..geojson import prompts_from_coordinates, read_prompts
from ..geometry import Mpp
from ..inference.loading import ResolvedModel, resolve
from ..inference.segmenter import Segmenter
from ..inference.tally import Tally
from ..inference.tasks import serialize_results
from ..options import ModelSpec, OutlineFormat, OutlineOptions
from ..prompts import Prompt, PromptSet, Skipped, clip_to_slide, require_usable
from ..prompts.planner import Planner
from ..report.overlay import write_overlay
from ..report.progress import (
    MessageConsole,
    count_noun,
    duration,
    name_cases,
    points_warning,
    show_progress,
    stderr_console,
)
from ..slide import Slide
from .inputs_outputs import check_outputs, describe_model, open_for_reading
from .outline_files import check_format, make_labels_path, write_labels_of, write_outlines
from .segment_part import Part, open_part


@dataclass(frozen=True)
class SegmentRequest:
    """The options of ``segment``, under the names that they have on the command line."""

    slide: str
    prompts: Path | None = None
    output: Path | None = None
    boxes: tuple[tuple[float, float, float, float], ...] = ()
    points: tuple[tuple[float, float], ...] = ()
    negatives: tuple[tuple[float, float], ...] = ()
    all_objects: bool = False
    mpp: float | Mpp | None = None
    overlay: Path | None = None
    format: OutlineFormat | None = None
    labels: bool = False
    resume: bool = True
    model: ModelSpec = field(default_factory=ModelSpec)
    options: OutlineOptions = field(default_factory=OutlineOptions)

    @property
    def file(self) -> Path | None:
        """The file to write; None is stdout."""
        return None if self.output is None or str(self.output) == "-" else self.output

    @property
    def labels_file(self) -> Path | None:
        """The mask of labels to write; None if none is wanted."""
        return make_labels_path(self.file) if self.labels and self.file is not None else None

    def check(self) -> None:
        """Check what is to be written, as far as that is possible without the slide.

        Raises:
            OptionError: labels or the format need a file, another name of it, or a package.
            OutputError: a file cannot be written.
        """
        if self.labels and self.file is None:
            raise OptionError("labels", "they lie beside the outlines: name a file as the output.")
        check_format(self.file, self.format)
        for path in (self.file, self.labels_file, self.overlay):
            if path is not None:
                check_writable(path)


@dataclass(frozen=True)
class Outcome:
    """What ``segment`` did.

    Attributes:
        empty: prompts for which the model found no object, with the reason.
        kept: how many prompts an earlier run answered.
        segmenter: what answered; None if an earlier run answered everything.
        mpp: pixel size of the slide.
    """

    prompt_set: PromptSet
    empty: tuple[Skipped, ...]
    kept: int
    segmenter: Segmenter | None
    seconds: float
    mpp: Mpp

    @property
    def outlined(self) -> int:
        """How many prompts have an outline."""
        return len(self.prompt_set) - len(self.empty)


class LoadedModel:
    """The model of one slide or many, loaded when the first prompt needs it.

    Attributes:
        resolved: the chosen model, which may not be loaded yet.
    """

    def __init__(self, spec: ModelSpec) -> None:
        """Check the choice.

        Raises:
            WsiSamError: see :func:`.resolve`.
        """
        self.resolved = resolve(spec)
        self._segmenter: Segmenter | None = None
        self._loading = threading.Lock()

    def load(self, console: MessageConsole) -> Segmenter:
        """Load the model, unless that was done before; may be called from any thread."""
        with self._loading:
            if self._segmenter is None:
                with show_progress(console, "Loading the model (the first start prepares it)"):
                    self._segmenter = Segmenter(self.resolved.load())
            return self._segmenter


def run_segment(request: SegmentRequest) -> Outcome:
    """Outline the prompts of a request, and show progress on stderr.

    Raises:
        WsiSamError: see the error tree.
    """
    console = stderr_console()
    outcome = outline_slide(request, LoadedModel(request.model), console)
    console.print(summary(outcome), markup=False)
    return outcome


def outline_slide(request: SegmentRequest, loaded: LoadedModel, console: MessageConsole) -> Outcome:
    """Outline the prompts of a request. Nothing is written before all of it was checked.

    What is done is kept beside the output until all is: the same request goes on after a stop.

    Raises:
        WsiSamError: see the error tree.
    """
    start = time.perf_counter()
    request.check()
    model = loaded.resolved
    with open_for_reading(request.slide, request.mpp, console) as slide:
        inputs = {"slide": Path(slide.location), "prompts": request.prompts}
        check_outputs(
            inputs, output=request.file, overlay=request.overlay, labels=request.labels_file
        )
        prompt_set = read_all_prompts(
            request, slide, model.planner(slide.mpp, request.options), console
        )
        name_cases(console, "Skipped", prompt_set.skipped)
        clicked = sum(bool(p.l0_positives or p.l0_negatives) for p in prompt_set.prompts)
        if warning := points_warning(clicked, model.base, model.adapter):
            console.print(warning, markup=False)
        with open_part(
            request.file, describe_inputs(request, slide, model), resume=request.resume
        ) as part:
            _tell_of_earlier(part, console)
            segmenter = _outline(request, slide, loaded, prompt_set, part, console)
            prompts = prompt_set.prompts
            empty = part.empty(prompts)
            name_cases(console, "Nothing at", empty)
            with show_progress(console, "Writing outlines"):
                write_outlines(request.file, part.features(prompts))
                if request.labels_file is not None:
                    write_labels_of(request.labels_file, part.features(prompts), slide)
                if request.overlay is not None:
                    write_overlay(request.overlay, slide, prompts, part.features(prompts))
            seconds = time.perf_counter() - start
            return Outcome(prompt_set, empty, part.kept, segmenter, seconds, slide.mpp)


def describe_inputs(request: SegmentRequest, slide: Slide, model: ResolvedModel) -> dict[str, str]:
    """Describe what decides the results, so that those of something else are not taken for them."""
    drawn = (request.boxes, request.points, request.negatives, request.all_objects)
    file_sha256 = None if request.prompts is None else compute_sha256(request.prompts)
    return {
        "slide": f"{slide.identity} {slide.mpp}",
        "prompts": f"{file_sha256} {drawn}",
        "model": describe_model(model),
        "options": str(request.options),
    }


def _tell_of_earlier(part: Part, console: Console) -> None:
    if part.kept:
        console.print(
            f"{count_noun(part.kept, 'prompt')} were answered by a run that was stopped: this one "
            "goes on there.",
            markup=False,
        )
    elif part.why_new:
        console.print(f"All is outlined again: the unfinished results there are {part.why_new}.")


def _outline(
    request: SegmentRequest,
    slide: Slide,
    loaded: LoadedModel,
    prompt_set: PromptSet,
    part: Part,
    console: MessageConsole,
) -> Segmenter | None:
    """Outline the prompts without a result; return what did it, None if there were none."""
    left = [prompt for prompt in prompt_set if prompt.id not in part]
    if not left:
        return None
    planner = loaded.resolved.planner(slide.mpp, request.options)
    _tell_of_overview(slide, left, planner, console)
    segmenter = loaded.load(console)
    total, done = len(prompt_set), len(prompt_set) - len(left)
    answers = segmenter.segment(slide, left, request.options)
    # Closed before the slide is: after Ctrl-C, threads would read from a file that is gone.
    with (
        closing(serialize_results(answers, request.options.object_type)) as results,
        show_progress(console, "Outlining prompts", total, done=done) as progress,
    ):
        try:
            for result in progress.track(results):
                part.append(result)
        except KeyboardInterrupt:
            if request.file is not None:
                console.print("What was outlined is kept: the same command goes on there.")
            raise
    return segmenter


def _tell_of_overview(
    slide: Slide, prompts: Sequence[Prompt], planner: Planner, console: Console
) -> None:
    """Tell the user if a slide without a pyramid first needs a coarse copy for large prompts."""
    pairs = set(map(planner.pair, prompts))
    l0_boxes = (l0_box for pair in pairs for l0_box in pair.l0_boxes)
    plan = slide.plan_overview(l0_boxes, planner.size_px)
    if plan is not None:
        console.print(
            f"{slide.location} has no pyramid. A coarse copy for its large prompts is made once: "
            f"{plan.size_bytes / 1e6:.0f} MB in the cache, about {duration(plan.seconds)}.",
            markup=False,
        )


def summary(outcome: Outcome) -> str:
    """Summarize in two lines what was done, and how long each stage took."""
    words = (
        f"{count_noun(len(outcome.prompt_set), 'prompt')}: {outcome.outlined} outlined, "
        f"{len(outcome.empty)} empty; {len(outcome.prompt_set.skipped)} skipped."
    )
    if outcome.segmenter is None:
        return f"{words}\n{outcome.seconds:.2f} s in all."
    tally = outcome.segmenter.tally
    stages = ", ".join(f"{stage} {seconds:.2f}" for stage, seconds in tally.seconds.items())
    return (
        f"{words} {count_noun(tally.pairs_embedded, 'patch pair')} encoded by "
        f"{outcome.segmenter.predictor.backend.name}{_describe_stored(tally)}.\n"
        f"{outcome.seconds:.2f} s in all ({stages})."
    )


def _describe_stored(tally: Tally) -> str:
    count = tally.patches_stored
    return f", {count} patch{'es' * (count > 1)} read from the disk" if count else ""


def read_all_prompts(
    request: SegmentRequest, slide: Slide, planner: Planner, console: Console
) -> PromptSet:
    """Read every usable prompt on the slide.

    Raises:
        PromptError, OptionError: there is none, or the file cannot be read.
    """
    inline = request.boxes or request.points or request.negatives
    if inline and request.prompts:
        raise OptionError(
            "prompts", "cannot be combined with --box, --point and --negative: give one of both."
        )
    points_as, hr_l0_box_of = request.options.points_as, planner.hr_l0_box
    if request.prompts is not None:
        source = str(request.prompts)
        size = 0
        with suppress(OSError):  # what is wrong with the file is said when it is read
            size = estimate_size(request.prompts)
        # Each byte is read twice; see read_json.
        with show_progress(console, "Reading prompts", size, unit="B") as progress:
            found = read_prompts(
                request.prompts,
                points_as=points_as,
                hr_l0_box_of=hr_l0_box_of,
                drawn_only=not request.all_objects,
                on_read=lambda count: progress.advance(count / 2),
            )
    elif inline:
        source = "The command line"
        found = prompts_from_coordinates(
            request.boxes,
            request.points,
            request.negatives,
            points_as=points_as,
            hr_l0_box_of=hr_l0_box_of,
        )
    else:
        raise OptionError(
            "prompts", "there is nothing to outline: give a GeoJSON file, --box or --point."
        )
    return require_usable(clip_to_slide(found, slide.l0_box), source)
