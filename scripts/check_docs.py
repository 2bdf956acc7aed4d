"""Check that what the docs name exists: commands, options, extras, files, links, tests, menu items.

    python scripts/check_docs.py

Reads every Markdown file of the project but CHANGELOG.md, which speaks of the past too. Needs no
network: of links that lead out of the repository, only those to its own pages are looked at.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import click

from wsisam_qupath.cli.main import cli
from wsisam_qupath.server.openapi import OPERATIONS

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    import tomli as tomllib

ROOT = Path(__file__).resolve().parent.parent

PAGES = ("*.md", "docs/**/*.md", "training/**/*.md", "wsisam_qupath/**/*.md", ".github/**/*.md")
OF_THE_PAST = {"CHANGELOG.md"}

REPOSITORY = "https://github.com/wsisam-qupath/wsisam-qupath"
ROOTS = ("", "docs", "tests", "training", "training/wsisam_qupath_training", "wsisam_qupath")
"""Folders from which a page may name a file."""

OF_OTHERS = frozenset(
    {
        *("--build", "--editable", "--env", "--gpus", "--mount", "--publish", "--user"),
        *("--array", "--cpus-per-task", "--mem", "--time", "--job-name", "--tags"),
        *("--force-reinstall", "--no-deps", "--torch-backend", "--prefer-binary", "--version"),
        *("--find-links", "--no-index", "--upgrade", "--logdir", "--nproc-per-node"),
    }
)
"""Options of docker, pip, pipx, uv, sbatch, tensorboard and torchrun that pages may name."""

PROGRAM = "wsisam-qupath"

_FENCE = re.compile(r"^(`{3,}|~{3,})[^\n]*\n(.*?)^\1", re.MULTILINE | re.DOTALL)
_CODE = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]+")
_SOURCE = re.compile(r"\.(?:py|md|toml|groovy|jpg|svg|html|yaml|yml|cff|j2|safetensors|tsv)$")
_TEST = re.compile(r"(?P<file>[\w/]+\.py)::(?P<name>\w+)$")
_MENU = re.compile(r"\*Extensions > WSI-SAM > ([^*>]+?)…?\*")
_EXTRAS = re.compile(r"(?:wsisam-qupath|\.)\[([a-z,]+)\]")
_HEADING = re.compile(r"^#+ +(.+?)\s*$", re.MULTILINE)


@dataclass(frozen=True)
class Page:
    """A Markdown file: its text, the lines of its code blocks, and its inline code."""

    path: Path
    text: str

    @property
    def name(self) -> str:
        """Path from the root of the project."""
        return self.path.relative_to(ROOT).as_posix()

    @property
    def prose(self) -> str:
        """The text without its code blocks."""
        return _FENCE.sub("\n", self.text)

    def list_commands(self) -> Iterator[str]:
        """Lines of code blocks and inline code, without prompts, comments and line breaks."""
        for block in _FENCE.finditer(self.text):
            for line in re.sub(r"\\\n\s*", " ", block[2]).splitlines():
                yield re.sub(r"\s+#.*", "", line.strip().removeprefix("$ "))
        yield from self.list_code()

    def list_code(self) -> Iterator[str]:
        """Inline code."""
        yield from (code[1] for code in _CODE.finditer(self.prose))


def main() -> None:
    """Print what does not exist; exit with 1 where there is any."""
    problems = [f"{page.name}: {problem}" for page in read_pages() for problem in check(page)]
    if problems:
        sys.exit("\n".join(dict.fromkeys(problems)))


def read_pages() -> list[Page]:
    """All pages of the project."""
    paths = sorted({path for pattern in PAGES for path in ROOT.glob(pattern)})
    built = ROOT / "docs" / "_build"
    return [
        Page(path, path.read_text("utf-8"))
        for path in paths
        if path.name not in OF_THE_PAST and built not in path.parents
    ]


def check(page: Page) -> Iterator[str]:
    """What a page names that is not there."""
    for command in page.list_commands():
        yield from check_program(command)
        yield from check_make(command)
        yield from check_script(command)
    for code in page.list_code():
        yield from check_code(code)
    for extras in _EXTRAS.findall(page.text):
        yield from (f"no extra {one}" for one in extras.split(",") if one not in read_extras())
    for item in _MENU.findall(page.text):
        if f"'{item}" not in read_script() and f">{item}" not in read_script():
            yield f"no menu item {item}"
    for target in _LINK.findall(page.prose):
        yield from check_link(page, target)


def check_program(line: str) -> Iterator[str]:
    """Subcommands of the program, and the options given to them."""
    for call in re.findall(rf"(?:(?<![\w/.-])|bin/){PROGRAM} +([^|;&]*)", line):
        name, *rest = call.split() or [""]
        if re.fullmatch(r"[a-z][a-z-]*[a-z]", name) is None or "=" in name:
            continue
        if name not in list_subcommands():
            yield f"no command {PROGRAM} {name}"
            continue
        for option in _OPTION.findall(" ".join(rest)):
            if option not in list_options(name):
                yield f"no option {option} of {PROGRAM} {name}"


def check_make(line: str) -> Iterator[str]:
    """Targets of the Makefile."""
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
    if (called := re.fullmatch(r"make ([a-z]+)", line)) and called[1] not in targets:
        yield f"no target {called[1]} of make"


def check_script(line: str) -> Iterator[str]:
    """Scripts of this project, and the options given to them."""
    called = re.search(r"python\d? ((?:scripts|benchmarks)/\w+\.py)(.*)", line)
    if called is None:
        return
    path = ROOT / called[1]
    if not path.is_file():
        yield f"no script {called[1]}"
        return
    source = path.read_text("utf-8")
    yield from (
        f"no option {option} of {called[1]}"
        for option in _OPTION.findall(called[2])
        if f'"{option}"' not in source
    )


def check_code(code: str) -> Iterator[str]:
    """Inline code that is an option, a path of the HTTP interface, a test, a file or a variable."""
    if re.fullmatch(r"--[a-z][a-z-]+( .*)?", code):
        known = set().union(*map(list_options, list_subcommands())) | OF_OTHERS
        yield from (f"no option {one}" for one in _OPTION.findall(code) if one not in known)
    elif re.fullmatch(r"(?:GET |POST |PUT |DELETE )?/(?:v1/[\w/{}-]+|metrics|healthz)", code):
        if code.rpartition(" ")[2] not in {operation.path for operation in OPERATIONS}:
            yield f"no address {code}"
    elif re.fullmatch(r"WSISAM_\w+", code):
        if code not in read_sources():
            yield f"no variable {code}"
    elif test := _TEST.fullmatch(code):
        yield from check_test(test["file"], test["name"])
    elif is_own_file(code) and find_file(code) is None:
        yield f"no file {code}"


def check_test(file: str, name: str) -> Iterator[str]:
    """A test function in a file of the tests."""
    path = find_file(file)
    if path is None or f"def {name}(" not in path.read_text("utf-8"):
        yield f"no test {file}::{name}"


def is_own_file(code: str) -> bool:
    """Whether inline code is a path to a file that this project would have."""
    if "/" not in code or not _SOURCE.search(code) or re.search(r"[\s*<>:~$]", code):
        return False
    first = code.partition("/")[0]
    return any((ROOT / root / first).is_dir() for root in ROOTS)


def find_file(name: str) -> Path | None:
    """A file by its path from the root of the project or of a package."""
    return next((p for root in ROOTS if (p := ROOT / root / name).exists()), None)


def check_link(page: Page, target: str) -> Iterator[str]:
    """A file beside the page or in the repository, and the heading in it."""
    if target.startswith(REPOSITORY):
        inside = re.sub(r"^/(?:blob|tree)/main/", "", target.removeprefix(REPOSITORY))
        target, folder = inside, ROOT
        if re.fullmatch(r"(?:/(?:issues|security|releases).*)?", inside):
            return
    elif re.match(r"[a-z]+:", target):
        return
    else:
        folder = page.path.parent
    name, _, heading = target.partition("#")
    path = (folder / name).resolve() if name else page.path
    if not path.exists():
        yield f"a link leads to {target}, which is not there"
    elif heading and path.suffix == ".md" and heading not in list_headings(path):
        yield f"a link leads to {target}, which has no such heading"


@cache
def list_headings(path: Path) -> set[str]:
    """Anchors of the headings of a page, as GitHub and MyST make them."""
    headings = _HEADING.findall(_FENCE.sub("\n", path.read_text("utf-8")))
    return {make_anchor(heading) for heading in headings}


def make_anchor(heading: str) -> str:
    """The anchor of a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@cache
def list_subcommands() -> frozenset[str]:
    """Commands of the program."""
    return frozenset(cli.list_commands(click.Context(cli)))


@cache
def list_options(name: str) -> frozenset[str]:
    """Options of a command, with those that every command has."""
    command = cli.get_command(click.Context(cli), name)
    assert command is not None, name
    return frozenset({"--help", *spell_options(command.params)})


def spell_options(parameters: Iterable[click.Parameter]) -> Iterator[str]:
    """All spellings of all options."""
    for parameter in parameters:
        yield from (*parameter.opts, *parameter.secondary_opts)


@cache
def read_extras() -> frozenset[str]:
    """Extras of the package."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    return frozenset(project["optional-dependencies"])


@cache
def read_script() -> str:
    """The script that puts the menu into QuPath."""
    return (ROOT / "groovy" / "wsisam" / "MenuInstaller.groovy").read_text("utf-8")


@cache
def read_sources() -> str:
    """The source of the package."""
    return "\n".join(p.read_text("utf-8") for p in sorted((ROOT / "wsisam_qupath").rglob("*.py")))


if __name__ == "__main__":
    main()
