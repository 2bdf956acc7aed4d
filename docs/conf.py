"""Sphinx: pages in Markdown (MyST), the API from docstrings, the command line from click."""

from __future__ import annotations

import sys
from pathlib import Path

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    import tomli as tomllib

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "training")]

_METADATA = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]

project = _METADATA["name"]
author = _METADATA["authors"][0]["name"]
copyright = author
release = version = _METADATA["version"]

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
