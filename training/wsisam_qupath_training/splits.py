"""Divide patients into parts: to train, to decide when to stop, and to measure."""

from __future__ import annotations

import csv
import hashlib
import io
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

from wsisam_qupath.errors import PromptError
from wsisam_qupath.files import write_atomically
from wsisam_qupath.files.formats import SPLIT_TABLE
from wsisam_qupath.files.names import compose
from wsisam_qupath.prompts import Skipped
from wsisam_qupath.slide.names import strip_format

from .dataset import PARTS, AnnotatedImage, Part

_FORMAT = re.compile(r"# format (\d+)\n")
"""First line of our own tables since version 0.2; those of 0.1 began with the heading."""

_HEADING = ("dataset", "field", "group", "part", "objects")

_Group: TypeAlias = tuple[str, str]
"""A dataset, and a patient or slide of it."""


@dataclass(frozen=True)
class SplitRule:
    """How the groups of one dataset are divided if no file says it.

    Attributes:
        val, test: names of groups, with composed letters, that go into a part regardless of the
            shares.
        val_share, test_share: shares of the other groups that go into each part, 0 to 1.
        seed: random seed that decides which groups go where.
    """

    val: tuple[str, ...] = ()
    test: tuple[str, ...] = ()
    val_share: float = 0.0
    test_share: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("val", "test"):
            object.__setattr__(self, name, tuple(map(compose, getattr(self, name))))


def divide(images: Sequence[AnnotatedImage], rule: SplitRule) -> tuple[AnnotatedImage, ...]:
    """Assign each image of one dataset to a part; images with a part keep it.

    A group goes where a hash of its name falls, so that more patients move none of the others.

    Raises:
        PromptError: the rule names a group that is not there.
    """
    groups = {image.group for image in images}
    if unknown := sorted({*rule.val, *rule.test} - groups):
        raise PromptError(
            f"The split names {', '.join(unknown)}, but there are only "
            f"{', '.join(sorted(groups))}. Correct its val and test groups."
        )
    return tuple(
        image if image.part else replace(image, part=_part(image, rule)) for image in images
    )


def group_by_part(images: Sequence[AnnotatedImage]) -> Mapping[Part, tuple[AnnotatedImage, ...]]:
    """Group the images by part.

    Raises:
        PromptError: a group is in two parts.
    """
    seen: dict[tuple[str, str], Part] = {}
    found: dict[Part, list[AnnotatedImage]] = {part: [] for part in PARTS}
    for image in images:
        part = image.part or "train"
        if seen.setdefault((image.dataset, image.group), part) != part:
            raise PromptError(
                f"{image.group} of {image.dataset} is in two parts of the split. A patient's "
                "images belong into one."
            )
        found[part].append(image)
    return {part: tuple(members) for part, members in found.items()}


def divide_fully(images: Sequence[AnnotatedImage], rule: SplitRule) -> tuple[AnnotatedImage, ...]:
    """Like :func:`divide`, but no part that is needed stays empty because there are few groups.

    There is something to train on; and where a share is to validate and there are two groups with
    objects, so does one. The groups with the nearest hashes move. With one group there is nothing
    to validate on.
    """
    given = {_key(image) for image in images if image.part}
    placed = divide(images, rule)
    parts = {_key(image): image.part or "train" for image in placed if image.truths}
    movable = sorted(
        (key for key in parts if key not in given),
        key=lambda key: _share_at(key[0], key[1], rule.seed),
    )
    moved = _move_groups(parts, movable, needs_val=rule.val_share > 0)
    return tuple(replace(image, part=moved.get(_key(image), image.part)) for image in placed)


def split_table(images: Sequence[AnnotatedImage]) -> str:
    """Write every image with its group and part, tab-separated, for a file beside a result."""
    text = io.StringIO()
    text.write(f"# format {SPLIT_TABLE.number}\n")
    table = csv.writer(text, delimiter="\t", lineterminator="\n")
    table.writerow(_HEADING)
    table.writerows(
        (f.dataset, f.name, f.group, f.part or "train", str(len(f.truths))) for f in images
    )
    return text.getvalue()


def write_split(path: Path, images: Sequence[AnnotatedImage]) -> None:
    """Write :func:`split_table` to a file, whole or not at all; see :func:`assign_parts`.

    Raises:
        OutputError: it cannot be written there.
    """
    write_atomically(path, split_table(images).encode("utf-8"))


@dataclass(frozen=True)
class Assigned:
    """Images with the parts that a table gives them.

    Attributes:
        images: the images that the table names.
        damaged: images that the table does not name, and names in it that no image has.
    """

    images: tuple[AnnotatedImage, ...]
    damaged: tuple[Skipped, ...]


def assign_parts(
    images: Sequence[AnnotatedImage], file: Path, *, missing: Collection[str] = ()
) -> Assigned:
    """Assign the images that a table names to the parts that it says.

    The table is that of :func:`write_split`, CATCH's ``Slide;Dataset;Scanner``, or any CSV of
    two columns: the slide, with or without its ending, and its part.

    Args:
        missing: names of images that are known to be missing: the table may name them.

    Raises:
        PromptError: it cannot be read, names a part that is none, gives one image two parts, or
            names none of the fields.
    """
    parts = _parts(file)
    if len({dataset for dataset, _ in parts}) == 1 and len({f.dataset for f in images}) == 1:
        # The folder may have another name by now.
        parts = {("", name): part for (_, name), part in parts.items()}
    names = [(image, _name_in(parts, image)) for image in images]
    found = tuple(replace(image, part=parts[name]) for image, name in names if name is not None)
    if not found:
        raise PromptError(
            f"{file} names none of the images, such as {images[0].name}. Check the split's table."
            if images
            else f"There are no images that {file} could divide. Check the data."
        )
    unnamed = [Skipped(f.name, "the split does not name it") for f, name in names if name is None]
    used = {name for _, name in names}
    absent = {strip_format(compose(name)) for name in missing}
    unknown = [
        Skipped(name, "the split names it, but there is no such image")
        for dataset, name in parts
        if (dataset, name) not in used and strip_format(name) not in absent
    ]
    return Assigned(found, (*unnamed, *unknown))


def read_split(file: Path) -> dict[str, Part]:
    """Read a table of parts by slide; see :func:`assign_parts`.

    Returns:
        Parts by the slide's name without its ending.

    Raises:
        PromptError: it cannot be read, names a part that is none, or gives one image two parts.
    """
    return {strip_format(name): part for (_, name), part in _parts(file).items()}


def read_groups(file: Path, what: str = "patients") -> dict[str, str]:
    """Read a table of two columns: the slide, and its patient or class.

    Args:
        what: what the second column stands for, for messages.

    Returns:
        The second column by the slide's name without its ending.

    Raises:
        PromptError: it cannot be read, or gives one slide two of them.
    """
    groups: dict[str, str] = {}
    for line, _, slide, group in _rows(file):
        if groups.setdefault(strip_format(slide), group) != group:
            raise PromptError(f"{file}, line {line}: {slide} has two {what}. Leave one of them.")
    return groups


def _parts(file: Path) -> dict[tuple[str, str], Part]:
    """Parts by dataset (empty in a table of two columns) and image, as they are written."""
    parts: dict[tuple[str, str], Part] = {}
    for line, dataset, slide, part in _rows(file):
        known = next((p for p in PARTS if p == part.lower()), None)
        if known is None:
            if line == 1:
                continue  # the heading
            raise PromptError(
                f"{file}, line {line}: {part!r} is no part of a split. Use train, val or test."
            )
        if parts.setdefault((dataset, slide), known) != known:
            raise PromptError(f"{file}, line {line}: {slide} has two parts. Leave one of them.")
    return parts


def _rows(file: Path) -> Iterator[tuple[int, str, str, str]]:
    """Yield line number, dataset, image and part of each row."""
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as exc:
        raise PromptError(f"{file} cannot be read as a table ({exc}). Check its name.") from exc
    if stated := _FORMAT.match(text):
        SPLIT_TABLE.check_number(file, int(stated[1]))
        text = text[stated.end() :]
    first = text.partition("\n")[0]
    separator = next((mark for mark in "\t;," if mark in first), ";")
    table = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
    is_ours, lines_before = False, 1 if stated else 0
    try:
        for row in table:
            cells = [compose(cell.strip()) for cell in row]
            if table.line_num == 1 and cells == list(_HEADING):
                is_ours = True
            elif is_ours and len(cells) == len(_HEADING):
                yield lines_before + table.line_num, cells[0], cells[1], cells[3]
            elif len(cells) > 1:
                yield lines_before + table.line_num, "", cells[0], cells[1]
            elif any(cells):
                raise PromptError(
                    f"{file}, line {table.line_num}: it has one column. Write slide;part."
                )
    except csv.Error as exc:
        raise PromptError(f"{file} cannot be read as a table ({exc}). Check its name.") from exc


def _name_in(
    parts: Mapping[tuple[str, str], Part], image: AnnotatedImage
) -> tuple[str, str] | None:
    """Find the name under which a table has an image."""
    bare = strip_format(image.name)
    exact = ((image.dataset, image.name), ("", image.name), ("", bare))
    found = next((name for name in exact if name in parts), None)
    if found is not None:
        return found
    return next((key for key in parts if not key[0] and strip_format(key[1]) == bare), None)


def _move_groups(
    parts: Mapping[_Group, Part], order: Sequence[_Group], *, needs_val: bool
) -> dict[_Group, Part]:
    """Move groups so that there is one to train and, where needed, one to validate."""
    moved = dict(parts)

    def members(part: Part) -> list[_Group]:
        return [key for key in order if moved[key] == part]

    if "train" not in moved.values():
        val, test = members("val"), members("test")
        spare = val[1:] or test or val
        if spare:
            moved[spare[-1]] = "train"
    if needs_val and "val" not in moved.values():
        train, test = members("train"), members("test")
        # One at least of those that train stays: of the movable, or of those that a file names.
        fixed = [key for key, part in moved.items() if part == "train" and key not in order]
        spare = train if fixed else train[1:]
        if train and spare:
            moved[train[0]] = "val"
        elif test:
            moved[test[0]] = "val"
    return moved


def _key(image: AnnotatedImage) -> _Group:
    return image.dataset, image.group


def _part(image: AnnotatedImage, rule: SplitRule) -> Part:
    if image.group in rule.test:
        return "test"
    if image.group in rule.val:
        return "val"
    at = _share_at(image.dataset, image.group, rule.seed)
    if at < rule.test_share:
        return "test"
    return "val" if at < rule.test_share + rule.val_share else "train"


def _share_at(dataset: str, group: str, seed: int) -> float:
    """Place a group at random in 0 to 1, always at the same point."""
    digest = hashlib.sha256(f"{seed}|{dataset}|{group}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64
