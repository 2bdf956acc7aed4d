"""The ``segment`` command: prompts and a slide in, GeoJSON out."""

from __future__ import annotations

import errno
import os
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from ..errors import OptionError, OutputError
from ..files import check_writable
from ..geojson import dump_features, prompts_from_options, read_prompts, to_feature, write_features
from ..geojson.provenance import ObjectType
from ..geojson.writing import Feature
from ..geometry import Box
from ..inference.loading import choose, load_predictor
from ..inference.options import SegmentOptions
from ..inference.segmenter import Segmenter
from ..inference.tasks import ModelRequest
from ..model.adapter import Adapter
from ..model.bases import Base, find_base
from ..model.shipped import load_chosen_adapter
from ..prompts import Prompt, PromptSet, Skipped, clip_to_slide, require_usable
from ..prompts.grouping import PointsAs
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
class SegmentRequest(ModelRequest):
    """What the command line asks for; the names are those of its options."""

    slide: str
    prompts: Path | None = None
    output: Path | None = None
    boxes: tuple[tuple[float, float, float, float], ...] = ()
    points: tuple[tuple[float, float], ...] = ()
    negatives: tuple[tuple[float, float], ...] = ()
    points_as: PointsAs = "together"
    mpp: float | None = None
    object_size: float | None = None
    simplify: float = 0.25
    min_area: float = 10.0
    object_type: ObjectType = "detection"
    overlay: Path | None = None

    @property
    def options(self) -> SegmentOptions:
        """The engine's options, checked."""
        return SegmentOptions(self.object_size, self.simplify, self.min_area)

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
    """Do what the request says. Nothing is written before all of it is known to be right.

    Raises:
        WsiSamError: see the error tree.
    """
    console = stderr_console()
    start = time.perf_counter()
    options = request.options
    for path in (request.file, request.overlay):
        if path is not None:
            check_writable(path)
    base = find_base(request.base)
    adapter = load_chosen_adapter(request.model.adapter, base)
    choose(request.device, request.backend)
    with open_slide(request.slide, mpp=request.mpp) as slide:
        _check_outputs(request, slide)
        prompt_set = _read_prompts(request, slide, base, adapter)
        name_cases(console, "Skipped", prompt_set.skipped)
        clicked = sum(bool(p.l0_positives or p.l0_negatives) for p in prompt_set.prompts)
        if warning := points_warning(clicked, base, adapter):
            console.print(warning, markup=False)
        segmenter = _load_segmenter(request, base, adapter, console)
        # Closed before the slide is: after Ctrl-C, threads would read from a file that is gone.
        with closing(segmenter.segment(slide, prompt_set.prompts, options)) as answers:
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
    """Two lines: what was answered, and where the time went."""
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


def _check_outputs(request: SegmentRequest, slide: Slide) -> None:
    """Results must not replace what they are made of, nor each other."""
    used = {"slide": Path(slide.location), "prompts": request.prompts}
    for option, path in (("-o", request.file), ("--overlay", request.overlay)):
        for what, other in used.items():
            if path is not None and other is not None and _is_same(path, other):
                raise OutputError(f"{option} {path} would replace the {what}: name another file.")
        used["outlines"] = request.file


def _is_same(path: Path, other: Path) -> bool:
    try:
        return path.samefile(other)
    except OSError:  # one of them is not there yet
        return os.path.realpath(path) == os.path.realpath(other)


def _read_prompts(
    request: SegmentRequest, slide: Slide, base: Base, adapter: Adapter | None
) -> PromptSet:
    """Every usable prompt on the slide; the planner says which patch a stray negative is in."""
    hr_mpp = adapter.card.hr_mpp if adapter else 1.0
    planner = Planner(slide.mpp, base.size_px, hr_mpp, request.object_size)

    def hr_l0_box_of(prompt: Prompt) -> Box:
        return planner.pair(prompt).hr_l0_box

    inline = request.boxes or request.points or request.negatives
    if inline and request.prompts:
        raise OptionError("Give either a GeoJSON file or --box, --point and --negative, not both.")
    if request.prompts is not None:
        source = str(request.prompts)
        found = read_prompts(request.prompts, points=request.points_as, hr_l0_box_of=hr_l0_box_of)
    elif inline:
        source = "The command line"
        found = prompts_from_options(
            request.boxes,
            request.points,
            request.negatives,
            points_as=request.points_as,
            hr_l0_box_of=hr_l0_box_of,
        )
    else:
        raise OptionError(
            "There is nothing to outline. Give a GeoJSON file with prompts, or --box, --point."
        )
    return require_usable(clip_to_slide(found, slide.l0_box), source)


def _load_segmenter(
    request: SegmentRequest, base: Base, adapter: Adapter | None, console: Console
) -> Segmenter:
    with console.status("Loading the model (the first start prepares it, which takes a while)"):
        return Segmenter(
            load_predictor(
                base,
                adapter=adapter,
                weights=request.weights,
                device=request.device,
                backend=request.backend,
            )
        )


def _show_progress(
    answers: Iterable[Result | Empty], prompt_set: PromptSet, console: Console
) -> Iterator[Result | Empty]:
    """The same answers, with a progress bar on a terminal."""
    with progress_bar(console, "Outlining", len(prompt_set.prompts)) as progress:
        yield from progress.track(answers, task_id=TASK)


def _sort_results(
    prompts: Iterable[Prompt], answers: Iterable[Result | Empty]
) -> tuple[tuple[Result, ...], tuple[Empty, ...]]:
    """Answers in the order of their prompts, which the engine groups by patch pair."""
    place = {prompt.id: index for index, prompt in enumerate(prompts)}
    ordered = sorted(answers, key=lambda answer: place[answer.prompt.id])
    results = tuple(a for a in ordered if isinstance(a, Result))
    return results, tuple(a for a in ordered if isinstance(a, Empty))


def _write(request: SegmentRequest, results: Iterable[Result]) -> None:
    features = (to_feature(result, request.object_type) for result in results)
    if request.file is not None:
        write_features(request.file, features)
    else:
        _print(features)


def _print(features: Iterable[Feature]) -> None:
    """Write to stdout, to its end: when Python flushes on exit, it is too late for a message."""
    if sys.stdout is None:
        raise OutputError("There is no stdout to write to. Name a file with -o.")
    try:
        dump_features(sys.stdout, features)
        sys.stdout.flush()
    except OSError as exc:
        if exc.errno == errno.EPIPE:  # nobody reads on: no mistake, see main()
            raise
        # What is left in the buffer would be tried again, and fail again, on exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise OutputError(
            f"stdout takes no more ({exc.strerror}). Make room, or name a file with -o."
        ) from exc
