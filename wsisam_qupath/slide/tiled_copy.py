"""Tiled copies of large plain images, made once by a process of its own and kept in the cache.

That process decodes row by row through libvips, within a few hundred MB whatever the image, and a
fault of a decoder ends it alone.
"""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..errors import SlideError
from ..files import cache_folder
from .plain_image import convert_to_rgb, open_image

SECONDS_MAX = 900
"""Longest time to make a copy: a PNG of 1e9 px takes about two minutes."""

_UNWRITABLE = re.compile(r"write failed|no space|quota|unable to open for write", re.IGNORECASE)
"""Messages of libvips if the copy cannot be written."""

_KEPT_BYTES = 20 << 30
"""Largest size of all copies together; above it the longest unused are removed."""


def find_or_make_tiled_copy(path: Path) -> Path:
    """Find the tiled copy of an image, or make it for this state of the file.

    Raises:
        SlideError: the image is damaged, or the copy cannot be written.
    """
    copy = _folder() / f"{_key(path)}.tif"
    if copy.exists():
        with suppress(OSError):
            os.utime(copy)
        return copy
    try:
        copy.parent.mkdir(parents=True, exist_ok=True)
        make_room(copy.parent, "*.tif")
    except OSError as exc:
        raise SlideError(f"The cache folder {copy.parent} cannot be written ({exc}).") from exc
    unfinished = copy.with_name(f"{copy.stem}-{os.getpid()}.part.tif")
    try:
        _convert(path, unfinished)
        unfinished.replace(copy)
    finally:
        with suppress(OSError):
            unfinished.unlink(missing_ok=True)
    return copy


def _folder() -> Path:
    return cache_folder() / "images"


def _key(path: Path) -> str:
    status = path.stat()
    state = f"{path}\0{status.st_size}\0{status.st_mtime_ns}"
    return hashlib.sha256(os.fsencode(state)).hexdigest()[:32]


def _convert(path: Path, copy: Path) -> None:
    command = [sys.executable, "-m", __name__, str(path), str(copy)]
    try:
        done = subprocess.run(
            command, capture_output=True, timeout=SECONDS_MAX, check=False, stdin=subprocess.DEVNULL
        )
    except subprocess.TimeoutExpired as exc:
        raise SlideError(
            f"{path} could not be converted within {SECONDS_MAX // 60} minutes. Convert it to a "
            "pyramidal, tiled OME-TIFF."
        ) from exc
    if done.returncode:
        lines = done.stderr.decode("utf-8", "replace").strip().splitlines()
        reason = lines[-1] if lines else f"its decoder ended with {done.returncode}"
        if _UNWRITABLE.search(reason):
            raise SlideError(
                f"{path} could not be converted ({reason}). Free space in {copy.parent}, or "
                "convert it to a pyramidal, tiled OME-TIFF."
            )
        raise SlideError(f"{path} is damaged ({reason}). Copy it again from its source.")


def make_room(folder: Path, pattern: str) -> None:
    """Remove the copies that were unused for longest, if all of them are too large."""
    copies = sorted(folder.glob(pattern), key=lambda one: one.stat().st_mtime, reverse=True)
    kept = 0
    for copy in copies:
        kept += copy.stat().st_size
        if kept > _KEPT_BYTES:
            copy.unlink(missing_ok=True)


def write_tiled_copy(path: Path, copy: Path) -> None:
    """Convert an image to a tiled, pyramidal TIFF of 8-bit RGB, on white.

    Raises:
        pyvips.Error: it is damaged.
    """
    import pyvips  # loads a shared library

    image = _loaded(path)
    if image.hasalpha():
        opaque = 65535 if image.format == "ushort" else 255
        image = image.flatten(background=[opaque] * (image.bands - 1))
    if image.format == "ushort":
        image = (image >> 8).cast("uchar")
    if image.bands == 1:
        image = image.bandjoin([image, image])
    image = image.copy(interpretation="srgb")
    if (image.bands, image.format) != (3, "uchar"):
        raise pyvips.Error(f"{image.bands} samples of type {image.format}")
    image.tiffsave(
        str(copy), tile=True, tile_width=512, tile_height=512, pyramid=True, bigtiff=True,
        compression="deflate", level=1, predictor="none", strip=True,
    )  # fmt: skip


def _loaded(path: Path) -> Any:
    """Load an image with libvips, row by row; what it lacks, such as BMP, with Pillow."""
    import pyvips  # loads a shared library

    try:
        return pyvips.Image.new_from_file(str(path), access="sequential", fail_on="truncated")
    except pyvips.Error:
        with open_image(path) as image:
            image.load()
            return pyvips.Image.new_from_array(convert_to_rgb(path, image))


if __name__ == "__main__":
    try:
        write_tiled_copy(Path(sys.argv[1]), Path(sys.argv[2]))
    except Exception as exc:  # noqa: BLE001 - the driver prints the last line as the reason
        sys.exit(" ".join(str(exc).split()))
