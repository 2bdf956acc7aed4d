"""The ``segment`` command: prompts and a slide in, GeoJSON out."""

from __future__ import annotations

import errno
import os
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console

from ..errors import OptionError, OutputError, PixelSizeError, SlideError
from ..files import check_writable
from ..geojson import (
    dump_features,
    prompts_from_coordinates,
    read_prompts,
    to_feature,
    write_features,
)
from ..geojson.writing import Feature
from ..inference.loading import ResolvedModel, resolve
from ..inference.segmenter import Segmenter
from ..options import ModelSpec, OutlineOptions
from ..prompts import Prompt, PromptSet, Skipped, clip_to_slide, require_usable
from ..prompts.planner import Planner
from ..prompts.results import Empty, Result
from ..report.overlay import write_overlay
from ..report.progress import (
    TASK,
    count_noun,
    name_cases,
    points_warning,
    progress_bar,
    stderr_console,
)
from ..slide import Slide, open_slide


@dataclass(frozen=True)
class SegmentRequest:
    """What the command line asks for; the names are those of its options."""

    slide: str
    prompts: Path | None = None
    output: Path | None = None
    boxes: tuple[tuple[float, float, float, float], ...] = ()
    points: tuple[tuple[float, float], ...] = ()
    negatives: tuple[tuple[float, float], ...] = ()
    all_objects: bool = False
    mpp: float | None = None
    overlay: Path | None = None
    model: ModelSpec = field(default_factory=ModelSpec)
    options: OutlineOptions = field(default_factory=OutlineOptions)

    @property
    def file(self) -> Path | None:
        """The file to write; None is stdout."""
        return None if self.output is None or str(self.output) == "-" else self.output


@dataclass(frozen=True)
class Outcome:
    """What ``segment`` did."""

    prompt_set: PromptSet
    results: tuple[Result, ...]
    empty: tuple[Empty, ...]
    segmenter: Segmenter
    seconds: float


def run_segment(request: SegmentRequest) -> Outcome:
    """Outline the prompts of a request. Nothing is written before all of it was checked.

    Raises:
        WsiSamError: see the error tree.
    """
    console = stderr_console()
    start = time.perf_counter()
    for path in (request.file, request.overlay):
        if path is not None:
            check_writable(path)
    model = resolve(request.model)
    with _open_slide(request, console) as slide:
        _check_outputs(request, slide)
        prompt_set = _read_prompts(request, slide, model.planner(slide.mpp, request.options))
        name_cases(console, "Skipped", prompt_set.skipped)
        clicked = sum(bool(p.l0_positives or p.l0_negatives) for p in prompt_set.prompts)
        if warning := points_warning(clicked, model.base, model.adapter):
            console.print(warning, markup=False)
        segmenter = _load_segmenter(model, console)
        # Closed before the slide is: after Ctrl-C, threads would read from a file that is gone.
        with closing(segmenter.segment(slide, prompt_set, request.options)) as answers:
            results, empty = _sort_results(
                prompt_set.prompts, _show_progress(answers, prompt_set, console)
            )
        name_cases(console, "Nothing at", [Skipped(e.prompt.id, e.reason) for e in empty])
        _write(request, results)
        if request.overlay is not None:
            write_overlay(request.overlay, slide, prompt_set.prompts, results)
    outcome = Outcome(prompt_set, results, empty, segmenter, time.perf_counter() - start)
    console.print(summary(outcome), markup=False)
    return outcome


def summary(outcome: Outcome) -> str:
    """Summarize in two lines what was done, and how long each stage took."""
    tally = outcome.segmenter.tally
    stages = ", ".join(f"{stage} {seconds:.2f}" for stage, seconds in tally.seconds.items())
    return (
        f"{count_noun(len(outcome.prompt_set.prompts), 'prompt')}: "
        f"{len(outcome.results)} outlined, "
        f"{len(outcome.empty)} empty; {len(outcome.prompt_set.skipped)} skipped. "
        f"{count_noun(tally.pairs_embedded, 'patch pair')} encoded by "
        f"{outcome.segmenter.predictor.backend.name}.\n"
        f"{outcome.seconds:.2f} s in all ({stages})."
    )


def _open_slide(request: SegmentRequest, console: Console) -> Slide:
    """Open the slide, also if it is sound and QuPath without Bio-Formats shows noise; say so then.

    Raises:
        SlideError: it cannot be read, or not as QuPath shows it.
    """
    try:
        return open_slide(request.slide, mpp=request.mpp)
    except PixelSizeError:
        raise
    except SlideError as refused:
        try:
            slide = open_slide(request.slide, mpp=request.mpp, as_qupath=False)
        except PixelSizeError:
            raise
        except SlideError:
            raise refused from None
    console.print(
        f"{slide.location} has strips compressed with JPEG, which QuPath shows as noise unless it "
        "has Bio-Formats. The pixels were read as they are stored.",
        markup=False,
    )
    return slide


def _check_outputs(request: SegmentRequest, slide: Slide) -> None:
    """Check that results replace neither the inputs nor each other."""
    used = {"slide": Path(slide.location), "prompts": request.prompts}
    for option, path in (("output", request.file), ("overlay", request.overlay)):
        for what, other in used.items():
            if path is not None and other is not None and _is_same(path, other):
                raise OptionError(option, f"{path} would replace the {what}: choose another file.")
        used["outlines"] = request.file


def _is_same(path: Path, other: Path) -> bool:
    try:
        return path.samefile(other)
    except OSError:  # one of them is not there yet
        return os.path.realpath(path) == os.path.realpath(other)


def _read_prompts(request: SegmentRequest, slide: Slide, planner: Planner) -> PromptSet:
    """Read every usable prompt on the slide."""
    inline = request.boxes or request.points or request.negatives
    if inline and request.prompts:
        raise OptionError(
            "prompts", "cannot be combined with --box, --point and --negative: give one of both."
        )
    points_as, hr_l0_box_of = request.options.points_as, planner.hr_l0_box
    if request.prompts is not None:
        source = str(request.prompts)
        found = read_prompts(
            request.prompts,
            points_as=points_as,
            hr_l0_box_of=hr_l0_box_of,
            drawn_only=not request.all_objects,
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


def _load_segmenter(model: ResolvedModel, console: Console) -> Segmenter:
    with console.status("Loading the model (the first start prepares it, which takes a while)"):
        return Segmenter(model.load())


def _show_progress(
    answers: Iterable[Result | Empty], prompt_set: PromptSet, console: Console
) -> Iterator[Result | Empty]:
    """Yield the same results, with a progress bar on a terminal."""
    with progress_bar(console, "Outlining", len(prompt_set.prompts)) as progress:
        yield from progress.track(answers, task_id=TASK)


def _sort_results(
    prompts: Iterable[Prompt], answers: Iterable[Result | Empty]
) -> tuple[tuple[Result, ...], tuple[Empty, ...]]:
    """Sort results in the order of their prompts; the segmenter groups them by patch pair."""
    place = {prompt.id: index for index, prompt in enumerate(prompts)}
    ordered = sorted(answers, key=lambda answer: place[answer.prompt.id])
    results = tuple(a for a in ordered if isinstance(a, Result))
    return results, tuple(a for a in ordered if isinstance(a, Empty))


def _write(request: SegmentRequest, results: Iterable[Result]) -> None:
    features = (to_feature(result, request.options.object_type) for result in results)
    if request.file is not None:
        write_features(request.file, features)
    else:
        _print(features)


def _print(features: Iterable[Feature]) -> None:
    """Write to stdout and flush: when Python flushes on exit, it is too late for a message."""
    if sys.stdout is None:
        raise OutputError("There is no stdout to write to. Name a file with -o.")
    try:
        dump_features(sys.stdout, features)
        sys.stdout.flush()
    except OSError as exc:
        if exc.errno == errno.EPIPE:  # the reader has gone, which is no error: see main()
            raise
        # What is left in the buffer would be tried again, and fail again, on exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise OutputError(
            f"stdout takes no more ({exc.strerror}). Make room, or name a file with -o."
        ) from exc
