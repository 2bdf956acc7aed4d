"""Read MS COCO polygons as QuPath objects: ``CATCH.json``, ``CATCH.sqlite``, any other COCO file.

CATCH (350 canine slides, 13 classes) gives each outline as one flat list x0, y0, x1, y1, … in
level-0 pixels; COCO itself gives a list of such lists, the parts of one object.
"""

from __future__ import annotations

import colorsys
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

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
        areas: px, those that the file states, by the id of the feature.
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
    if not isinstance(document, dict) or not is_coco(document):
        raise PromptError(
            f"{source} is not MS COCO: it needs the lists images, annotations and categories. "
            "Name CATCH.json, or a folder of GeoJSON files."
        )
    reader = _Reader(document["images"], document["categories"])
    reader.read(document["annotations"])
    return CocoAnnotations(
        {name: tuple(reader.features[name]) for name in reader.names.values()},
        tuple(reader.path_classes.values()),
        reader.repaired,
        tuple(reader.damaged),
        reader.areas,
    )


def make_distinct_colors(count: int) -> list[tuple[int, int, int]]:
    """Choose distinct colors, RGB, 0 to 255; always the same ones for the same number."""
    colors = []
    for number in range(count):
        saturation, value = _SHADES[number % len(_SHADES)]
        rgb = colorsys.hsv_to_rgb(number * _GOLDEN_TURN % 1.0, saturation, value)
        colors.append((round(rgb[0] * 255), round(rgb[1] * 255), round(rgb[2] * 255)))
    return colors


class _Reader:
    """Converts COCO rows to features, and notes what is wrong by the name of its row."""

    def __init__(self, images: Sequence[object], categories: Sequence[object]) -> None:
        self.damaged: list[Skipped] = []
        self.repaired = 0
        self.features: defaultdict[str, list[Feature]] = defaultdict(list)
        self.names = self._names(images)
        self.path_classes = self._path_classes(categories)
        self.areas: dict[str, float] = {}
        self._ids: set[str] = set()

    def read(self, annotations: Sequence[object]) -> None:
        for number, row in enumerate(annotations, start=1):
            label = f"annotation {_read_id(row) or f'in row {number}'}"
            try:
                image, feature = self._read(row, number)
            except UnusableError as exc:
                self.damaged.append(Skipped(label, str(exc)))
                continue
            self.features[image].append(feature)

    def _read(self, row: object, number: int) -> tuple[str, Feature]:
        """Convert one annotation: returns the file name of its image, and the feature.

        Raises:
            UnusableError: something is missing or wrong.
        """
        if not isinstance(row, dict):
            raise UnusableError("it is no object")
        image = self.names.get(_key(row.get("image_id")))
        if image is None:
            raise UnusableError("its image is not in the list of images")
        path_class = self.path_classes.get(_key(row.get("category_id")))
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

    def _names(self, images: Sequence[object]) -> dict[str, str]:
        """File names by image id."""
        names: dict[str, str] = {}
        for number, row in enumerate(images, start=1):
            name = clean_text(row.get("file_name")) if isinstance(row, dict) else None
            identity = _read_id(row)
            if name is None or identity is None:
                self._note("image", identity, number, "it has no id or no file_name")
            elif identity in names:
                self._note("image", identity, number, "another image has its id")
            else:
                names[identity] = name
        return names

    def _path_classes(self, categories: Sequence[object]) -> dict[str, PathClass]:
        """Classes by category id."""
        classes: dict[str, PathClass] = {}
        for number, (row, color) in enumerate(
            zip(categories, make_distinct_colors(len(categories)), strict=True), start=1
        ):
            found = read_path_class(row.get("name")) if isinstance(row, dict) else None
            identity = _read_id(row)
            if found is None or identity is None:
                self._note("category", identity, number, "it has no id, or no name for a class")
            elif identity in classes:
                self._note("category", identity, number, "another category has its id")
            else:
                classes[identity] = PathClass(found.name, color)
        return classes

    def _note(self, what: str, identity: str | None, number: int, reason: str) -> None:
        self.damaged.append(Skipped(f"{what} {identity or f'in row {number}'}", reason))

    def _derive_distinct_id(self, image: str, name: str) -> str:
        """Derive a UUID that stays the same in every run, even after the outline was corrected."""
        distinct, again = derive_id("coco", image, name), 0
        while distinct in self._ids:
            again += 1
            distinct = derive_id("coco", image, name, "again", again)
        self._ids.add(distinct)
        return distinct


def _read_id(row: object) -> str | None:
    value = row.get("id") if isinstance(row, dict) else None
    return _key(value) or None


def _key(value: object) -> str:
    """Ids are numbers, and strings in files of some tools."""
    return str(value) if type(value) in (int, str) else ""


def _polygons(segmentation: object) -> Iterator[list[list[list[object]]]]:
    """Coordinates of a MultiPolygon.

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
