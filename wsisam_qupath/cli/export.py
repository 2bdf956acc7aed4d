"""The ``export`` command."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from .options import SOME_FAILED, remap_option, stated_mpp_option


@click.command()
@click.argument("project", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@remap_option
@stated_mpp_option
def export(**given: Any) -> None:
    """Export the annotations of a QuPath PROJECT to the folder OUT, as training data.

    Every closed outline is an object; inside outlines of class Region*, all objects are taken to be
    annotated. Rectangles, points, other classes that end in * and detections are left out.

    Exit codes: 0 done, 2 nothing was written, 3 some images failed.
    """
    from ..project.export.command import ExportRequest, run_export

    exported = run_export(ExportRequest(**given))
    sys.exit(0 if exported.is_complete else SOME_FAILED)
