"""Read annotated images in any known format, check them, and divide them into parts."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, TypeAlias, get_args

from wsisam_qupath.errors import OptionError, PromptError
from wsisam_qupath.files.names import compose
from wsisam_qupath.geojson.manifest import MANIFEST_NAME
from wsisam_qupath.slide import calibration
from wsisam_qupath.slide.names import strip_format

from ..dataset import Dataset
from ..splits import SplitRule, assign_parts, divide_fully, group_by_part, read_groups
from .camelyon import read_camelyon
from .checking import check_dataset
from .coco import read_coco
from .collection import Collection, read_collection
from .export import read_export
from .geojson import read_geojson
from .groups import GroupOf, group_by_known_names, group_by_pattern, group_by_table
from .masks import read_masks
from .paip import has_masks, read_paip

Format: TypeAlias = Literal[
    "export", "project", "collection", "coco", "masks", "geojson", "camelyon", "paip"
]

COCO_NAMES = ("CATCH.json", "annotations.json", "CATCH.sqlite")
"""Names of COCO files that are found in a folder."""

TRUTH = "_instances.png"
"""Default ending of the names of label masks."""

_UNDERSTOOD = (
    "a folder that wsisam-qupath export wrote, a QuPath project (.qpproj), a collection (.toml), "
    "a COCO file (.json), a database of SlideRunner (.sqlite), or a folder with label masks "
    "(*_instances.png, or another ending), GeoJSON (.geojson or .json) beside slides, XML of ASAP "
    "(CAMELYON) or ImageScope (MoNuSeg), or *_whole.tif and *_viable.tif (PAIP2019)"
)


@dataclass(frozen=True)
class DatasetOptions:
    """How to read a dataset; the names are those of the options.

    Attributes:
        slides: folder of the slides, if they are not beside the data or were moved.
        remap: (OLD, NEW) beginnings of the paths of slides that were moved.
        mpp: µm/px of images for which nothing states it.
        classes: classes of the objects to use; empty is all.
        split: table with the part of each slide, see :func:`.assign_parts`.
        format: format of the data; None recognizes it.
        truth: ending of the names of label masks.
        groups: table of two columns, the slide and its patient.
        group_pattern: instead of a table, a regular expression for the slide's name without its
            ending; its first group is the patient.
        val_share, test_share, seed: shares of both parts and random seed, where neither a table nor
            the data state the parts, see :func:`.divide_fully`.
    """

    slides: Path | None = None
    remap: tuple[tuple[str, str], ...] = ()
    mpp: float | None = None
    classes: tuple[str, ...] = ()
    split: Path | None = None
    format: Format | None = None
    truth: str | None = None
    groups: Path | None = None
    group_pattern: str | None = None
    val_share: float = 0.15
    test_share: float = 0.0
    seed: int = 0


def read_dataset(path: Path, *, options: DatasetOptions | None = None) -> Collection:
    """Read annotated images, check them, and divide them into parts.

    Groups are slides, or patients where the format, the names (CATCH, CAMELYON17) or the options
    tell them. Every image has a part. With a single group all of it is to train on.

    Raises:
        PromptError: the format is not known, nothing in it can be used, none of it is of the
            wanted classes, or a patient would be in two parts.
        OptionError: an option is out of range, or says nothing to the format.
        SlideError: there is no folder ``slides``.
        ProjectError, QuPathError: a QuPath project cannot be read.
    """
    options = options or DatasetOptions()
    found = options.format or recognize_format(path, truth=options.truth)
    _check_options(found, options)
    collection = _read(path, found, options)
    dataset = check_dataset(collection.dataset, mpp_if_unstated=options.mpp)
    dataset = _filter_classes(_require_objects(dataset, path), options.classes)
    dataset = _divide(dataset, options)
    group_by_part(dataset.images)
    return replace(collection, dataset=dataset)


def recognize_format(path: Path, *, truth: str | None = None) -> Format:
    """Recognize the format of a path by names alone.

    Args:
        truth: ending of the names of label masks.

    Raises:
        PromptError: it is not there, or nothing that is understood.
    """
    if not path.exists():
        raise PromptError(f"There is no {path}: check the name and the folder.")
    found = _format_of_folder(path, truth) if path.is_dir() else _format_of_file(path)
    if found is None:
        raise PromptError(f"{path} is nothing to learn from. Understood are {_UNDERSTOOD}.")
    return found


def _format_of_file(path: Path) -> Format | None:
    if path.name == MANIFEST_NAME:
        return "export"
    known: dict[str, Format] = {
        ".qpproj": "project",
        ".toml": "collection",
        ".json": "coco",
        ".sqlite": "coco",
    }
    return known.get(path.suffix.lower())


def _format_of_folder(folder: Path, truth: str | None) -> Format | None:
    """Choose the first format that fits: PAIP2019 has XML beside masks, an export GeoJSON."""
    patterns: dict[str, Format] = {
        MANIFEST_NAME: "export",
        "*.qpproj": "project",
        **dict.fromkeys(COCO_NAMES, "coco"),
        f"*{truth or TRUTH}": "masks",
    }
    found = next((known for name, known in patterns.items() if any(folder.glob(name))), None)
    if found is None and has_masks(folder):
        return "paip"
    others: dict[str, Format] = {
        "*.geojson": "geojson",
        "*.geojson.gz": "geojson",
        "*.xml": "camelyon",
        "*.json": "geojson",
    }
    last = next((known for name, known in others.items() if any(folder.glob(name))), None)
    return found or last


_NOT_FOR: dict[str, tuple[Format, ...]] = {
    "slides": ("collection", "masks"),
    "remap": ("collection", "coco", "masks", "geojson", "camelyon", "paip"),
    "truth": ("export", "project", "collection", "coco", "geojson", "camelyon", "paip"),
    "groups": ("collection",),
    "group_pattern": ("collection",),
}


def _check_options(found: Format, options: DatasetOptions) -> None:
    if found not in get_args(Format):
        raise OptionError("format", f"{found} is none of {', '.join(get_args(Format))}.")
    for name, formats in _NOT_FOR.items():
        if getattr(options, name) and found in formats:
            raise OptionError(name, f"has no meaning for data of the format {found}: leave it out.")
    if options.groups and options.group_pattern:
        raise OptionError("groups", "cannot be combined with a group pattern: give one of both.")
    if options.mpp is not None:
        calibration.override(options.mpp)
    if min(options.val_share, options.test_share) < 0 or options.val_share + options.test_share > 1:
        raise OptionError(
            "val_share", "the shares to validate and to test are from 0 to 1, together at most 1."
        )


def _read(path: Path, found: Format, options: DatasetOptions) -> Collection:
    if found == "collection":
        return read_collection(path)
    root = path if path.is_dir() else path.absolute().parent
    name = root.absolute().name
    if found == "project":
        dataset = _read_project(path, name, options)
    else:
        dataset = _READERS[found](path, root, name, options)
    return Collection(dataset, {name: 1.0})


def _read_project(path: Path, name: str, options: DatasetOptions) -> Dataset:
    """Read the annotations of a QuPath project, through an export to a temporary folder."""
    from wsisam_qupath.project.export.command import ExportRequest, run_export  # paquo

    with tempfile.TemporaryDirectory(prefix="wsisam-qupath-") as folder:
        out = Path(folder) / "export"
        exported = run_export(ExportRequest(path, out, options.remap, options.mpp, is_kept=False))
        dataset = read_export(
            out, dataset=name, group_of=_groups(options), slides=options.slides, remap=options.remap
        )
    return replace(dataset, damaged=(*exported.failed, *dataset.damaged))


def _read_export(_: Path, root: Path, name: str, options: DatasetOptions) -> Dataset:
    return read_export(
        root, dataset=name, group_of=_groups(options), slides=options.slides, remap=options.remap
    )


def _read_coco(path: Path, root: Path, name: str, options: DatasetOptions) -> Dataset:
    file = path
    if path.is_dir():
        file = next(
            (root / one for one in COCO_NAMES if (root / one).is_file()), root / COCO_NAMES[0]
        )
    return read_coco(
        file, slides=options.slides or root, dataset=name, mpp=None, group_of=_groups(options)
    )


def _read_masks(_: Path, root: Path, name: str, options: DatasetOptions) -> Dataset:
    return read_masks(
        root, dataset=name, mpp=None, ending=options.truth or TRUTH, group_of=_groups(options)
    )


def _read_geojson(_: Path, root: Path, name: str, options: DatasetOptions) -> Dataset:
    return read_geojson(root, dataset=name, group_of=_groups(options), slides=options.slides)


def _read_camelyon(_: Path, root: Path, name: str, options: DatasetOptions) -> Dataset:
    return read_camelyon(root, dataset=name, group_of=_groups(options), slides=options.slides)


def _read_paip(_: Path, root: Path, name: str, options: DatasetOptions) -> Dataset:
    return read_paip(
        root,
        dataset=name,
        group_of=_groups(options),
        slides=options.slides,
        mpp_if_unstated=options.mpp,
    )


_READERS: dict[str, Callable[[Path, Path, str, DatasetOptions], Dataset]] = {
    "export": _read_export,
    "coco": _read_coco,
    "masks": _read_masks,
    "geojson": _read_geojson,
    "camelyon": _read_camelyon,
    "paip": _read_paip,
}


def _groups(options: DatasetOptions) -> GroupOf:
    if options.groups is not None:
        return group_by_table(read_groups(options.groups))
    if options.group_pattern is not None:
        return group_by_pattern(options.group_pattern)
    return group_by_known_names


def _require_objects(dataset: Dataset, path: Path) -> Dataset:
    """Return the dataset, unless it has no objects.

    Raises:
        PromptError: no image, or none with an object.
    """
    if dataset.classes:
        return dataset
    lost = dataset.damaged
    first = f": {len(lost)} damaged, first {lost[0].id} ({lost[0].reason})" if lost else ""
    raise PromptError(
        f"{path} holds no objects that can be used{first}. Outline some objects, or correct "
        "what is named."
    )


def _filter_classes(dataset: Dataset, classes: tuple[str, ...]) -> Dataset:
    """Keep only objects of some classes.

    Raises:
        PromptError: one of them is not there.
    """
    if not classes:
        return dataset
    wanted = tuple(map(compose, classes))
    absent = [name for name in wanted if name not in dataset.classes]
    if absent:
        there = ", ".join(f"{name} ({count})" for name, count in dataset.classes.items())
        raise PromptError(
            f"There are no objects of class {', '.join(absent)}. There are {there}: name one of "
            "them."
        )
    images = (
        replace(image, truths=tuple(one for one in image.truths if one.class_name in wanted))
        for image in dataset.images
    )
    return replace(dataset, images=tuple(images))


def _divide(dataset: Dataset, options: DatasetOptions) -> Dataset:
    if options.split is not None:
        missing = [strip_format(case.id) for case in dataset.damaged]
        found = assign_parts(dataset.images, options.split, missing=missing)
        damaged = (*dataset.damaged, *found.damaged)
        return replace(dataset, images=found.images, damaged=damaged, has_own_split=True)
    rule = SplitRule(val_share=options.val_share, test_share=options.test_share, seed=options.seed)
    is_divided = any(image.part for image in dataset.images)
    images = divide_fully(dataset.images, rule)
    return replace(dataset, images=images, has_own_split=is_divided or not options.val_share)
