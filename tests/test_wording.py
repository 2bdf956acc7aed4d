"""What people read: no flag of the command line in the core, and no word of CONTRIBUTING's list."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = (ROOT / "wsisam_qupath", ROOT / "training" / "wsisam_qupath_training")
FLAG = re.compile(r"(?<![\w`-])--[a-z]")
TO_OTHER_PROGRAMS = re.compile(r"`?pip install[^`]*`?|^--[\w=-]+$|^-(h|V)$")
"""Arguments of pip, Java and QuPath."""


def modules() -> list[Path]:
    return sorted(path for package in PACKAGES for path in package.rglob("*.py"))


def texts_of(path: Path) -> Iterator[tuple[int, str, bool]]:
    """Line, text and whether it is a docstring, of every string in a module; f-strings whole."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    parts = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr)
             for part in node.values}  # fmt: skip
    docs = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            values = [v.value for v in node.values if isinstance(v, ast.Constant)]
            yield node.lineno, "…".join(map(str, values)), False
        elif (
            isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in parts
        ):
            yield node.lineno, node.value, id(node) in docs


def listed_words() -> re.Pattern[str]:
    """The words of the list in CONTRIBUTING.md, one regular expression per line."""
    page = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    found = re.search(r"^```words\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    assert found is not None
    entries = [line.split("  ")[0].strip() for line in found[1].splitlines() if line.strip()]
    return re.compile("|".join(rf"\b(?:{entry})\b" for entry in entries), re.IGNORECASE)


def test_only_the_command_line_names_its_flags() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{line}: {text[:80]}"
        for path in modules()
        if "cli" not in path.parts
        for line, text, is_doc in texts_of(path)
        if not is_doc and FLAG.search(TO_OTHER_PROGRAMS.sub("", text))
    ]

    assert found == []


def test_what_people_read_is_free_of_the_listed_words() -> None:
    words = listed_words()
    texts = [
        (path, line, text)
        for path in modules()
        for line, text, is_doc in texts_of(path)
        if is_doc or " " in text
    ]
    pages = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("training/*.md")]
    for path in [*pages, *ROOT.glob("groovy/*.groovy"), *PACKAGES[0].rglob("*.md")]:
        content = path.read_text(encoding="utf-8")
        content = re.sub(r"^```words\n.*?^```", "", content, flags=re.MULTILINE | re.DOTALL)
        texts += [(path, n, line) for n, line in enumerate(content.splitlines(), start=1)]
    found = [
        f"{path.relative_to(ROOT)}:{line}: {match[0]}"
        for path, line, text in texts
        for match in words.finditer(text)
    ]

    assert found == []
