"""Opens a slide with OpenSlide in a process that may crash; see :mod:`.probe`.

Run as a file and without this package, which would take longer to import than the slide to open.
"""

from __future__ import annotations

import os
import sys

_ADDRESS_SPACE_BYTES = 4 << 30
"""What the process may take, where the system can limit it."""

_REFUSED = 3
"""Exit status where the library itself says that it cannot open the file."""


def try_to_open(path: str) -> int:
    """Open a slide and read a corner of each of its levels; return the exit status."""
    import openslide  # in the process that may crash

    try:
        with openslide.OpenSlide(path) as slide:
            for level in range(slide.level_count):
                slide.read_region((0, 0), level, (16, 16))
    except (openslide.OpenSlideError, OSError, ValueError):
        return _REFUSED
    return 0


def limit_memory() -> None:
    """Limit what this process may take, where the system can."""
    if os.name == "nt":
        return
    import resource  # POSIX only

    resource.setrlimit(resource.RLIMIT_AS, (_ADDRESS_SPACE_BYTES, _ADDRESS_SPACE_BYTES))


if __name__ == "__main__":
    sys.path.pop(0)  # the folder of this file, with modules that are meant for the package alone
    limit_memory()
    sys.exit(try_to_open(sys.argv[1]))
