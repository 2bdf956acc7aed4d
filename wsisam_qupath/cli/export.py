"""Options of ``export``. Heavy imports stand inside of it, so that ``--help`` is quick."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from .options import SOME_FAILED, remap_option


@click.command()
@click.argument("project", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@remap_option
@click.option("--mpp", type=float, help="µm per pixel of slides that state none.")
def export(**given: Any) -> None:
    """Write the annotations of a QuPath PROJECT to the folder OUT, to train from.

    Areas are objects; those of class Region* are completely annotated. Rectangles, points, other
    classes that end in * and detections are left out.

    Exit codes: 0 done, 2 nothing was written, 3 some images failed.
    """
    from ..project.export.command import ExportRequest, run_export

    exported = run_export(ExportRequest(**given))
    sys.exit(0 if exported.is_complete else SOME_FAILED)
