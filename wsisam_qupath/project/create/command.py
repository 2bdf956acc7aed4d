"""Runs ``create``: makes a QuPath project of slides and their annotations."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from ...errors import OptionError, PromptError, SlideError, escape
from ...files.names import name_key
from ...geojson import Feature
from ...geojson.cleaning import Cleaned, ObjectStream, list_classes
from ...geojson.manifest import REGION_CLASS
from ...prompts import PathClass, Skipped
from ...qupath.jvm.creation import IMAGE_TYPES, AddedImage, set_classes
from ...qupath.jvm.process import QuPathProcess
from ...report.progress import (
    Progress,
    count_noun,
    name_cases,
    name_some,
    show_progress,
    stderr_console,
)
from .adding import Adder, Addition
from .finding import find_slides
from .folder import PROJECT_FILE, build_beside, check_free, find_project_folder
from .matching import Matched, Source, Sources, find_annotations, match

_USEFUL_CLASSES = (PathClass(REGION_CLASS, (0, 0, 180)), PathClass("Ignore*", (180, 180, 180)))
"""QuPath's default classes with their colors, which a new class list would replace."""


@dataclass(frozen=True)
class CreateRequest:
    """The options of ``create``, under the names that they have on the command line.

    Attributes:
        project: the folder to make, or ``project.qpproj`` in it.
        images: folders, files and patterns.
        annotations: a folder of GeoJSON files, one such file, or a COCO file.
        image_type: one of :data:`.IMAGE_TYPES`.
    """

    project: Path
    images: tuple[str, ...]
    annotations: Path | None = None
    image_type: str = "brightfield-h-e"


@dataclass(frozen=True)
class Created:
    """The result of ``create``: the project and how many slides came in.

    Attributes:
        project: the project file.
        n_images: how many it holds.
        n_objects: imported annotations and other objects.
        repaired: how many outlines had to be made valid.
        failed: slides that QuPath does not open and annotations that cannot be read, by name and
            reason.
        skipped: single objects and rows that could not be used.
        without_slide: annotations that belong to none of the slides.
        without_annotations: slides that have none, where any were named.
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
    sources = Sources() if named is None else find_annotations(named.expanduser(), slides)
    matched = match(sources.sources, slides)
    if named is not None and not matched.by_slide:
        raise PromptError(_none_matches(named, matched, slides))
    with build_beside(folder) as unfinished, QuPathProcess() as qupath:
        builder = _Builder(qupath, unfinished / PROJECT_FILE, request.image_type, console)
        builder.add(slides, matched.by_slide)
        builder.set_classes(sources.path_classes)
    created = Created(
        folder / PROJECT_FILE,
        builder.n_images,
        builder.n_objects,
        builder.repaired + sources.repaired,
        (*unnamable, *builder.failed, *matched.ambiguous),
        (*sources.damaged, *builder.skipped),
        matched.without_slide,
        tuple(s.name for s in slides if s not in matched.by_slide) if named is not None else (),
        time.perf_counter() - start,
    )
    _tell(created, console)
    return created


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


class _Builder:
    """Adds slides with their annotations to a project and counts them."""

    def __init__(
        self, qupath: QuPathProcess, project: Path, image_type: str, console: Console
    ) -> None:
        self.n_images = 0
        self.n_objects = 0
        self.repaired = 0
        self.failed: list[Skipped] = []
        self.skipped: list[Skipped] = []
        self._adder = Adder(qupath, project, image_type, self._tell_objects)
        self._console = console
        self._progress: Progress | None = None
        self._told = 0
        self._qupath = qupath
        self._project = project
        self._path_classes: dict[str, PathClass] = {}

    def add(self, slides: Sequence[Path], sources: Mapping[Path, Source]) -> None:
        """Add all slides.

        Raises:
            SlideError: QuPath opens none.
        """
        labels = label_slides(slides)
        with show_progress(self._console, "Starting QuPath"):
            self._adder.start()
        with show_progress(self._console, "Adding slides", len(slides)) as self._progress:
            for slide in self._progress.track(slides):
                self._add(slide, labels[slide], sources.get(slide))
            self._adder.finish()
        if not self.n_images:
            raise SlideError(
                f"QuPath opened none of {count_noun(len(slides), 'slide')}. {self.failed[0].reason}"
            )

    def set_classes(self, path_classes: Sequence[PathClass]) -> None:
        """Set the class list to the given and the annotated classes; without any, keep QuPath's."""
        listed = {one.name: one for one in (*path_classes, *self._path_classes.values())}
        if listed:
            listed |= {one.name: one for one in _USEFUL_CLASSES if one.name not in listed}
            self._qupath.run(set_classes, self._project, tuple(listed.values()))

    def _add(self, slide: Path, label: str, source: Source | None) -> None:
        """Add a slide with its objects; without them where they cannot be read."""
        found: ObjectStream | Cleaned = Cleaned()

        def read() -> Iterator[Feature]:
            nonlocal found  # again where QuPath's process had to be started again
            assert source is not None
            found = source.open(lambda _: None)
            for feature in found:
                self._path_classes |= {one.name: one for one in list_classes([feature])}
                yield feature

        try:
            bare = Addition(slide, label)
            added = self._adder.add(bare if source is None else Addition(slide, label, read))
        except PromptError as exc:
            assert source is not None
            self.failed.append(Skipped(source.label, str(exc)))
            added = self._adder.add(Addition(slide, label))
        self.repaired += found.repaired
        if source is not None:
            self.skipped += [Skipped(f"{source.label}: {s.id}", s.reason) for s in found.skipped]
        self._note(slide, added, with_objects=source is not None)

    def _tell_objects(self, count: int) -> None:
        self._told += count
        if self._progress is not None and self._told:
            self._progress.update(note=f"{self._told:,} objects")

    def _note(self, slide: Path, added: AddedImage, *, with_objects: bool) -> None:
        name = slide.name
        self.n_images += len(added.ids)
        self.n_objects += added.n_objects
        self.skipped += [Skipped(f"{name}: {one.id}", one.reason) for one in added.skipped]
        if added.reason:
            self.failed.append(Skipped(name, added.reason))
        elif len(added.ids) > 1 and with_objects:
            reason = f"it holds {len(added.ids)} images; the annotations are in the first"
            self.skipped.append(Skipped(name, reason))


def _in_utf8(slides: Sequence[Path]) -> tuple[tuple[Path, ...], tuple[Skipped, ...]]:
    """Slides that Java can name, and the others with the reason.

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
