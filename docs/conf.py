"""Sphinx: pages in Markdown (MyST), the API from docstrings, the command line from click."""

from __future__ import annotations

import sys
from importlib.metadata import version as read_version
from pathlib import Path

from pygments.lexers.special import TextLexer
from sphinx.application import Sphinx

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "training")]

project = "wsisam-qupath"
author = copyright = "The wsisam-qupath developers"
release = version = read_version(project)

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_click",
]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"{project} {release}"

myst_heading_anchors = 3
autodoc_typehints = "description"
napoleon_use_ivar = True


def setup(app: Sphinx) -> None:
    """Know the list of words in CONTRIBUTING.md as plain text."""
    app.add_lexer("words", TextLexer)
