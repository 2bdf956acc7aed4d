"""Runs ``create``: makes a QuPath project of slides and their annotations."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from ... import __version__
from ...errors import OptionError, PromptError, SlideError, escape
from ...files.names import name_key
from ...prompts import Skipped
from ...qupath.jvm.creation import IMAGE_TYPES
from ...qupath.jvm.process import QuPathProcess
from ...report.progress import count_noun, name_cases, name_some, show_progress, stderr_console
from .building import Builder
from .finding import find_slides
from .folder import build_beside, check_free, find_project_folder
from .matching import Matched, Sources, find_annotations, match
from .unfinished import PROJECT_FILE, Plan, Unfinished, name_state


@dataclass(frozen=True)
class CreateRequest:
    """The options of ``create``, under the names that they have on the command line.

    Attributes:
        project: folder to make, or ``project.qpproj`` in it.
        images: folders, files and patterns of slides.
        annotations: a folder of GeoJSON files, one such file, or a COCO file.
        image_type: one of :data:`.IMAGE_TYPES`.
        resume: whether to continue a stopped ``create`` with the same choices.
    """

    project: Path
    images: tuple[str, ...]
    annotations: Path | None = None
    image_type: str = "brightfield-h-e"
    resume: bool = True


@dataclass(frozen=True)
class Created:
    """The result of ``create``: the project and how many slides came in.

    Attributes:
        project: the project file.
        n_images: number of images that the project holds.
        n_objects: number of imported annotations and other objects.
        repaired: how many outlines had to be made valid.
        failed: slides that QuPath does not open and annotations that cannot be read, by name and
            reason.
        skipped: single objects and rows that could not be used.
        without_slide: annotations that belong to none of the slides.
        without_annotations: slides without annotations, if any annotations were named.
    """

    project: Path
    n_images: int = 0
    n_objects: int = 0
    repaired: int = 0
    failed: tuple[Skipped, ...] = ()
    skipped: tuple[Skipped, ...] = ()
    without_slide: tuple[str, ...] = ()
    without_annotations: tuple[str, ...] = ()
    seconds: float = 0.0

    @property
    def is_complete(self) -> bool:
        """Tell whether every slide, and every annotation file that belongs to one, was added."""
        return not self.failed


def run_create(request: CreateRequest) -> Created:
    """Create the project; it appears complete, or not at all.

    What was added when it was stopped is kept beside it: the same request goes on there.

    Raises:
        OutputError: something is there already, or it cannot be written.
        SlideError: there are no slides, or QuPath opens none of them.
        PromptError: the annotations cannot be read, or belong to none of the slides.
        QuPathError: there is no QuPath, or it failed.
    """
    console = stderr_console()
    start = time.perf_counter()
    if request.image_type not in IMAGE_TYPES:
        raise OptionError(
            "image_type", f"{request.image_type} is none of {', '.join(IMAGE_TYPES)}."
        )
    folder = find_project_folder(request.project)
    check_free(folder)
    slides, unnamable = _in_utf8(find_slides(request.images))
    named = request.annotations
    with show_progress(console, "Reading annotations"):
        sources = Sources() if named is None else find_annotations(named.expanduser(), slides)
    matched = match(sources.sources, slides)
    if named is not None and not matched.by_slide:
        raise PromptError(_none_matches(named, matched, slides))
    labels = label_slides(slides)
    plan = _plan(request, slides, labels, matched)
    with (
        _tell_what_is_kept(
            console, build_beside(folder, plan, resume=request.resume)
        ) as unfinished,
        QuPathProcess() as qupath,
    ):
        builder = Builder(qupath, unfinished, plan, request.image_type, console)
        builder.add(slides, labels, matched.by_slide)
        builder.set_classes(sources.path_classes)
    order = {str(slide): number for number, slide in enumerate(slides)}
    records = sorted(builder.records, key=lambda record: order[record.slide])
    failed_of = builder.failed | {record.slide: record.failed for record in records}
    failed = [one for slide in slides for one in failed_of.get(str(slide), ())]
    created = Created(
        folder / PROJECT_FILE,
        sum(len(one.ids) for one in records),
        sum(one.n_objects for one in records),
        sum(one.repaired for one in records),
        (*unnamable, *failed, *matched.ambiguous),
        (*sources.damaged, *(one for record in records for one in record.skipped)),
        matched.without_slide,
        tuple(s.name for s in slides if s not in matched.by_slide) if named is not None else (),
        time.perf_counter() - start,
    )
    _tell(created, console)
    return created


def _plan(
    request: CreateRequest,
    slides: Sequence[Path],
    labels: Mapping[Path, str],
    matched: Matched,
) -> Plan:
    """Name what each slide's part of the project is made of."""
    named = request.annotations

    def describe(slide: Path) -> str:
        source = matched.by_slide.get(slide)
        parts: list[object] = [labels[slide], name_state(slide)]
        if source is not None and named is not None:
            parts += [source.label, name_state(source.path or named.expanduser())]
        return str(parts)

    about = str([__version__, request.image_type])
    return Plan(about, {str(slide): describe(slide) for slide in slides})


@contextmanager
def _tell_what_is_kept(
    console: Console, building: AbstractContextManager[Unfinished]
) -> Iterator[Unfinished]:
    """Report what an earlier run had done and, after Ctrl-C or SIGTERM, what is kept now."""
    with building as unfinished:
        if unfinished.kept:
            console.print(
                f"A run that was stopped had added {count_noun(len(unfinished.kept), 'slide')}: "
                "this one goes on there.",
                markup=False,
            )
        elif unfinished.why_new:
            console.print(
                f"All slides are added again: the unfinished project there {unfinished.why_new}.",
                markup=False,
            )
        try:
            yield unfinished
        except KeyboardInterrupt:
            if not unfinished.is_empty:
                console.print(
                    f"{unfinished.path} keeps {count_noun(len(unfinished.kept), 'slide')}: the "
                    "same command goes on there.",
                    markup=False,
                )
            raise


def summary(created: Created) -> str:
    """Describe what was added and what was not, in a sentence."""
    lines = [
        f"{count_noun(created.n_images, 'image')} and {count_noun(created.n_objects, 'object')} in "
        f"{created.project}, made in {created.seconds:.1f} s."
    ]
    if created.repaired:
        lines.append(f"Made valid: {count_noun(created.repaired, 'outline')} that crossed itself.")
    if created.without_slide:
        lines.append(
            f"Annotations of {count_noun(len(created.without_slide), 'slide')} that "
            f"{'is' if len(created.without_slide) == 1 else 'are'} not among these: "
            f"{name_some(created.without_slide)}."
        )
    if created.without_annotations:
        lines.append(
            f"{count_noun(len(created.without_annotations), 'slide')} without annotations: "
            f"{name_some(created.without_annotations)}."
        )
    return "\n".join(lines)


def _in_utf8(slides: Sequence[Path]) -> tuple[tuple[Path, ...], tuple[Skipped, ...]]:
    """Split slides into those that Java can name, and the others with the reason.

    Raises:
        SlideError: Java can name none.
    """
    reason = "its name is not in UTF-8, so QuPath cannot open it: rename it"
    named: list[Path] = []
    failed: list[Skipped] = []
    for slide in slides:
        try:
            str(slide).encode("utf-8")
        except UnicodeEncodeError:
            failed.append(Skipped(os.fsencode(slide.name).decode("utf-8", "replace"), reason))
        else:
            named.append(slide)
    if not named:
        raise SlideError(f"{failed[0].id}: {failed[0].reason}.")
    return tuple(named), tuple(failed)


def label_slides(slides: Sequence[Path]) -> dict[Path, str]:
    """Label slides of the same name by their folder or a number; other slides get ""."""
    labels = dict.fromkeys(slides, "")
    names = Counter(name_key(slide.name) for slide in slides)
    folders = Counter((name_key(slide.name), name_key(slide.parent.name)) for slide in slides)
    number: Counter[str] = Counter()
    for slide in slides:
        name = name_key(slide.name)
        if names[name] > 1:
            number[name] += 1
            is_told = folders[name, name_key(slide.parent.name)] == 1 and slide.parent.name
            labels[slide] = slide.parent.name if is_told else str(number[name])
    return labels


def _none_matches(annotations: Path, matched: Matched, slides: Sequence[Path]) -> str:
    fix = (
        "Annotations are called like their slide: slide.svs.geojson, or slide.geojson where only "
        "one slide is called so."
    )
    if matched.ambiguous:
        first = matched.ambiguous[0]
        return f"{annotations}: {escape(first.id, 80)} cannot be used: {first.reason}. {fix}"
    theirs = escape(matched.without_slide[0], 80) if matched.without_slide else "nothing"
    return (
        f"{annotations} holds annotations of {theirs}, and the first of "
        f"{count_noun(len(slides), 'slide')} is called {escape(slides[0].name, 80)}. {fix}"
    )


def _tell(created: Created, console: Console) -> None:
    name_cases(console, "Failed:", created.failed)
    name_cases(console, "Left out:", created.skipped)
    console.print(summary(created), markup=False)
