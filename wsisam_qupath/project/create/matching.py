"""Matches annotation files with slides by their names."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TypeVar

from ...errors import PromptError
from ...files import read_json
from ...files.names import name_key
from ...geojson.cleaning import ObjectStream, open_objects
from ...geojson.coco import CocoDocument, CocoStream, is_coco
from ...geojson.manifest import MANIFEST_NAME
from ...geojson.reading import holds_features
from ...geojson.slide_runner import is_slide_runner, read_slide_runner
from ...prompts import PathClass, Skipped
from ...slide.names import natural_key, split_location, strip_format

T = TypeVar("T")

_SUFFIXES = (".geojson", ".json", ".geojson.gz", ".json.gz")

_FIX = "Name a folder of GeoJSON files, or a COCO file such as CATCH.json."


@dataclass(frozen=True)
class Source:
    """A file that holds the annotations of one slide.

    Attributes:
        label: names the annotations to the user.
        slide_name: name of the slide's file that the annotations state, with or without its suffix.
        place: the GeoJSON file that holds them, or a COCO file with those of several slides.
    """

    label: str
    slide_name: str
    place: Path | CocoDocument

    @property
    def path(self) -> Path | None:
        """The file that holds nothing but these annotations; None if it is a COCO file."""
        return self.place if isinstance(self.place, Path) else None

    def open(self) -> ObjectStream | CocoStream:
        """Open the annotations, to be read one by one.

        Raises:
            PromptError: their file cannot be read, or is not GeoJSON.
        """
        if isinstance(self.place, CocoDocument):
            return self.place.open(self.label)
        return open_objects(self.place)


@dataclass(frozen=True)
class Sources:
    """All annotation files that the user named.

    Attributes:
        path_classes: classes that are known before the objects are read: the categories of COCO.
        damaged: rows of COCO that belong to no image.
    """

    sources: tuple[Source, ...] = ()
    path_classes: tuple[PathClass, ...] = ()
    damaged: tuple[Skipped, ...] = ()


@dataclass(frozen=True)
class Matched:
    """Annotations, matched with their slides.

    Attributes:
        without_slide: labels of annotations that belong to no slide.
        ambiguous: annotations that may belong to several slides, by label and reason.
    """

    by_slide: dict[Path, Source]
    without_slide: tuple[str, ...] = ()
    ambiguous: tuple[Skipped, ...] = ()


def find_annotations(path: Path, slides: Sequence[Path]) -> Sources:
    """Find annotations in a folder of GeoJSON files, in one such file, or in a COCO file.

    A database of SlideRunner is a COCO file too.

    One file for one slide need not be called like it.

    Raises:
        PromptError: it cannot be read, or is neither.
    """
    if os.path.isdir(path):  # noqa: PTH112 - Path's own raises where a name is too long
        files = sorted(
            (one for one in path.iterdir() if _is_annotation(one)),
            key=lambda one: natural_key(one.name),
        )
        if not files:
            raise PromptError(f"There are no .geojson files in {path}. {_FIX}")
        return Sources(tuple(Source(one.name, _slide_name(one), one) for one in files))
    if is_slide_runner(path):
        return _read_coco_sources(read_slide_runner(path), str(path))
    document = read_json(path, fix=_FIX)
    if is_coco(document):
        return _read_coco_sources(document, str(path))
    if not holds_features(document):
        raise PromptError(f"{path} is neither GeoJSON nor COCO. {_FIX}")
    name = slides[0].name if len(slides) == 1 else _slide_name(path)
    return Sources((Source(path.name, name, path),))


def match(sources: Sequence[Source], slides: Sequence[Path]) -> Matched:
    """Match annotations with slides: by the whole name, then by the name without its suffix.

    So ``a.svs.geojson`` is of ``a.svs``, and ``a.geojson`` of it too, unless ``a.ndpi`` is there.
    Upper and lower case are the same, and so are composed and decomposed letters.
    """
    by_slide: dict[Path, Source] = {}
    ambiguous: list[Skipped] = []
    waiting = list(sources)
    for slide_key, source_key in (
        (name_key, name_key),
        (_strip_slide_format, _strip_annotation_format),
    ):
        free = [slide for slide in slides if slide not in by_slide]
        slides_of = _group(free, [slide_key(slide.name) for slide in free])
        sources_of = _group(waiting, [source_key(source.slide_name) for source in waiting])
        waiting = []
        for name, candidates in sources_of.items():
            meant = slides_of.get(name, [])
            if len(meant) == 1 and len(candidates) == 1:
                by_slide[meant[0]] = candidates[0]
            elif meant:
                ambiguous += [_report_ambiguous(one, meant, candidates) for one in candidates]
            else:
                waiting += candidates
    return Matched(by_slide, tuple(source.label for source in waiting), tuple(ambiguous))


def _report_ambiguous(source: Source, slides: Sequence[Path], sources: Sequence[Source]) -> Skipped:
    if len(slides) > 1:
        reason = f"{len(slides)} slides are called so, such as {slides[0]} and {slides[1]}"
    else:
        others = " and ".join(one.label for one in sources if one is not source)
        reason = f"{slides[0].name} has annotations in {others} too"
    return Skipped(source.label, reason)


def _group(values: Sequence[T], keys: Sequence[str]) -> dict[str, list[T]]:
    groups: defaultdict[str, list[T]] = defaultdict(list)
    for key, value in zip(keys, values, strict=True):
        groups[key].append(value)
    return groups


def _strip_annotation_format(name: str) -> str:
    return name_key(strip_format(name))


def _strip_slide_format(name: str) -> str:
    """Remove the suffix of a slide's name, whatever it is."""
    bare = strip_format(name)
    return name_key(PurePosixPath(name).stem if bare == name else bare)


def _is_annotation(path: Path) -> bool:
    name = path.name.lower()
    is_wanted = name.endswith(_SUFFIXES) and name != MANIFEST_NAME and not name.startswith(".")
    return is_wanted and path.is_file()


def _slide_name(path: Path) -> str:
    suffix = next((s for s in _SUFFIXES if path.name.lower().endswith(s)), "")
    return path.name[: len(path.name) - len(suffix)]


def _read_coco_sources(document: object, source: str) -> Sources:
    coco = CocoDocument(document, source=source)
    sources = tuple(Source(name, (name, *split_location(name))[-1], coco) for name in coco.images)
    return Sources(sources, coco.path_classes, coco.damaged)
