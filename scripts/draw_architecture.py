"""Draw the rooms of the house and their imports into docs/architecture.svg.

    python scripts/draw_architecture.py [--check]

Order and sides come from the import rules in pyproject.toml, arrows from the imports in the source,
words from the first lines of docstrings. An arrow is left out where a longer way says the same.
With --check nothing is written, and the exit code is 1 where the picture is out of date.
"""

from __future__ import annotations

import argparse
import ast
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from textwrap import wrap

import grimp

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    import tomli as tomllib

ROOT = Path(__file__).resolve().parent.parent
PICTURE = ROOT / "docs" / "architecture.svg"

PACKAGE, TRAINING = "wsisam_qupath", "wsisam_qupath_training"
FOLDERS = {PACKAGE: ROOT / PACKAGE, TRAINING: ROOT / "training" / TRAINING}

ROOM_WIDTH, ROOM_HEIGHT, GAP_X, GAP_Y, MARGIN = 250, 64, 40, 40, 20
CHARACTERS, LINES = 42, 2
"""How much of a docstring's first line a room has space for."""


@dataclass(frozen=True)
class Room:
    """A package or module at the top of one of the two packages, and its place in px."""

    name: str
    words: str
    x: int
    y: int


def main() -> None:
    """Write the picture, or compare it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 if stale")
    drawn = draw()
    if not parser.parse_args().check:
        PICTURE.write_text(drawn, "utf-8")
    elif not PICTURE.is_file() or PICTURE.read_text("utf-8") != drawn:
        sys.exit(f"{PICTURE.relative_to(ROOT)} is out of date: run scripts/draw_architecture.py.")


def draw() -> str:
    """The picture, as SVG."""
    rooms = [*place(TRAINING, column=0), *place(PACKAGE, column=3)]
    arrows = find_arrows([room.name for room in rooms])
    width = max(room.x for room in rooms) + ROOM_WIDTH + MARGIN
    height = max(room.y for room in rooms) + ROOM_HEIGHT + MARGIN
    by_name = {room.name: room for room in rooms}
    lines = [draw_arrow(by_name[above], by_name[below]) for above, below in arrows]
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
            f'width="{width}" height="{height}" font-family="sans-serif">',
            "<title>Rooms of the two packages and their imports, all downwards</title>",
            '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" '
            'markerHeight="7" orient="auto"><path d="M0 0 8 4 0 8z" fill="#57606a"/>'
            "</marker></defs>",
            f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
            *lines,
            *(draw_room(room) for room in rooms),
            "</svg>\n",
        ]
    )


def place(package: str, column: int) -> Iterator[Room]:
    """The rooms of a package from the top down, siblings side by side."""
    for row, layer in enumerate(read_layers(package)):
        for offset, name in enumerate(layer):
            yield Room(
                f"{package}.{name}",
                read_words(FOLDERS[package] / name),
                MARGIN + (column + offset) * (ROOM_WIDTH + GAP_X),
                MARGIN + row * (ROOM_HEIGHT + GAP_Y),
            )


def read_layers(package: str) -> list[list[str]]:
    """The layers of a package, as the import rules have them."""
    rules = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"]
    for rule in rules["contracts"]:
        if rule["type"] == "layers" and rule.get("containers") == [package]:
            return [[name.strip() for name in layer.split("|")] for layer in rule["layers"]]
    raise SystemExit(f"pyproject.toml has no rule for the layers of {package}.")


def read_words(path: Path) -> str:
    """The first line of the docstring of a package or module."""
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    text = ast.get_docstring(ast.parse(file.read_text("utf-8"))) or ""
    line = " ".join(text.partition("\n\n")[0].split()).replace("``", "").rstrip(".")
    return re.sub(r":\w+:`[.~]*([^`]+)`", r"\1", line)


def find_arrows(names: Sequence[str]) -> list[tuple[str, str]]:
    """Pairs of rooms of which the first imports the second, without those that others imply."""
    graph = grimp.build_graph(*FOLDERS)
    direct = {
        above: {below for below in names if below != above and imports(graph, above, below)}
        for above in names
    }
    return [
        (above, below)
        for above in names
        for below in sorted(direct[above])
        if not any(below in reachable(other, direct) for other in direct[above] - {below})
    ]


def imports(graph: grimp.ImportGraph, above: str, below: str) -> bool:
    """Whether any module of a room imports any module of another."""
    return bool(graph.find_matching_direct_imports(import_expression=f"{above} -> {below}")) or any(
        graph.find_matching_direct_imports(import_expression=f"{left} -> {right}")
        for left, right in (
            (f"{above}.**", f"{below}.**"),
            (above, f"{below}.**"),
            (f"{above}.**", below),
        )
    )


def reachable(start: str, direct: dict[str, set[str]]) -> set[str]:
    """Every room that a room imports, through others too."""
    found: set[str] = set()
    waiting = [start]
    while waiting:
        for below in direct[waiting.pop()] - found:
            found.add(below)
            waiting.append(below)
    return found


def draw_room(room: Room) -> str:
    """A box with a name and a line or two of what it holds."""
    is_training = room.name.startswith(f"{TRAINING}.")
    fill = "#fff8e6" if is_training else "#eaf2fb"
    words = wrap(room.words, CHARACTERS)
    if len(words) > LINES:
        words = [*words[: LINES - 1], f"{words[LINES - 1][: CHARACTERS - 1]}…"]
    texts = [
        f'<text x="{room.x + 10}" y="{room.y + 36 + 15 * number}" font-size="10.5" '
        f'fill="#57606a">{escape(line)}</text>'
        for number, line in enumerate(words)
    ]
    return "\n".join(
        [
            f'<rect x="{room.x}" y="{room.y}" width="{ROOM_WIDTH}" height="{ROOM_HEIGHT}" rx="6" '
            f'fill="{fill}" stroke="#8c959f"/>',
            f'<text x="{room.x + 10}" y="{room.y + 19}" font-size="14" font-weight="bold" '
            f'fill="#1f2328">{escape(room.name.rpartition(".")[2])}</text>',
            *texts,
        ]
    )


def draw_arrow(above: Room, below: Room) -> str:
    """A curve from the bottom of a room to the top of another, or from side to side."""
    half = ROOM_WIDTH // 2
    x0, y0, x1, y1 = above.x + half, above.y + ROOM_HEIGHT, below.x + half, below.y
    if below.y <= above.y:  # from training to a room of the package beside it or above
        x0, y0, x1, y1 = above.x + ROOM_WIDTH, above.y + 32, below.x, below.y + 32
        bend = (x1 - x0) // 2
        path = f"M{x0} {y0}C{x0 + bend} {y0} {x1 - bend} {y1} {x1} {y1}"
    else:
        bend = max(GAP_Y, (y1 - y0) // 2)
        path = f"M{x0} {y0}C{x0} {y0 + bend} {x1} {y1 - bend} {x1} {y1}"
    return (
        f'<path d="{path}" fill="none" stroke="#57606a" stroke-opacity="0.6" '
        'marker-end="url(#tip)"/>'
    )


if __name__ == "__main__":
    main()
