"""The class list of a project, ``classifiers/classes.json``, as QuPath's window offers it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...errors import ProjectError
from .entries import Project
from .json_text import SUMMARY_BYTES_MAX, parse

_QUPATH_CLASSES = {
    "Tumor": -3670016,
    "Stroma": -6895466,
    "Immune cells": -6268256,
    "Necrosis": -13487566,
    "Other": -14336,
    "Region*": -16777036,
    "Ignore*": -4934476,
    "Positive": -377282,
    "Negative": -9408287,
}
"""Classes that QuPath's window offers for a project without a list of its own; packed ARGB."""

_NO_CLASS = "Unclassified"


def read_class_names(project: Project) -> tuple[str, ...]:
    """Read the class names in their order; none if the project has no list yet.

    Raises:
        ProjectError: the list is damaged.
    """
    return tuple(_names(_read(project)))


def add_classes(project: Project, colors: Mapping[str, int]) -> tuple[str, ...]:
    """Append classes that the list lacks; classes in the list stay as they are.

    A project without a list gets QuPath's default classes first, in the given colors:
    with a list of ours alone, its window would offer nothing else.

    Args:
        colors: packed ARGB, 32 bits with or without sign, by the names of classes.

    Returns:
        The names that are new.

    Raises:
        ProjectError: the list is damaged, or cannot be written; it is as it was.
    """
    named = {spell_class(name): color for name, color in colors.items()}
    usual = {name: named.get(name, color) for name, color in _QUPATH_CLASSES.items()}
    content = _read(project) or {"pathClasses": _entries(usual)}
    known = {*_names(content), _NO_CLASS, ""}
    new = {name: color for name, color in named.items() if name not in known}
    if new:
        content["pathClasses"] += _entries(new)
        _write(project, json.dumps(content, indent=2, ensure_ascii=False).encode())
    return tuple(new)


def _entries(colors: Mapping[str, int]) -> list[dict[str, Any]]:
    return [{"name": name, "color": _convert_to_signed(color)} for name, color in colors.items()]


def _path(project: Project) -> Path:
    return project.folder / "classifiers" / "classes.json"


def _read(project: Project) -> dict[str, Any]:
    """Read the JSON object, with a list ``pathClasses`` of objects; empty if there is no file."""
    hint = "put back a backup of it, or delete it, and QuPath makes a new list"
    path = _path(project)
    try:
        content = parse(project.files.read(path, bytes_max=SUMMARY_BYTES_MAX))
    except FileNotFoundError:
        return {}
    except OSError as exc:
        raise ProjectError(
            f"The class list {path} cannot be read ({exc.strerror}): check that you may read it."
        ) from exc
    except ValueError as exc:
        raise ProjectError(f"The class list {path} is damaged (not JSON): {hint}.") from exc
    entries = content.get("pathClasses") if isinstance(content, dict) else None
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise ProjectError(f"The class list {path} is damaged (it lists no classes): {hint}.")
    return dict(content)


def _names(content: dict[str, Any]) -> list[str]:
    names = (entry.get("name") for entry in content.get("pathClasses", []))
    return [spell_class(name) for name in names if isinstance(name, str)]


def spell_class(name: str) -> str:
    """Spell a class, derived ones included, as QuPath does, such as ``Tumor: Positive``."""
    return ": ".join(part.strip() for part in name.split(":"))


def _convert_to_signed(color: int) -> int:
    """Convert an unsigned 32-bit number to Java's int."""
    return (color + (1 << 31)) % (1 << 32) - (1 << 31)


def _write(project: Project, content: bytes) -> None:
    """Replace the file, with its permissions: colleagues keep the right to write it."""
    path = _path(project)
    try:
        project.files.make_folder(path.parent)
        project.files.write_atomically(path, content)
    except OSError as exc:
        raise ProjectError(
            f"The class list {path} cannot be written ({exc.strerror or exc}): make room, and "
            "allow writing there."
        ) from exc
