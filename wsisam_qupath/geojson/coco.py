"""Read MS COCO polygons as QuPath objects: ``CATCH.json``, ``CATCH.sqlite``, any other COCO file.

CATCH (350 canine slides, 13 classes) gives each outline as one flat list x0, y0, x1, y1, … in
level-0 pixels; COCO itself gives a list of such lists, the parts of one object.
"""

from __future__ import annotations

import colorsys
import math
from array import array
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from ..errors import PromptError
from ..files import is_list, read_json
from ..prompts import PathClass, Plane, Skipped
from ..prompts.grouping import derive_id
from .cleaning import clean_area
from .properties import clean_text, make_classification, read_path_class
from .shapes import UnusableError, geometry_json
from .slide_runner import is_slide_runner, read_slide_runner
from .writing import Feature

_FIX = "Download it again from its source."

_GOLDEN_TURN = 0.618033988749895
"""Step between hues, as a share of the color circle: the golden ratio avoids similar hues."""

_SHADES = ((0.85, 0.95), (0.95, 0.65), (0.5, 0.9))
"""Saturation and value: neighbors in hue differ in these."""


@dataclass(frozen=True)
class CocoAnnotations:
    """The objects of a COCO file, by image.

    Attributes:
        features: annotations by the file name of their image, in the order of the file; an image
            without any is there too.
        path_classes: the categories, with distinct colors.
        repaired: how many outlines had to be made valid.
        damaged: rows that could not be used, by name and reason; none is dropped in silence.
        areas: area that the file states, px², by the id of the feature.
        is_painted: whether inner outlines are known to cover outer ones, as SlideRunner shows them.
    """

    features: Mapping[str, tuple[Feature, ...]]
    path_classes: tuple[PathClass, ...]
    repaired: int = 0
    damaged: tuple[Skipped, ...] = ()
    areas: Mapping[str, float] = field(default_factory=dict)
    is_painted: bool = False


def read_coco_annotations(path: Path) -> CocoAnnotations:
    """Read a COCO file with polygons, or a database of SlideRunner.

    Raises:
        PromptError: it cannot be read, or is neither.
    """
    if is_slide_runner(path):
        return replace(parse_coco(read_slide_runner(path), source=str(path)), is_painted=True)
    return parse_coco(read_json(path, fix=_FIX), source=str(path))


def is_coco(document: object) -> bool:
    """Whether parsed JSON has the three lists of COCO."""
    return isinstance(document, dict) and all(
        is_list(document.get(name)) for name in ("images", "annotations", "categories")
    )


def parse_coco(document: object, *, source: str = "The file") -> CocoAnnotations:
    """Read COCO polygons from parsed JSON.

    Raises:
        PromptError: it is not COCO.
    """
    lists = _check_coco(document, source)
    tables = _Tables(lists["images"], lists["categories"])
    reader = _Reader(tables)
    features: defaultdict[str, list[Feature]] = defaultdict(list)
    for image, feature in reader.read(enumerate(lists["annotations"], start=1)):
        features[image].append(feature)
    return CocoAnnotations(
        {name: tuple(features[name]) for name in tables.names.values()},
        tuple(tables.path_classes.values()),
        reader.repaired,
        (*tables.damaged, *reader.damaged),
        reader.areas,
    )


class CocoDocument:
    """COCO annotations by image, converted whenever they are asked for: a million fit into memory.

    Attributes:
        path_classes: the categories, with distinct colors.
        damaged: rows that belong to no image, by name and reason.
    """

    def __init__(self, document: object, *, source: str) -> None:
        """Look through all rows for their images.

        Args:
            document: parsed JSON, as :func:`.read_json` returns it.

        Raises:
            PromptError: it is not COCO.
        """
        lists = _check_coco(document, source)
        self._rows: Sequence[object] = lists["annotations"]
        self._tables = _Tables(lists["images"], lists["categories"])
        self.path_classes = tuple(self._tables.path_classes.values())
        self._places: dict[str, array[int]] = {}
        lost = _Reader(self._tables)
        for place, row in enumerate(self._rows):
            image = self._tables.find_image(row)
            if image is None:
                list(lost.read([(place + 1, row)]))  # which says why
            else:
                self._places.setdefault(image, array("Q")).append(place)
        self.damaged = (*self._tables.damaged, *lost.damaged)

    @property
    def images(self) -> tuple[str, ...]:
        """File names of the images that have annotations, in the order of the list of images."""
        names = dict.fromkeys(self._tables.names.values())
        return tuple(name for name in names if name in self._places)

    def open(self, image: str) -> CocoStream:
        """Open the annotations of one of :attr:`images`."""
        places = self._places[image]
        return CocoStream(self._tables, ((place + 1, self._rows[place]) for place in places))


class CocoStream:
    """The annotations of one image, one by one; may be read once.

    Attributes:
        skipped: annotations that could not be used so far, by name and reason.
    """

    def __init__(self, tables: _Tables, rows: Iterable[tuple[int, object]]) -> None:
        """Use :meth:`CocoDocument.open` instead."""
        self._reader, self._numbered = _Reader(tables), rows
        self.skipped = self._reader.damaged

    @property
    def repaired(self) -> int:
        """How many outlines had to be made valid so far."""
        return self._reader.repaired

    def __iter__(self) -> Iterator[Feature]:
        return (feature for _, feature in self._reader.read(self._numbered))


def _check_coco(document: object, source: str) -> dict[str, Any]:
    """Return the document if it is COCO; else raise an error.

    Raises:
        PromptError: it is not.
    """
    if not isinstance(document, dict) or not is_coco(document):
        raise PromptError(
            f"{source} is not MS COCO: it needs the lists images, annotations and categories. "
            "Name CATCH.json, or a folder of GeoJSON files."
        )
    return document


def make_distinct_colors(count: int) -> list[tuple[int, int, int]]:
    """Choose distinct colors, RGB, 0 to 255; always the same ones for the same number."""
    colors = []
    for number in range(count):
        saturation, value = _SHADES[number % len(_SHADES)]
        rgb = colorsys.hsv_to_rgb(number * _GOLDEN_TURN % 1.0, saturation, value)
        colors.append((round(rgb[0] * 255), round(rgb[1] * 255), round(rgb[2] * 255)))
    return colors


T = TypeVar("T")

_LACKING = {
    "image": "it has no id or no file_name",
    "category": "it has no id, or no name for a class",
}


class _Tables:
    """The images and categories of a COCO file.

    Attributes:
        names: file names by the id of the image.
        path_classes: classes by the id of the category.
        damaged: rows that could not be used, by name and reason.
    """

    def __init__(self, images: Sequence[object], categories: Sequence[object]) -> None:
        self.damaged: list[Skipped] = []
        self.names = self._by_id("image", images, map(_read_file_name, images))
        colors = make_distinct_colors(len(categories))
        self.path_classes = self._by_id(
            "category", categories, map(_read_class, categories, colors)
        )

    def find_image(self, row: object) -> str | None:
        """Find the file name of the image that an annotation belongs to."""
        return self.names.get(_key(row.get("image_id"))) if isinstance(row, dict) else None

    def _by_id(self, what: str, rows: Sequence[object], values: Iterable[T | None]) -> dict[str, T]:
        """Map ids of rows to what they hold; note rows that lack either, and repeated ids."""
        found: dict[str, T] = {}
        for number, (row, value) in enumerate(zip(rows, values, strict=True), start=1):
            identity = _read_id(row)
            if value is None or identity is None:
                self._note(what, identity, number, _LACKING[what])
            elif identity in found:
                self._note(what, identity, number, f"another {what} has its id")
            else:
                found[identity] = value
        return found

    def _note(self, what: str, identity: str | None, number: int, reason: str) -> None:
        self.damaged.append(Skipped(f"{what} {identity or f'in row {number}'}", reason))


class _Reader:
    """Converts rows of annotations to features, and notes what is wrong by the name of its row."""

    def __init__(self, tables: _Tables) -> None:
        self._tables = tables
        self.damaged: list[Skipped] = []
        self.repaired = 0
        self.areas: dict[str, float] = {}
        self._ids: set[str] = set()

    def read(self, numbered: Iterable[tuple[int, object]]) -> Iterator[tuple[str, Feature]]:
        """Yield the file name of the image and the feature of each row that can be used.

        Args:
            numbered: rows with their numbers in the file, counted from 1.
        """
        for number, row in numbered:
            try:
                yield self._read(row, number)
            except UnusableError as exc:
                name = f"annotation {_read_id(row) or f'in row {number}'}"
                self.damaged.append(Skipped(name, str(exc)))

    def _read(self, row: object, number: int) -> tuple[str, Feature]:
        """Convert one annotation: returns the file name of its image, and the feature.

        Raises:
            UnusableError: something is missing or wrong.
        """
        if not isinstance(row, dict):
            raise UnusableError("it is no object")
        image = self._tables.find_image(row)
        if image is None:
            raise UnusableError("its image is not in the list of images")
        path_class = self._tables.path_classes.get(_key(row.get("category_id")))
        if path_class is None:
            raise UnusableError("its category is not in the list of categories")
        outline, is_repaired = clean_area(list(_polygons(row.get("segmentation"))))
        self.repaired += is_repaired
        feature: Feature = {
            "type": "Feature",
            "id": self._derive_distinct_id(image, _read_id(row) or f"row {number}"),
            "geometry": geometry_json(outline, Plane()),
            "properties": {
                "objectType": "annotation",
                "classification": make_classification(path_class),
            },
        }
        area = row.get("area")
        if isinstance(area, (int, float)) and math.isfinite(area):
            self.areas[feature["id"]] = float(area)
        return image, feature

    def _derive_distinct_id(self, image: str, name: str) -> str:
        """Derive a UUID that stays the same in every run, even after the outline was corrected."""
        distinct, again = derive_id("coco", image, name), 0
        while distinct in self._ids:
            again += 1
            distinct = derive_id("coco", image, name, "again", again)
        self._ids.add(distinct)
        return distinct


def _read_file_name(row: object) -> str | None:
    return clean_text(row.get("file_name")) if isinstance(row, dict) else None


def _read_class(row: object, color: tuple[int, int, int]) -> PathClass | None:
    found = read_path_class(row.get("name")) if isinstance(row, dict) else None
    return found and PathClass(found.name, color)


def _read_id(row: object) -> str | None:
    value = row.get("id") if isinstance(row, dict) else None
    return _key(value) or None


def _key(value: object) -> str:
    """Make the key of an id, which is a number or, in files of some tools, a string."""
    return str(value) if type(value) in (int, str) else ""


def _polygons(segmentation: object) -> Iterator[list[list[list[object]]]]:
    """Read the coordinates of an annotation as those of a MultiPolygon.

    Raises:
        UnusableError: no list, or one of an odd number of coordinates.
    """
    if isinstance(segmentation, dict):
        raise UnusableError("its outline is a run-length mask, no polygon")
    if not isinstance(segmentation, list) or not segmentation:
        raise UnusableError("it has no polygon")
    are_parts = all(isinstance(part, list) for part in segmentation)
    parts = segmentation if are_parts else [segmentation]
    sound = [part for part in parts if len(part) % 2 == 0 and len(part) >= 6]
    if not sound:
        is_odd = any(len(part) % 2 for part in parts)
        reason = "an odd number of coordinates" if is_odd else "fewer than three points"
        raise UnusableError(f"its polygon has {reason}")
    for part in sound:
        yield [[[part[i], part[i + 1]] for i in range(0, len(part), 2)]]
