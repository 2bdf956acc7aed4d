"""What tests do to QuPath's process, in that process."""

import os
from typing import Any

from wsisam_qupath.qupath import pixels
from wsisam_qupath.slide import RgbArray


def crash_at_next_pixels() -> None:
    """Make the process end, without a word, as soon as it is to read pixels."""
    pixels._pixels = _end


def _end(image: Any) -> RgbArray:
    os._exit(1)
