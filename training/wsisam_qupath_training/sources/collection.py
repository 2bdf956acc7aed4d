"""Several annotated folders as one TOML file: what each is, and how it is split.

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
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from shapely.geometry import MultiPolygon, Polygon

from wsisam_qupath.errors import PromptError
from wsisam_qupath.json_files import read_json

from ..fields import Dataset
from ..fields import Field as AnnotatedField
from ..splits import SplitRule, divided
from ..toml_files import read_toml
from .coco import read_coco
from .groups import GroupOf, by_pattern, by_table
from .masks import cover_of, read_masks


class DatasetEntry(BaseModel):
    """One folder of a collection.

    Attributes:
        folder: beside the collection's file, or absolute.
        format: ``masks`` (see :func:`.read_masks`) or ``coco`` (see :func:`.read_coco`).
        file: the COCO file, in the folder.
        truth: how the names of the masks end.
        cover: how the names of masks end that say where the annotation is complete.
        mpp: µm/px of the images; None takes what they state.
        mpp_key: instead, where the table ``groups`` has each image's µm/px.
        class_name: of the objects of masks (``class`` in the file).
        groups, group_key: a JSON list with each image's name and its patient or slide.
        group_pattern: instead, a regular expression on the name, whose first group is the patient.
        one_group: nothing is known of the patients, so that the set is never split.
        val, test, val_share, test_share: see :class:`.SplitRule`.
        weight: how often its fields are drawn in training, beside those of others.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    folder: Path
    format: Literal["masks", "coco"] = "masks"
    file: str = "annotations.json"
    truth: str = "_instances.png"
    cover: str | None = None
    mpp: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    mpp_key: str | None = None
    class_name: str = Field(default="object", alias="class")
    groups: str | None = None
    group_key: str = "group"
    group_pattern: str | None = None
    one_group: bool = False
    val: tuple[str, ...] = ()
    test: tuple[str, ...] = ()
    val_share: float = Field(default=0.0, ge=0, le=1)
    test_share: float = Field(default=0.0, ge=0, le=1)
    weight: float = Field(default=1.0, gt=0, allow_inf_nan=False)


class _File(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    dataset: tuple[DatasetEntry, ...]


@dataclass(frozen=True)
class Collection:
    """Several datasets, and how much each weighs in training, by its name."""

    dataset: Dataset
    weights: dict[str, float]


def read_collection(file: Path, *, without: tuple[str, ...] = ()) -> Collection:
    """Read all folders of a collection.

    Args:
        without: folders that are left out wholly, by name.

    Raises:
        PromptError: the file cannot be read, or a dataset of it.
    """
    entries = [entry for entry in _entries(file) if entry.folder.name not in without]
    twice = [name for name, count in Counter(e.folder.name for e in entries).items() if count > 1]
    if twice:
        raise PromptError(
            f"{file} has two folders of the name {twice[0]}, which tells them apart. Rename one."
        )
    datasets = [_read(file.parent, entry) for entry in entries]
    return Collection(
        Dataset(
            tuple(field for dataset in datasets for field in dataset.fields),
            tuple(case for dataset in datasets for case in dataset.damaged),
            sum(dataset.repaired for dataset in datasets),
        ),
        {entry.folder.name: entry.weight for entry in entries},
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
    if not folder.is_dir():
        raise PromptError(f"There is no folder {folder}. Correct the collection.")
    rule = SplitRule(entry.val, entry.test, entry.val_share, entry.test_share)
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
    fields = divided(dataset.fields, rule)
    if entry.groups is not None and entry.mpp_key is not None:
        stated = _table(folder / entry.groups, entry.mpp_key)
        fields = tuple(_with_mpp(field, stated, folder / entry.groups) for field in fields)
    if entry.cover is not None:
        fields = tuple(
            replace(field, l0_complete=_cover(folder, field.name, entry.cover)) for field in fields
        )
    return replace(dataset, fields=fields)


def _with_mpp(field: AnnotatedField, stated: dict[str, str], file: Path) -> AnnotatedField:
    """The field at the µm/px of a table."""
    try:
        mpp = float(stated[field.name])
    except (KeyError, ValueError) as exc:
        raise PromptError(
            f"{file} states no µm/px of {field.name}. Correct the collection."
        ) from exc
    return replace(field, slide=replace(field.slide, mpp=mpp))


def _cover(folder: Path, name: str, ending: str) -> Polygon | MultiPolygon | None:
    path = folder / f"{name}{ending}"
    return cover_of(path) if path.is_file() else None


def _groups(folder: Path, entry: DatasetEntry) -> GroupOf:
    if entry.one_group:
        return lambda _: entry.folder.name
    if entry.groups is not None:
        return by_table(_table(folder / entry.groups, entry.group_key))
    if entry.group_pattern is not None:
        return by_pattern(entry.group_pattern)
    return str


def _table(file: Path, key: str) -> dict[str, str]:
    rows: Any = read_json(file, cure="Correct the collection's groups.")
    try:
        return {str(row["name"]): str(row[key]) for row in rows}
    except (TypeError, KeyError) as exc:
        raise PromptError(
            f'{file} is no list of objects with "name" and "{key}". Correct the collection.'
        ) from exc
