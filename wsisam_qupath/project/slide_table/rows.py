"""A table of slides (CSV): a slide and its prompts per row, and options that differ."""

from __future__ import annotations

import csv
import io
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ...errors import OptionError, PromptError, escape
from ...files import read_file, write_atomically
from ...files.names import name_key
from ...geojson.manifest import file_names
from ...geometry import Mpp
from ...options import OutlineOptions
from ...slide.calibration import override
from ...slide.names import split_location, strip_format

_BYTES_MAX = 256 << 20

_NAMED_MAX = 5
"""Most unusable rows that are named; more would bury the first."""

_NEEDED = ("slide", "prompts")


def _word(*words: str) -> Callable[[str], str]:
    def read(text: str) -> str:
        if text not in words:
            raise ValueError
        return text

    return read


_OPTIONS: Mapping[str, tuple[str, Callable[[str], Any], str]] = {
    "points": ("points_as", _word("together", "each"), "together or each"),
    "object-size": ("object_size_um", float, "a number of µm"),
    "simplify": ("simplify_um", float, "a number of µm"),
    "min-area": ("min_area_um2", float, "a number of µm²"),
    "as": ("object_type", _word("detection", "annotation"), "detection or annotation"),
    "candidates": ("candidates", int, "1, 2 or 3"),
}
"""Columns that are options of the command: the field of each, how it is read, and what it may
be."""

_MPP = "a number of µm, or two with a space between them: of width and height"

COLUMNS = (*_NEEDED, "name", "mpp", *_OPTIONS)


@dataclass(frozen=True)
class TableRow:
    """A slide with its prompts.

    Attributes:
        line: line of the table, counted from 1; the first line has the columns.
        slide: absolute path of the slide.
        prompts: absolute path of the GeoJSON file.
        name: name of its result files without endings; distinct on every system.
        mpp: pixel size of level 0; None to take what the slide states.
        fields: fields of :class:`.OutlineOptions` in which the row differs from the command.
    """

    line: int
    slide: str
    prompts: Path
    name: str
    mpp: Mpp | None = None
    fields: Mapping[str, Any] = field(default_factory=dict)

    def merge(self, options: OutlineOptions) -> OutlineOptions:
        """Merge the row's options into those of the command."""
        return replace(options, **self.fields)


@dataclass(frozen=True)
class Shard:
    """One of several equal parts of a table.

    Attributes:
        number: number of the part, from 1 to ``count``.
        count: number of parts.
    """

    number: int
    count: int

    def take(self, rows: Sequence[TableRow]) -> Sequence[TableRow]:
        """Take this part of the rows; every row is in exactly one part."""
        return rows[self.number - 1 :: self.count]


def read_rows(path: Path) -> tuple[TableRow, ...]:
    """Read a table. Paths in it are relative to its folder.

    Raises:
        PromptError: it cannot be read, or some rows cannot be used, which are named by line.
    """
    try:
        text = read_file(path, bytes_max=_BYTES_MAX).decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        raise PromptError(f"{path} is not in UTF-8. Save it as CSV in UTF-8.") from exc
    except OSError as exc:
        raise PromptError(f"{path} cannot be read ({exc.strerror or exc}).") from exc
    rows: list[TableRow] = []
    wrong: list[str] = []
    for line, cells in _read_cells(path, text):
        try:
            rows.append(_read_row(path, line, cells))
        except ValueError as exc:
            wrong.append(f"line {line}: {exc}")
    wrong += _find_repeated_names(rows)
    if wrong:
        more = f", and {len(wrong) - _NAMED_MAX} more" if len(wrong) > _NAMED_MAX else ""
        raise PromptError(f"{path}, {'; '.join(wrong[:_NAMED_MAX])}{more}. Correct the table.")
    if not rows:
        raise PromptError(f"{path} has no rows: write one per slide below the names of columns.")
    return tuple(rows)


def write_rows(path: Path, rows: Iterable[TableRow]) -> None:
    """Write a table of slides, prompts, names and pixel sizes; completely or not at all.

    Raises:
        OutputError: it cannot be written there.
    """
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["slide", "prompts", "name", "mpp"])
    for row in rows:
        prompts = row.prompts
        if prompts.is_relative_to(path.parent.absolute()):
            prompts = prompts.relative_to(path.parent.absolute())
        table.writerow([row.slide, prompts.as_posix(), row.name, _write_mpp(row.mpp)])
    write_atomically(path, text.getvalue().encode("utf-8"))


def _read_cells(path: Path, text: str) -> Iterator[tuple[int, dict[str, str]]]:
    """Read the cells of each row by their columns, without empty ones, and its line number.

    Raises:
        PromptError: columns are missing or not known.
    """
    first_line = text.partition("\n")[0]
    separator = ";" if ";" in first_line and "," not in first_line else ","
    reader = csv.reader(io.StringIO(text), delimiter=separator)
    columns = [name.strip().lower() for name in next(reader, [])]
    unknown = [name for name in columns if name not in COLUMNS]
    missing = [name for name in _NEEDED if name not in columns]
    if unknown or missing or len(set(columns)) < len(columns):
        raise PromptError(
            f"{path}, line 1: name the columns, each once, separated by commas: slide and prompts "
            f"and, where needed, {', '.join(COLUMNS[2:])}. "
            f"{f'{escape(unknown[0], 50)!r} is none of them.' if unknown else ''}".rstrip()
        )
    try:
        for cells in reader:
            if any(map(str.strip, cells)):
                given = {n: c.strip() for n, c in zip(columns, cells, strict=False) if c.strip()}
                is_whole = len(cells) == len(columns)
                yield reader.line_num, given if is_whole else {**given, "": ""}
    except csv.Error as exc:
        raise PromptError(f"{path}, line {reader.line_num}: it is not CSV ({exc}).") from exc


def _read_row(path: Path, line: int, cells: Mapping[str, str]) -> TableRow:
    """Make a row from its cells.

    Raises:
        ValueError: it cannot be used; the message says why.
    """
    if "" in cells:
        raise ValueError("it has another number of cells than the first line")
    for name in _NEEDED:
        if name not in cells:
            raise ValueError(f"the {name} is missing")
    slide = _resolve(path, cells["slide"])
    stem = cells.get("name") or strip_format(split_location(slide)[-1])
    name = file_names([("", stem)])[""].removesuffix(".geojson")
    if "name" in cells and name != stem:
        raise ValueError(f"{escape(stem, 50)!r} cannot be the name of a file")
    try:
        mpp = override(_read(cells["mpp"], _read_mpp, _MPP)) if "mpp" in cells else None
        fields = {
            field_name: _read(cells[column], convert, wanted)
            for column, (field_name, convert, wanted) in _OPTIONS.items()
            if column in cells
        }
        replace(OutlineOptions(), **fields)
    except OptionError as exc:
        raise ValueError(str(exc).rstrip(".")) from exc
    return TableRow(line, slide, Path(_resolve(path, cells["prompts"])), name, mpp, fields)


def _read(text: str, convert: Callable[[str], Any], wanted: str) -> Any:
    try:
        return convert(text)
    except ValueError as exc:
        raise ValueError(f"{escape(text, 50)!r} is not {wanted}") from exc


def _read_mpp(text: str) -> Mpp:
    numbers = [float(part) for part in text.split()]
    if len(numbers) not in (1, 2):
        raise ValueError
    return Mpp(numbers[0], numbers[-1])


def _write_mpp(mpp: Mpp | None) -> str:
    """Write a pixel size with every digit: another size would give the results other ids."""
    if mpp is None:
        return ""
    return repr(mpp.x) if mpp.x == mpp.y else f"{mpp.x!r} {mpp.y!r}"


def _resolve(table: Path, location: str) -> str:
    """Resolve a path relative to the folder of the table; an address stays as it is."""
    return location if "://" in location else str(table.parent.absolute() / location)


def _find_repeated_names(rows: Iterable[TableRow]) -> Iterator[str]:
    lines: defaultdict[str, list[TableRow]] = defaultdict(list)
    for row in rows:
        lines[name_key(row.name)].append(row)
    for same in lines.values():
        if len(same) > 1:
            where = " and ".join(str(row.line) for row in same[:_NAMED_MAX])
            yield f"lines {where}: their results would have the same name, {same[0].name}; " + (
                "give them others in the column name"
            )
