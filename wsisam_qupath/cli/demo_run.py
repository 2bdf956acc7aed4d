"""The ``demo`` command: outline objects on tissue that ships with scikit-image."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console

from ..errors import QuPathError, SlideError, pip_install
from ..files import make_folder, write_atomically
from ..options import ModelSpec
from ..project.batch.command import run_batch
from ..project.batch.request import BatchRequest
from ..project.create.command import CreateRequest, run_create
from ..project.create.unfinished import PROJECT_FILE
from ..qupath.files.reading import read_project
from ..qupath.install.installation import find_installation
from ..qupath.jvm.objects import read_image
from ..qupath.jvm.process import QuPathProcess
from ..report.progress import show_progress, stderr_console
from ..slide.pyramid import write_pyramid
from .segment_run import SegmentRequest, run_segment

ASSUMED_MPP = 0.5
"""Pixel size assumed for the picture, which states none: its nuclei are then about 10 µm long."""


class _Mark(NamedTuple):
    """One annotation as a pathologist would draw it, level-0 px."""

    id: str
    geometry: str
    coordinates: Sequence[Any]
    path_class: tuple[str, tuple[int, int, int]]


_GLAND = ("Gland", (0, 122, 255))
_LUMEN = ("Lumen", (255, 149, 0))
_NUCLEUS = ("Nucleus", (52, 199, 89))


def _rectangle(x0: float, y0: float, x1: float, y1: float) -> list[list[list[float]]]:
    return [[[x0, y0], [x1, y0], [x1, y1], [x0, y1], [x0, y0]]]


_ROUGH_OUTLINE = [
    [[255, 310], [320, 290], [375, 320], [400, 420], [360, 512], [290, 508], [240, 400]]
]

MARKS = (
    _Mark("gland, drawn roughly", "Polygon", _ROUGH_OUTLINE, _GLAND),
    _Mark("gland with a lumen", "Polygon", _rectangle(262, 0, 470, 302), _GLAND),
    _Mark("its lumen", "Polygon", _rectangle(272, 0, 388, 198), _LUMEN),
    _Mark("large gland", "Polygon", _rectangle(0, 0, 280, 266), _GLAND),
    _Mark("gland at the edge", "Polygon", _rectangle(-5, 140, 168, 520), _GLAND),
    _Mark("nucleus", "Polygon", _rectangle(479, 30, 490, 65), _NUCLEUS),
    _Mark("another nucleus", "Polygon", _rectangle(485, 129, 498, 154), _NUCLEUS),
)
"""The prompts of the demo: rectangles from 6 to 140 µm, and a rough outline to refine."""


def run_demo(folder: Path, model: ModelSpec) -> None:
    """Write a slide and prompts, segment them, and say what was done.

    Args:
        folder: where all files are written; created if it is not there.

    Raises:
        WsiSamError: scikit-image is missing, or the folder cannot be written.
    """
    console = stderr_console()
    tissue = demo_tissue()
    make_folder(folder)
    slide, prompts = folder / "ihc.tiff", folder / "ihc.geojson"
    output, overlay = folder / "outlines.geojson", folder / "overlay.png"
    write_pyramid(slide, tissue, mpp=ASSUMED_MPP)
    write_atomically(prompts, json.dumps(demo_prompts(), indent=1).encode())
    console.print(
        f"{slide}: colon glands, FHL2 immunostain (scikit-image's ihc.png), "
        f"{ASSUMED_MPP} µm per pixel assumed.\n"
        f"{prompts}: {len(MARKS)} annotations as QuPath exports them."
    )
    run_segment(
        SegmentRequest(str(slide), prompts=prompts, output=output, overlay=overlay, model=model)
    )
    console.print(
        f"{output}: the outlines, ready for QuPath (drag the file onto the open slide).\n"
        f"{overlay}: prompts in yellow, outlines in the color of their class. Look at it."
    )
    _run_in_project(folder, slide, prompts, model, console)
    console.print(
        "Next: wsisam-qupath segment YOUR_SLIDE.svs YOUR_PROMPTS.geojson -o OUT.geojson\n"
        "      wsisam-qupath batch YOUR_PROJECT.qpproj --dry-run\n"
        "      wsisam-qupath doctor"
    )


def _run_in_project(
    folder: Path, slide: Path, prompts: Path, model: ModelSpec, console: Console
) -> None:
    """Create a QuPath project, write the outlines into it, and read it back."""
    try:
        installation = find_installation()
    except QuPathError as exc:
        console.print(f"No project was made, since no QuPath was found. {exc}", markup=False)
        return
    project = folder / "project" / PROJECT_FILE
    if not project.exists():
        run_create(CreateRequest(project, (str(slide),), prompts, image_type="brightfield-h-dab"))
    classes = tuple(dict.fromkeys(mark.path_class[0] for mark in MARKS))
    report = folder / "report.html"
    run_batch(BatchRequest(project, model, prompts=classes, report=report))
    with QuPathProcess(installation) as qupath, show_progress(console, "Reading the project"):
        (image,) = read_project(project).images
        contents = qupath.run(read_image, project.absolute(), image.id)
    console.print(
        f"{project}: {len(contents.annotations)} annotations and {len(contents.results)} outlines, "
        "as QuPath reads it. Open it there.\n"
        f"{report}: each prompt with its picture. Look at it."
    )


def demo_tissue() -> NDArray[np.uint8]:
    """Read the picture, 512 x 512 x 3 uint8 RGB.

    Raises:
        SlideError: scikit-image, which carries it, is not installed.
    """
    # Located without importing scikit-image, which would take a second.
    spec = importlib.util.find_spec("skimage")
    places = spec.submodule_search_locations if spec else None
    if not places:
        raise SlideError(
            "The demo's tissue comes with scikit-image, which is not installed. Run "
            f"{pip_install('scikit-image')}."
        )
    with Image.open(Path(places[0]) / "data" / "ihc.png") as picture:
        return np.asarray(picture.convert("RGB"))


def demo_prompts() -> dict[str, Any]:
    """Make the demo's prompts: a FeatureCollection as QuPath writes it."""
    return {"type": "FeatureCollection", "features": [_feature(mark) for mark in MARKS]}


def _feature(mark: _Mark) -> dict[str, Any]:
    name, color = mark.path_class
    return {
        "type": "Feature",
        "id": mark.id,
        "geometry": {"type": mark.geometry, "coordinates": mark.coordinates},
        "properties": {
            "objectType": "annotation",
            "classification": {"name": name, "color": list(color)},
        },
    }
