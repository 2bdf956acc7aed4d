"""Open a slide for a command that writes beside it and not into a QuPath project."""

from __future__ import annotations

from rich.console import Console

from ..errors import PixelSizeError, SlideError
from ..report.progress import show_progress
from ..slide import Slide, open_slide


def open_for_reading(location: str, mpp: float | None, console: Console) -> Slide:
    """Open the slide, also if it is sound and QuPath without Bio-Formats shows noise; say so then.

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
