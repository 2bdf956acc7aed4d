"""Builds a project slide by slide, records each that is saved, and counts what came of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from ...errors import PromptError, SlideError
from ...geojson import Feature
from ...geojson.cleaning import Cleaned, ObjectStream, list_classes
from ...geojson.coco import CocoStream
from ...geojson.manifest import REGION_CLASS
from ...prompts import PathClass, Skipped
from ...qupath.jvm.creation import set_classes
from ...qupath.jvm.process import QuPathProcess
from ...report.progress import Progress, count_noun, show_progress
from .adding import Adder, Addition
from .matching import Source
from .unfinished import PROJECT_FILE, Plan, SlideRecord, Unfinished

_USEFUL_CLASSES = (PathClass(REGION_CLASS, (0, 0, 180)), PathClass("Ignore*", (180, 180, 180)))
"""QuPath's default classes with their colors, which a new class list would replace."""


class Builder:
    """Adds slides with their annotations to a project.

    Args:
        unfinished: the project so far; slides that are in it already are not added again.
        plan: what the project is made of; see :func:`.build_beside`.
        image_type: one of :data:`.IMAGE_TYPES`.

    Attributes:
        records: outcome of each slide that is in the project.
        failed: reasons of slides that are not in it, by path.
    """

    def __init__(
        self,
        qupath: QuPathProcess,
        unfinished: Unfinished,
        plan: Plan,
        image_type: str,
        console: Console,
    ) -> None:
        self.records = list(unfinished.kept.values())
        self.failed: dict[str, tuple[Skipped, ...]] = {}
        self._unfinished, self._plan, self._console = unfinished, plan, console
        self._unrecorded: list[SlideRecord] = []
        self._project = unfinished.path / PROJECT_FILE
        self._adder = Adder(qupath, self._project, image_type, self._tell_objects)
        self._qupath = qupath
        self._progress: Progress | None = None
        self._told = 0

    def add(
        self, slides: Sequence[Path], labels: Mapping[Path, str], sources: Mapping[Path, Source]
    ) -> None:
        """Add all slides that an earlier run did not.

        Raises:
            SlideError: QuPath opens none.
        """
        left = [slide for slide in slides if str(slide) not in self._unfinished.kept]
        with show_progress(self._console, "Starting QuPath"):
            self._adder.start()
        done = len(slides) - len(left)
        with show_progress(self._console, "Adding slides", len(slides), done=done) as progress:
            self._progress = progress
            for slide in progress.track(left):
                self._add(slide, labels[slide], sources.get(slide))
                if self._adder.is_save_due:
                    self._save()
            self._save()
        if not self.records:
            reason = self.failed[str(slides[0])][-1].reason
            raise SlideError(f"QuPath opened none of {count_noun(len(slides), 'slide')}. {reason}")

    def set_classes(self, path_classes: Sequence[PathClass]) -> None:
        """Set the class list to the given and the annotated classes; without any, keep QuPath's."""
        annotated = (one for record in self.records for one in record.path_classes)
        listed = {one.name: one for one in (*path_classes, *annotated)}
        if listed:
            listed |= {one.name: one for one in _USEFUL_CLASSES if one.name not in listed}
            with show_progress(self._console, "Writing the class list"):
                self._qupath.run(set_classes, self._project, tuple(listed.values()))

    def _save(self) -> None:
        """Save the project, and record what is now in it."""
        self._adder.save()
        records = [
            # QuPath gives other ids to slides that it had to add again.
            replace(one, ids=self._adder.entry_ids[Path(one.slide)])
            for one in self._unrecorded
        ]
        self._unrecorded.clear()
        self._unfinished.add(records)
        self.records += records

    def _add(self, slide: Path, label: str, source: Source | None) -> None:
        """Add a slide with its objects, or without them if they cannot be read."""
        found: ObjectStream | CocoStream | Cleaned = Cleaned()
        path_classes: dict[str, PathClass] = {}
        failed: tuple[Skipped, ...] = ()

        def read() -> Iterator[Feature]:
            nonlocal found  # again where QuPath's process had to be started again
            assert source is not None
            found = source.open()
            for feature in found:
                path_classes.update({one.name: one for one in list_classes([feature])})
                yield feature

        try:
            bare = Addition(slide, label)
            added = self._adder.add(bare if source is None else Addition(slide, label, read))
        except PromptError as exc:
            assert source is not None
            failed = (Skipped(source.label, str(exc)),)
            added = self._adder.add(Addition(slide, label))
        if added.reason:
            self.failed[str(slide)] = (*failed, Skipped(slide.name, added.reason))
            return
        skipped = () if source is None else _name_skipped(source.label, found.skipped)
        skipped += _name_skipped(slide.name, added.skipped)
        if len(added.ids) > 1 and source is not None:
            reason = f"it holds {len(added.ids)} images; the annotations are in the first"
            skipped += (Skipped(slide.name, reason),)
        self._unrecorded.append(
            SlideRecord(
                str(slide),
                self._plan.made_of[str(slide)],
                added.ids,
                added.n_objects,
                found.repaired,
                failed,
                skipped,
                tuple(path_classes.values()),
            )
        )

    def _tell_objects(self, count: int) -> None:
        self._told += count
        if self._progress is not None and self._told:
            self._progress.update(note=f"{self._told:,} objects")


def _name_skipped(name: str, skipped: Sequence[Skipped]) -> tuple[Skipped, ...]:
    return tuple(Skipped(f"{name}: {one.id}", one.reason) for one in skipped)
