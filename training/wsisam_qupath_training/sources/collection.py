"""Several annotated folders, described with their splits in one TOML file.

::

    [[dataset]]
    folder = "glas"                 # beside this file, or absolute
    format = "masks"                # masks or coco (others are read from their own folders)
    mpp = 0.62
    class = "gland"
    groups = "fields.json"          # a list of objects with "name", and the group under group_key
    group_key = "patient"
    test = ["4", "7", "13"]
    val_share = 0.1
    weight = 2.0

    [[dataset]]
    folder = "camelyon"             # filled by torch-em where it is not there
    torch_em = "camelyon16"
    slides = ["tumor_001"]          # of sets of whole slides
    val = ["tumor_001"]
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator
from pydantic import Field as Limited
from shapely.geometry import MultiPolygon, Polygon

from wsisam_qupath.errors import PromptError
from wsisam_qupath.files import read_json
from wsisam_qupath.files.names import compose
from wsisam_qupath.slide.names import find_existing

from ..dataset import AnnotatedImage, Dataset
from ..splits import SplitRule, divide
from ..toml_files import read_toml
from .coco import read_coco
from .groups import GroupOf, group_by_pattern, group_by_table
from .masks import read_cover, read_masks
from .open_data import read_open_set
from .open_download import fetch_open_set
from .open_sets import OPEN_SETS, OpenSet


class DatasetEntry(BaseModel):
    """One folder of a collection.

    Attributes:
        folder: folder of the dataset, relative to the collection's file, or absolute.
        format: ``masks`` (see :func:`.read_masks`) or ``coco`` (see :func:`.read_coco`).
        file: name of the COCO file in the folder.
        truth: ending of the names of the masks.
        cover: ending of the names of the masks that say where the annotation is complete.
        mpp: µm/px of the images; None takes what they state.
        mpp_key: instead of ``mpp``, the key of each image's µm/px in the table ``groups``.
        class_name: class of the objects of masks (``class`` in the file).
        groups, group_key: a JSON list with each image's name, and the key of its patient or slide
            there.
        group_pattern: instead of a table, a regular expression for names; its first group is the
            patient.
        one_group: whether nothing is known of the patients, so that the set is never split.
        val, test, val_share, test_share: see :class:`.SplitRule`.
        weight: how often its images are drawn in training, relative to those of others.
        least_points: the fewest points, without a box, by which training asks for its objects. One
            click into a lumen does not say whether the gland around it is meant: more do.
        torch_em: an open set, by the name of torch-em's loader, which fills the folder where it is
            not there; its classes, patients and µm/px are known, see :mod:`.open_sets`.
        slides: of an open set of slides, those wanted.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    folder: Path
    format: Literal["masks", "coco"] = "masks"
    file: str = "annotations.json"
    truth: str = "_instances.png"
    cover: str | None = None
    mpp: float | None = Limited(default=None, gt=0, allow_inf_nan=False)
    mpp_key: str | None = None
    class_name: str = Limited(default="object", alias="class")
    groups: str | None = None
    group_key: str = "group"
    group_pattern: str | None = None
    one_group: bool = False
    val: tuple[str, ...] = ()
    test: tuple[str, ...] = ()
    val_share: float = Limited(default=0.0, ge=0, le=1)
    test_share: float = Limited(default=0.0, ge=0, le=1)
    weight: float = Limited(default=1.0, gt=0, allow_inf_nan=False)
    least_points: int = Limited(default=1, ge=1, le=10)
    torch_em: str | None = None
    slides: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _check_mpp_has_one_source(self) -> DatasetEntry:
        if self.mpp_key is not None and (self.groups is None or self.mpp is not None):
            raise ValueError("mpp_key names a key of the table groups, and stands instead of mpp")
        return self

    @model_validator(mode="after")
    def _check_open_set(self) -> DatasetEntry:
        if self.torch_em is None:
            if self.slides:
                raise ValueError("slides says nothing without torch_em")
            return self
        known = OPEN_SETS.get(self.torch_em)
        if known is None:
            raise ValueError(f"{self.torch_em} is none of {', '.join(OPEN_SETS)}")
        if more := sorted(self.model_fields_set - _OF_OPEN_SETS):
            raise ValueError(f"{more[0]} says nothing of an open set")
        if known.has_slides != bool(self.slides):
            raise ValueError(
                "name the slides that are wanted, as slides"
                if known.has_slides
                else "slides says nothing of a set that comes as a whole"
            )
        if known.mpp is None and self.mpp is None and not known.has_slides:
            raise ValueError(
                f"state mpp: the µm/px of {self.torch_em} is not known here (see {known.source})"
            )
        return self


_OF_OPEN_SETS = frozenset(
    {
        *("folder", "torch_em", "slides", "mpp", "group_pattern", "one_group"),
        *("val", "test", "val_share", "test_share", "weight", "least_points"),
    }
)
"""Fields that the entry of an open set may have."""


class _File(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    dataset: tuple[DatasetEntry, ...]


@dataclass(frozen=True)
class Collection:
    """Several datasets, and the weight of each in training, by its name."""

    dataset: Dataset
    weights: dict[str, float]


def read_collection(file: Path, *, without: tuple[str, ...] = ()) -> Collection:
    """Read all folders of a collection.

    Args:
        without: names of folders that are left out.

    Raises:
        PromptError: the file cannot be read, or a dataset of it.
    """
    left_out = {*map(compose, without)}
    entries = [entry for entry in _entries(file) if compose(entry.folder.name) not in left_out]
    twice = [name for name, count in Counter(e.folder.name for e in entries).items() if count > 1]
    if twice:
        raise PromptError(
            f"{file} has two folders of the name {twice[0]}, which tells them apart. Rename one."
        )
    datasets = [_read(file.parent, entry) for entry in entries]
    return Collection(
        Dataset(
            tuple(image for dataset in datasets for image in dataset.images),
            tuple(case for dataset in datasets for case in dataset.damaged),
            sum(dataset.repaired for dataset in datasets),
            tuple(note for dataset in datasets for note in dataset.notes),
        ),
        {compose(entry.folder.name): entry.weight for entry in entries},
    )


def _entries(file: Path) -> tuple[DatasetEntry, ...]:
    document = read_toml(file)
    try:
        return _File.model_validate(document).dataset
    except ValidationError as exc:
        first = exc.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise PromptError(
            f"{file} is no collection ({where}: {first['msg']}). Correct it."
        ) from exc


def _read(root: Path, entry: DatasetEntry) -> Dataset:
    folder, name = root / entry.folder, entry.folder.name
    rule = SplitRule(entry.val, entry.test, entry.val_share, entry.test_share)
    if entry.torch_em is not None:
        dataset = _read_open_set(folder, OPEN_SETS[entry.torch_em], entry)
        return _ask_by_points(replace(dataset, images=divide(dataset.images, rule)), entry)
    if not folder.is_dir():
        raise PromptError(f"There is no folder {folder}. Correct the collection.")
    group_of = _groups(folder, entry)
    if entry.format == "coco":
        dataset = read_coco(
            folder / entry.file, slides=folder, dataset=name, mpp=entry.mpp, group_of=group_of
        )
    else:
        dataset = read_masks(
            folder,
            dataset=name,
            mpp=entry.mpp,
            ending=entry.truth,
            class_name=entry.class_name,
            group_of=group_of,
        )
    images = divide(dataset.images, rule)
    if entry.groups is not None and entry.mpp_key is not None:
        table = folder / entry.groups
        stated = _table(table, entry.mpp_key)
        images = tuple(_set_mpp(image, stated, table) for image in images)
    if entry.cover is not None:
        images = tuple(
            replace(image, l0_complete=_cover(folder, image.name, entry.cover)) for image in images
        )
    return _ask_by_points(replace(dataset, images=images), entry)


def _ask_by_points(dataset: Dataset, entry: DatasetEntry) -> Dataset:
    """Set how many points training asks with at least."""
    images = (replace(image, least_points=entry.least_points) for image in dataset.images)
    return replace(dataset, images=tuple(images))


def _read_open_set(folder: Path, known: OpenSet, entry: DatasetEntry) -> Dataset:
    assert entry.torch_em is not None
    fetch_open_set(folder, entry.torch_em, known, slides=entry.slides)
    has_groups = entry.one_group or entry.group_pattern is not None
    return read_open_set(
        folder,
        known,
        dataset=entry.folder.name,
        mpp=entry.mpp,
        group_of=_groups(folder, entry) if has_groups else None,
        slides=entry.slides,
    )


def _set_mpp(image: AnnotatedImage, stated: dict[str, str], file: Path) -> AnnotatedImage:
    """Set the µm/px that a table has for an image."""
    try:
        mpp = float(stated.get(image.name, ""))
    except ValueError:
        mpp = math.nan
    if not 0 < mpp < math.inf:
        raise PromptError(f"{file} states no µm/px of {image.name}. Correct the collection.")
    return replace(image, slide=replace(image.slide, mpp=mpp))


def _cover(folder: Path, name: str, ending: str) -> Polygon | MultiPolygon | None:
    path = find_existing(folder / f"{name}{ending}")
    return read_cover(path) if path is not None and path.is_file() else None


def _groups(folder: Path, entry: DatasetEntry) -> GroupOf:
    if entry.one_group:
        return lambda _: entry.folder.name
    if entry.groups is not None:
        return group_by_table(_table(folder / entry.groups, entry.group_key))
    if entry.group_pattern is not None:
        return group_by_pattern(entry.group_pattern)
    return str


def _table(file: Path, key: str) -> dict[str, str]:
    rows: Any = read_json(file, fix="Correct the collection's groups.")
    try:
        return {compose(str(row["name"])): str(row[key]) for row in rows}
    except (TypeError, KeyError) as exc:
        raise PromptError(
            f'{file} is no list of objects with "name" and "{key}". Correct the collection.'
        ) from exc
