"""What commands that read a slide and write files beside it have in common."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from rich.console import Console

from .. import __version__
from ..errors import OptionError, PixelSizeError, SlideError
from ..geometry import Mpp
from ..inference.chosen import ChosenModel
from ..report.progress import show_progress
from ..slide import Slide, open_slide


def open_for_reading(location: str, mpp: float | Mpp | None, console: Console) -> Slide:
    """Open the slide; a sound file that QuPath without Bio-Formats shows as noise is only reported.

    Raises:
        SlideError: it cannot be read, or not as QuPath shows it.
    """
    with show_progress(console, "Opening the slide"):
        try:
            return open_slide(location, mpp=mpp)
        except PixelSizeError:
            raise
        except SlideError as refused:
            try:
                slide = open_slide(location, mpp=mpp, as_qupath=False)
            except PixelSizeError:
                raise
            except SlideError:
                raise refused from None
    console.print(
        f"{slide.location} has strips compressed with JPEG, which QuPath shows as noise unless it "
        "has Bio-Formats. The pixels were read as they are stored.",
        markup=False,
    )
    return slide


def describe_model(model: ChosenModel) -> str:
    """Describe what answers, so that unfinished results of something else are not taken for it."""
    adapter_sha256 = model.adapter and model.adapter.sha256
    in_int8 = " int8" * (model.precision == "int8")
    return f"{model.base.sha256} {adapter_sha256} {__version__}{in_int8}"


def check_outputs(
    inputs: Mapping[str, Path | None],
    *,
    output: Path | None,
    overlay: Path | None,
    labels: Path | None = None,
) -> None:
    """Check that results replace neither the inputs nor each other.

    Args:
        inputs: files that are read, by what they are.
        output, overlay, labels: files to write, given by the options of these names.

    Raises:
        OptionError: one would.
    """
    used = dict(inputs)
    for option, path in (("output", output), ("labels", labels), ("overlay", overlay)):
        for what, other in used.items():
            if path is not None and other is not None and _is_same(path, other):
                raise OptionError(option, f"{path} would replace the {what}: choose another file.")
        used["outlines" if option == "output" else option] = path


def _is_same(path: Path, other: Path) -> bool:
    try:
        return path.samefile(other)
    except OSError:  # one of them is not there yet
        return os.path.realpath(path) == os.path.realpath(other)
