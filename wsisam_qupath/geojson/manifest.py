"""Read and write ``manifest.json`` of an exported folder, which the Groovy script writes too."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from ..errors import PromptError
from ..files import read_json, write_atomically
from ..files.formats import EXPORT_MANIFEST
from ..files.names import name_key

MANIFEST_NAME = "manifest.json"

REGION_CLASS = "Region*"
"""Class of regions that are completely annotated: everything in them that is no object is
background. Outside of them it is unknown what is background; in an image without any region, each
outline tells only what is not that object."""

UNCLASSIFIED = "Unclassified"
"""QuPath's name for objects without a class, which no class can have."""

_FIX = "Export the project again."

_NAME_LENGTH = 100
_UNSAFE = re.compile(r'[<>:"/\\|?*\x00-\x1f\x7f]')
_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)
"""File names that Windows reserves for devices, with any suffix."""


@dataclass(frozen=True)
class ExportedImage:
    """One image of an export.

    Attributes:
        id: id of the image's entry in the project.
        name: name that the project shows; several images may have the same.
        file: name of its GeoJSON file, beside the manifest.
        uri: URI of the slide.
        width, height: size of level 0, px; None if neither project nor slide states it.
        mpp_x, mpp_y: µm per level-0 px along each axis; None if neither project nor slide states
            it.
        classes: number of objects by class, :data:`UNCLASSIFIED` for those without; regions not
            counted.
        objects: number of objects of all classes.
        regions: number of areas of class :data:`REGION_CLASS`.
        left_out: number of annotations that are no ground truth, by reason.
    """

    id: str
    name: str
    file: str
    uri: str
    width: int | None
    height: int | None
    mpp_x: float | None
    mpp_y: float | None
    classes: Mapping[str, int]
    objects: int
    regions: int
    left_out: Mapping[str, int]


@dataclass(frozen=True)
class Manifest:
    """All images of an export, in the order of the project."""

    images: tuple[ExportedImage, ...]

    @property
    def classes(self) -> Mapping[str, int]:
        """The number of objects of each class over all images, the most frequent first."""
        return _sum_counts(image.classes for image in self.images)

    @property
    def left_out(self) -> Mapping[str, int]:
        """The number of annotations left out over all images, by reason."""
        return _sum_counts(image.left_out for image in self.images)


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write a manifest into a folder, completely or not at all.

    Raises:
        OutputError: it cannot be written there.
    """
    document = {
        **EXPORT_MANIFEST.stated,
        "images": [asdict(image) for image in manifest.images],
    }
    text = json.dumps(document, indent=2, allow_nan=False)
    write_atomically(folder / MANIFEST_NAME, f"{text}\n".encode("ascii"))


def read_manifest(folder: Path) -> Manifest:
    """Read the manifest of an exported folder.

    Raises:
        PromptError: there is none, or it is damaged.
        FormatError: a newer version of this program wrote it.
    """
    from pydantic import TypeAdapter, ValidationError  # slow, and export needs none

    path = folder / MANIFEST_NAME
    document = read_json(path, fix=_FIX)
    stated = document.get(EXPORT_MANIFEST.key) if isinstance(document, dict) else None
    try:
        EXPORT_MANIFEST.check_number(path, stated)
    except ValueError as exc:
        raise PromptError(f"{path} is no manifest of an export. {_FIX}") from exc
    try:
        manifest = TypeAdapter(Manifest).validate_json(json.dumps(document), strict=True)
    except ValidationError as exc:
        first = exc.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise PromptError(f"{path} is damaged ({where}: {first['msg']}). {_FIX}") from exc
    outside = [image.file for image in manifest.images if Path(image.file).name != image.file]
    if outside:
        raise PromptError(f"{path} names {outside[0]}, which is not in its folder. {_FIX}")
    return manifest


def file_names(images: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Choose GeoJSON file names by entry id: distinct on every system, see :func:`.name_key`.

    The name of the image, and its id behind it where another image would have the same file.

    Args:
        images: (id, name) of all images of the project, in its order.
    """
    stems = {identity: _stem(name) for identity, name in images}
    counts = Counter(map(name_key, stems.values()))
    taken = {name_key(stem) for stem in stems.values() if counts[name_key(stem)] == 1}
    names = {}
    for identity, stem in stems.items():
        distinct = stem
        if counts[name_key(stem)] > 1:
            distinct = f"{stem} ({identity})"
            while name_key(distinct) in taken:
                distinct += "_"
            taken.add(name_key(distinct))
        names[identity] = f"{distinct}.geojson"
    return names


def _sum_counts(counts: Iterable[Mapping[str, int]]) -> Mapping[str, int]:
    total: Counter[str] = Counter()
    for one in counts:
        total.update(one)
    return dict(total.most_common())


def _stem(name: str) -> str:
    stem = _UNSAFE.sub("_", name)[:_NAME_LENGTH].strip(" .") or "image"
    return f"_{stem}" if _RESERVED.fullmatch(stem) else stem
