"""Files that ``segment`` writes: outlines in the format of their names, and masks of labels."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterable
from pathlib import Path

from shapely.geometry import shape

from ..errors import OptionError, OutputError
from ..geojson import Feature, encode_features, write_features
from ..geojson.geoparquet import check_geoparquet, write_geoparquet
from ..options import FORMAT_ENDINGS, LABELS_ENDING, OutlineFormat
from ..slide import Slide
from ..slide.labels import write_labels


def read_format(path: Path) -> OutlineFormat:
    """The format that the name of a file says; GeoJSON where it says none."""
    name = path.name.lower()
    if name.endswith(".gz"):
        return "geojson.gz"
    return "geoparquet" if name.endswith((".parquet", ".geoparquet")) else "geojson"


def make_labels_path(outlines: Path) -> Path:
    """Make the path of the mask of labels beside a file of outlines: another ending."""
    endings = sorted(FORMAT_ENDINGS.values(), key=len, reverse=True)
    name = outlines.name
    stem = next((name.removesuffix(one) for one in endings if name.endswith(one)), name)
    return outlines.with_name(f"{stem}{LABELS_ENDING}")


def check_format(file: Path | None, wanted: OutlineFormat | None) -> None:
    """Check that outlines can be written in the wanted format.

    Args:
        file: the file to write; None is stdout.
        wanted: format that the user asked for; None where the name of the file decides.

    Raises:
        OptionError: the name says another format, or the format needs a file or a package.
    """
    if file is None:
        if wanted not in (None, "geojson"):
            raise OptionError("format", f"{wanted} needs a file: name one as the output.")
        return
    said = read_format(file)
    if wanted is not None and wanted != said:
        ending = FORMAT_ENDINGS[wanted]
        raise OptionError(
            "format", f"{file} says {said} by its name: let the name end in {ending} for {wanted}."
        )
    if said == "geoparquet":
        check_geoparquet()


def write_outlines(file: Path | None, features: Iterable[Feature]) -> None:
    """Write outlines in the format that the name of the file says; to stdout without a file.

    Raises:
        OptionError: pyarrow is not installed, and GeoParquet needs it.
        OutputError: they cannot be written there.
    """
    if file is None:
        _print(features)
    elif read_format(file) == "geoparquet":
        write_geoparquet(file, features)
    else:
        write_features(file, features)


def write_labels_of(path: Path, features: Iterable[Feature], slide: Slide) -> None:
    """Write a mask with the numbers of outlines, counted from 1 in their order.

    Raises:
        OutputError: it cannot be written there.
    """
    outlines = [shape(feature["geometry"]) for feature in features]
    size = {"width_px": slide.width_px, "height_px": slide.height_px}
    write_labels(path, outlines, **size, mpp=slide.mpp)


def _print(features: Iterable[Feature]) -> None:
    """Write to stdout and flush at once: an error while Python exits is too late to report."""
    if sys.stdout is None:
        raise OutputError("There is no stdout to write to. Name a file with -o.")
    try:
        sys.stdout.writelines(encode_features(features))
        sys.stdout.flush()
    except OSError as exc:
        if exc.errno == errno.EPIPE:  # the reader has gone, which is no error: see main()
            raise
        # What is left in the buffer would be tried again, and fail again, on exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise OutputError(
            f"stdout takes no more ({exc.strerror}). Make room, or name a file with -o."
        ) from exc
