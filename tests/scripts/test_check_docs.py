"""What the check of the docs finds, and what it lets pass."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"


@pytest.fixture(scope="module")
def check_docs() -> ModuleType:
    """The script as a module."""
    spec = importlib.util.spec_from_file_location("check_docs", SCRIPTS / "check_docs.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["check_docs"] = module  # where its dataclass looks for annotations
    spec.loader.exec_module(module)
    return module


def problems(check_docs: ModuleType, text: str) -> list[str]:
    page = check_docs.Page(check_docs.ROOT / "docs" / "page.md", text)
    return list(check_docs.check(page))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("```\nwsisam-qupath outline a.svs\n```", "no command wsisam-qupath outline"),
        ("```\n$ wsisam-qupath batch p --fast\n```", "no option --fast of wsisam-qupath batch"),
        ("```\nwsisam-qupath batch p \\\n  --fast\n```", "no option --fast of wsisam-qupath batch"),
        ("`wsisam-qupath serve --prot 1`", "no option --prot of wsisam-qupath serve"),
        (
            "```ini\nExecStart=/srv/x/bin/wsisam-qupath serve --prot 1\n```",
            "no option --prot of wsisam-qupath serve",
        ),
        ("use `--fast`", "no option --fast"),
        ("`make everything`", "no target everything of make"),
        ("`python benchmarks/none.py`", "no script benchmarks/none.py"),
        (
            "`python benchmarks/speed.py --laps 2`",
            "no option --laps of benchmarks/speed.py",
        ),
        ("`model/nothing.py`", "no file model/nothing.py"),
        (
            "`tests/model/test_decoders.py::test_nothing`",
            "no test tests/model/test_decoders.py::test_nothing",
        ),
        ("`GET /v1/nothing`", "no address GET /v1/nothing"),
        ("`WSISAM_NOTHING`", "no variable WSISAM_NOTHING"),
        ('`pip install "wsisam-qupath[gpu]"`', "no extra gpu"),
        ("*Extensions > WSI-SAM > Segment the world*", "no menu item Segment the world"),
        ("[x](nothing.md)", "a link leads to nothing.md, which is not there"),
        (
            "[x](install.md#nothing)",
            "a link leads to install.md#nothing, which has no such heading",
        ),
        (
            "[x](https://github.com/wsisam-qupath/wsisam-qupath/blob/main/NOTHING.md)",
            "a link leads to NOTHING.md, which is not there",
        ),
    ],
)
def test_what_does_not_exist_is_named(check_docs: ModuleType, text: str, problem: str) -> None:
    assert problems(check_docs, text) == [problem]


@pytest.mark.parametrize(
    "text",
    [
        "```\n$ wsisam-qupath batch p --report r.html   # --fast is no option\n```",
        "`wsisam-qupath segment --help`",
        "`--no-install` and `--remap OLD=NEW`",
        "`make demo`",
        "`python benchmarks/speed.py --rounds 9`",
        "`model/bases.py`, `groovy/wsi_sam.groovy` and `slides/mine.svs`",
        "`GET /openapi.json`, `POST /v1/segment` and `/healthz`",
        '`pip install ".[demo,train]"`',
        "*Extensions > WSI-SAM > Settings…*",
        "[x](install.md#what-was-tried) and [y](https://example.org/nothing.md)",
    ],
)
def test_what_exists_passes(check_docs: ModuleType, text: str) -> None:
    assert problems(check_docs, text) == []
