"""Adds slides to a new project one by one: one on which QuPath hangs or crashes costs itself alone.

QuPath's process is ended where it has no answer in time. What it had not saved is added again.
Objects go there in pieces, so that a million of them are never in memory as text.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ...errors import QuPathError
from ...geojson import Feature
from ...qupath.jvm.creation import (
    AddedImage,
    NewImage,
    add_image,
    add_objects,
    forget_images,
    save_images,
    save_objects,
)
from ...qupath.jvm.process import QuPathProcess
from .unfinished import remove_leftovers

_SLIDE_SECONDS_MAX = 30.0
"""Longest time that QuPath may take to open a slide. It takes below a second, from a slow network
drive ten."""

_START_SECONDS_MAX = 180.0
"""Longest time that Java may take to start, on a busy machine."""

_UNSAVED_MAX = 16
"""Most slides between two saves of the project."""

_UNSAVED_SECONDS_MAX = 10.0
"""Longest time between two saves, unless a slide takes longer."""

_OBJECTS_AT_ONCE = 2000
"""Most objects sent together: few enough for frequent progress and little memory."""

_POSITIONS_AT_ONCE = 200_000
"""Most vertices sent together, if they are of several objects: the same limit for large objects."""


def _no_objects() -> Iterable[Feature]:
    return ()


@dataclass(frozen=True)
class Addition:
    """A slide to add, with its objects.

    Attributes:
        label: see :class:`.NewImage`.
        read: reads the objects, cleaned; may be called more than once.
    """

    slide: Path
    label: str = ""
    read: Callable[[], Iterable[Feature]] = _no_objects


class Adder:
    """Adds slides; see :class:`.QuPathProcess`.

    Args:
        project: ``project.qpproj``, in an empty folder.
        image_type: one of :data:`...qupath.jvm.creation.IMAGE_TYPES`.
        on_objects: is told how many more objects were added.

    Attributes:
        entry_ids: ids of the entries of slides that were added, by slide.
    """

    def __init__(
        self,
        qupath: QuPathProcess,
        project: Path,
        image_type: str,
        on_objects: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._qupath, self._project, self._image_type = qupath, project, image_type
        self._on_objects = on_objects
        self._unsaved: list[Addition] = []
        self._saved_at = time.monotonic()
        self.entry_ids: dict[Path, tuple[str, ...]] = {}

    def start(self) -> None:
        """Start QuPath and make the project, or open it.

        Raises:
            QuPathError: either fails.
        """
        self.save()

    def add(self, image: Addition) -> AddedImage:
        """Add a slide; the answer says why if that fails.

        Raises:
            QuPathError: QuPath fails also at what it did before.
        """
        try:
            added = self._run(image)
        except QuPathError as exc:
            self._restore()
            return AddedImage(
                reason=f"QuPath fails at {image.slide.name}: {exc} If the slide is sound, convert "
                "it to OME-TIFF."
            )
        if added.ids:
            self._unsaved.append(image)
        return added

    @property
    def is_save_due(self) -> bool:
        """Whether so much was added, or so long ago, that it should be saved now."""
        seconds = time.monotonic() - self._saved_at
        is_late = bool(self._unsaved) and seconds >= _UNSAVED_SECONDS_MAX
        return is_late or len(self._unsaved) >= _UNSAVED_MAX

    def save(self) -> None:
        """Save what was added; unsaved additions are lost with this process.

        Raises:
            QuPathError: that fails.
        """
        self._qupath.run_within(_START_SECONDS_MAX, save_images, self._project)
        self._unsaved.clear()
        self._saved_at = time.monotonic()

    def _run(self, image: Addition) -> AddedImage:
        pieces = _divide(image.read())
        first = NewImage(image.slide, image.label, next(pieces, ()))
        added = self._qupath.run_within(
            _SLIDE_SECONDS_MAX, add_image, self._project, first, self._image_type
        )
        self._on_objects(added.n_objects)
        if not added.ids:
            return added
        self.entry_ids[image.slide] = added.ids
        n_objects, skipped = added.n_objects, list(added.skipped)
        for piece in pieces:
            more = self._qupath.run_within(
                _SLIDE_SECONDS_MAX, add_objects, self._project, added.ids[0], piece
            )
            n_objects, skipped = n_objects + more.n_objects, [*skipped, *more.skipped]
            self._on_objects(more.n_objects)
        if n_objects > added.n_objects:
            # A million of them take half a minute.
            seconds = _SLIDE_SECONDS_MAX + n_objects / 10_000
            self._qupath.run_within(seconds, save_objects, self._project, added.ids[0])
        return replace(added, n_objects=n_objects, skipped=tuple(skipped))

    def _restore(self) -> None:
        """Repeat what a failed process had added and not saved."""
        self._qupath.run_within(_START_SECONDS_MAX, forget_images, self._project)
        remove_leftovers(self._project)
        lost = list(self._unsaved)
        self.save()
        for image in lost:
            self._run(image)
        self.save()


def _divide(features: Iterable[Feature]) -> Iterator[tuple[Feature, ...]]:
    piece: list[Feature] = []
    positions = 0
    for feature in features:
        count = _count_positions(feature)
        if piece and positions + count > _POSITIONS_AT_ONCE:
            yield tuple(piece)
            piece, positions = [], 0
        piece.append(feature)
        positions += count
        if len(piece) >= _OBJECTS_AT_ONCE:  # before the next feature is read
            yield tuple(piece)
            piece, positions = [], 0
    if piece:
        yield tuple(piece)


def _count_positions(feature: Feature) -> int:
    """Count the vertices of an object and its children."""
    children = feature.get("properties", {}).get("childObjects") or ()
    return _count_in(feature["geometry"].get("coordinates")) + sum(map(_count_positions, children))


def _count_in(coordinates: Any) -> int:
    if not isinstance(coordinates, Sequence) or not coordinates:
        return 1
    first = coordinates[0]
    if not isinstance(first, Sequence):
        return 1
    is_line = bool(first) and not isinstance(first[0], Sequence)
    return len(coordinates) if is_line else sum(map(_count_in, coordinates))
