"""Downloads open data sets with torch-em's loaders, each file wholly or not at all."""

from __future__ import annotations

import contextlib
import shutil
import struct
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

from filelock import FileLock

from wsisam_qupath.errors import OutputError, PromptError
from wsisam_qupath.report.progress import stderr_console

from ..extra import require_open_data
from .open_data import find_slide
from .open_sets import OpenSet

_COARSE_LEVEL = 5
"""Of CAMELYON's slides, torch-em makes a copy that nobody here reads: at a scale that is quick."""

_FAILURES = (
    *(OSError, RuntimeError, ValueError, AssertionError, EOFError, LookupError),
    *(struct.error, zlib.error, zipfile.BadZipFile, tarfile.TarError),
)
"""What torch-em's loaders raise where a server does not answer, or not with what was expected."""


def fetch_open_set(folder: Path, name: str, known: OpenSet, *, slides: Sequence[str] = ()) -> None:
    """Download a set into a folder unless it is there; of sets of slides, those that are not.

    What is under way lies in a folder beside it, with ``.part`` after its name. One process
    downloads at a time, and others wait for it.

    Args:
        name: of torch-em's loader.
        slides: of a set of slides, by their names without ending.

    Raises:
        DeviceError: torch-em, or a package that it needs, is not installed.
        PromptError: the download failed.
        OutputError: the folder cannot be written.
    """
    if not _wanted(folder, known, slides):
        return
    part = folder.with_name(f"{folder.name}.part")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{part}.lock"):
            for slide in _wanted(folder, known, slides):
                _announce(folder, name, known, slide)
                _fetch(folder, part, name, known, slide)
    except OSError as exc:
        raise OutputError(f"{folder} cannot be written ({exc}). Name another folder.") from exc


def _wanted(folder: Path, known: OpenSet, slides: Sequence[str]) -> list[str | None]:
    """What is to be downloaded: slides, or None for the whole set."""
    if known.has_slides:
        return [slide for slide in slides if find_slide(folder, known, slide) is None]
    return [] if folder.exists() else [None]


def _announce(folder: Path, name: str, known: OpenSet, slide: str | None) -> None:
    what = name if slide is None else f"{slide} of {name}"
    stderr_console().print(
        f"Downloading {what} with torch-em into {folder}, once. Source: {known.source}. "
        f"License: {known.license}.",
        soft_wrap=True,
        highlight=False,
        markup=False,
    )


def _fetch(folder: Path, part: Path, name: str, known: OpenSet, slide: str | None) -> None:
    if not known.keeps_parts:
        shutil.rmtree(part, ignore_errors=True)  # of a process that was killed
    try:
        # torch-em tells of its success on stdout, where only results belong.
        with contextlib.redirect_stdout(sys.stderr), require_open_data():
            _loader(name)(part, slide)
    except _FAILURES as exc:
        if not known.keeps_parts:
            shutil.rmtree(part, ignore_errors=True)
        goes_on = "goes on" if known.keeps_parts else "begins again"
        raise PromptError(
            f"The download of {slide or name} failed ({exc}). Look at the network and the disk, "
            f"and run the command again: it {goes_on} there. Or take the set out of the collection."
        ) from exc
    if slide is None:
        part.rename(folder)
    else:
        _move_slide(part, folder, known, slide)


def _move_slide(part: Path, folder: Path, known: OpenSet, slide: str) -> None:
    """Move a slide after its mask, so that one that is there is whole."""
    image = find_slide(part, known, slide)
    if image is None:
        raise PromptError(
            f"torch-em put {slide} where it is not expected. Install torch-em 0.10.9, and run the "
            "command again."
        )
    for path in (known.mask_of(image), image):
        target = folder / path.relative_to(part)
        target.parent.mkdir(parents=True, exist_ok=True)
        path.replace(target)
    shutil.rmtree(part)


def _loader(name: str) -> Callable[[Path, str | None], object]:
    """What downloads a set into a folder; of slides, one.

    Raises:
        ModuleNotFoundError: torch-em is not installed.
    """
    from torch_em.data.datasets.histopathology import (
        camelyon,
        crc_epithelium,
        gleason2019,
        hashi,
        ocelot,
        tevg,
        tiger,
    )

    def gleason(path: Path, _: str | None) -> None:
        for split in ("train", "val", "test"):
            gleason2019.get_gleason2019_data(str(path), split, download=True)

    loaders: dict[str, Callable[[Path, str | None], object]] = {
        "camelyon16": lambda path, slide: camelyon.get_camelyon16_data(
            str(path), sample_ids=[slide], resolution_level=_COARSE_LEVEL, download=True
        ),
        "camelyon17": lambda path, slide: camelyon.get_camelyon17_data(
            str(path), sample_ids=[slide], resolution_level=_COARSE_LEVEL, download=True
        ),
        "crc_epithelium": lambda path, _: crc_epithelium.get_crc_epithelium_data(
            str(path), stains="HE", download=True
        ),
        "gleason2019": gleason,
        "hashi": lambda path, _: hashi.get_hashi_data(str(path), download=True),
        "ocelot": lambda path, _: ocelot.get_ocelot_data(str(path), download=True),
        # Each fold has all images, and torch-em knows the checksum of the first.
        "tevg": lambda path, _: tevg.get_tevg_data(str(path), fold=1, download=True),
        "tiger": lambda path, _: tiger.get_tiger_data(str(path), download=True),
    }
    return loaders[name]
