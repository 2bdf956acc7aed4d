"""Read what a TIFF file states in its tags, before any library interprets the pixels.

Only tags are read here, so a header that lies costs nothing.
"""

from __future__ import annotations

import logging
import struct
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import SlideError
from ..geometry import Mpp
from . import calibration
from .ome import OmeImage, parse_ome_images

MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
"""First bytes of TIFF and BigTIFF files."""

PAGES_MAX = 64
"""Most pages that are read. A pyramid has fewer than 20; a file with more is a stack."""

_SEGMENTS_MAX = 1 << 22
"""Most tiles or strips of one page; 500,000 px squared in tiles of 256 px have 3.8 million."""

_QUIET = logging.NullHandler()
"""Log handler that keeps tifffile from printing about damaged tags if nobody set up logging."""

_LENGTH_UNITS = {2: "inch", 3: "centimeter", 4: "mm", 5: "µm"}

_REDUCED, _MASK = 1, 4


@dataclass(frozen=True)
class TiffPage:
    """One image of a TIFF file, by its tags; numbers are those of the TIFF specification.

    Attributes:
        place: index of the page, then of the page within its SubIFDs.
        samples: samples per pixel; `bits` is 0 and `sample_format` 0 if samples differ.
        photometric: what the samples mean; None if it is not stated.
        segment_width_px, segment_height_px: size of a tile or strip; a strip is as wide as the
            image.
        segment_count: number of tiles or strips that the file has offsets for.
        stored_bytes: size of the longest tile or strip as stored in the file.
        end_byte: where the last tile or strip ends.
        has_gaps: whether tiles are missing.
    """

    place: tuple[int, ...]
    width_px: int
    height_px: int
    samples: int
    bits: int
    sample_format: int
    photometric: int | None
    compression: int
    predictor: int
    is_planar: bool
    is_tiled: bool
    segment_width_px: int
    segment_height_px: int
    segment_count: int
    stored_bytes: int
    end_byte: int
    has_gaps: bool
    extra_samples: tuple[int, ...]
    orientation: int
    bit_order: int
    subfile_type: int
    max_sample: int | None
    has_color_map: bool
    subsampling: tuple[int, ...] | None
    description: str
    children: tuple[TiffPage, ...] = ()

    @property
    def size_px(self) -> tuple[int, int]:
        """Width and height, px."""
        return self.width_px, self.height_px

    @property
    def is_reduced(self) -> bool:
        """Whether it is stated to be a smaller version of another page."""
        return bool(self.subfile_type & _REDUCED)

    @property
    def is_mask(self) -> bool:
        """Whether it is stated to be the transparency of another page."""
        return bool(self.subfile_type & _MASK)

    @property
    def segments_expected(self) -> int:
        """The number of tiles or strips that it takes to hold the image."""
        across = -(-self.width_px // self.segment_width_px)
        down = -(-self.height_px // self.segment_height_px)
        return across * down * (self.samples if self.is_planar else 1)

    @property
    def segment_bytes(self) -> int:
        """The size of one tile or strip, decoded."""
        samples = 1 if self.is_planar else self.samples
        pixels = self.segment_width_px * min(self.segment_height_px, max(self.height_px, 1))
        if self.is_tiled:
            pixels = self.segment_width_px * self.segment_height_px
        return pixels * samples * max(1, self.bits // 8)


@dataclass(frozen=True)
class TiffLayout:
    """What the tags of a whole file state.

    Attributes:
        pages: at most :data:`PAGES_MAX`, with their SubIFDs.
        has_more_pages: whether the file has more pages than that.
        ome: images that its OME-XML describes; empty if it has none that can be read.
        imagej_planes: number of planes that ImageJ's description states; 1 without one.
        mpp: µm/px of the first page, as stated.
    """

    path: Path
    file_bytes: int
    is_big: bool
    is_little_endian: bool
    pages: tuple[TiffPage, ...]
    has_more_pages: bool
    ome: tuple[OmeImage, ...]
    imagej_planes: int
    mpp: Mpp | None

    def every_page(self) -> Iterator[TiffPage]:
        """All pages, each followed by its SubIFDs."""
        for page in self.pages:
            yield page
            yield from page.children


def damage() -> tuple[type[Exception], ...]:
    """List what tifffile and its codecs raise on damage; found by damaging files at random."""
    import tifffile  # 0.15 s

    named = (tifffile.TiffFileError, struct.error, zlib.error)
    builtin = (OSError, ValueError, TypeError, LookupError, ArithmeticError, RuntimeError)
    return (*named, *builtin, ImportError, AttributeError, MemoryError)


def damaged(path: Path) -> SlideError:
    """Make the error for a file that is no sound TIFF."""
    return SlideError(f"{path} is a damaged or truncated TIFF file. Copy it again from its source.")


def open_file(path: Path) -> Any:
    """Open a `tifffile.TiffFile` that prints nothing.

    Raises:
        SlideError: its first directory cannot be read.
    """
    import tifffile  # 0.15 s

    logging.getLogger("tifffile").addHandler(_QUIET)
    try:
        return tifffile.TiffFile(path)
    except damage() as exc:
        raise damaged(path) from exc


def read_layout(path: Path) -> TiffLayout:
    """Read the tags of a file, and none of its pixels.

    Raises:
        SlideError: it is damaged.
    """
    with open_file(path) as tiff:
        try:
            return _layout(path, tiff)
        except damage() as exc:
            raise damaged(path) from exc


def _layout(path: Path, tiff: Any) -> TiffLayout:
    found: list[TiffPage] = []
    has_more = False
    for index, page in enumerate(_pages(tiff)):
        if index == PAGES_MAX:
            has_more = True
            break
        found.append(_page((index,), page))
    if not found:
        raise ValueError("no pages")
    description = found[0].description
    return TiffLayout(
        path=path,
        file_bytes=int(tiff.filehandle.size),
        is_big=bool(tiff.is_bigtiff),
        is_little_endian=tiff.byteorder == "<",
        pages=tuple(found),
        has_more_pages=has_more,
        ome=parse_ome_images(description) if "<OME" in description else (),
        imagej_planes=_imagej_planes(description),
        mpp=_stated_mpp(tiff, description),
    )


def _pages(tiff: Any) -> Iterator[Any]:
    """Parse the pages, each on its own, up to the first that cannot be parsed."""
    yield tiff.pages[0]
    index = 1
    while True:
        try:
            page = tiff.pages[index]
        except IndexError:
            return
        # What lies behind the image is not needed to show it.
        except damage():
            return
        yield page.aspage() if hasattr(page, "aspage") else page
        index += 1


def _page(place: tuple[int, ...], page: Any) -> TiffPage:
    tags = page.tags
    bits = _numbers(tags.valueof(258, default=1))
    formats = _numbers(tags.valueof(339, default=1))
    width, height = int(page.imagewidth), int(page.imagelength)
    is_tiled = bool(page.is_tiled)
    rows = int(tags.valueof(278, default=height) or 0)
    offsets, counts = page.dataoffsets, page.databytecounts
    if len(offsets) > _SEGMENTS_MAX:
        raise ValueError("too many tiles")
    ends = [offset + count for offset, count in zip(offsets, counts, strict=False) if count]
    kinds = tags.valueof(530, default=None)
    photometric = tags.valueof(262, default=None)
    children = _children(place, page) if len(place) == 1 else ()
    return TiffPage(
        place=place,
        width_px=width,
        height_px=height,
        samples=int(page.samplesperpixel),
        bits=bits[0] if len(set(bits)) == 1 and len(bits) in (1, page.samplesperpixel) else 0,
        sample_format=formats[0] if len(set(formats)) == 1 else 0,
        photometric=None if photometric is None else int(photometric),
        compression=int(page.compression),
        predictor=int(page.predictor),
        is_planar=int(page.planarconfig) == 2 and int(page.samplesperpixel) > 1,
        is_tiled=is_tiled,
        segment_width_px=int(page.tilewidth) if is_tiled else width,
        segment_height_px=int(page.tilelength) if is_tiled else min(rows, height) or height,
        segment_count=min(len(offsets), len(counts)),
        stored_bytes=max(counts, default=0),
        end_byte=max(ends, default=0),
        has_gaps=any(count == 0 for count in counts),
        extra_samples=_numbers(tags.valueof(338, default=())),
        orientation=int(_numbers(tags.valueof(274, default=1))[0]),
        bit_order=int(page.fillorder),
        subfile_type=int(page.subfiletype),
        max_sample=max(_numbers(tags.valueof(281, default=())), default=None),
        has_color_map=320 in tags,
        subsampling=None if kinds is None else _numbers(kinds),
        description=str(page.description or ""),
        children=children,
    )


def _children(place: tuple[int, ...], page: Any) -> tuple[TiffPage, ...]:
    if page.pages is None:
        return ()
    found = []
    for index in range(min(len(page.pages), PAGES_MAX)):
        child = page.pages[index]
        child = child.aspage() if hasattr(child, "aspage") else child
        found.append(_page((*place, index), child))
    return tuple(found)


def _numbers(value: object) -> tuple[int, ...]:
    if isinstance(value, Iterable) and not isinstance(value, (str, bytes)):
        return tuple(int(one) for one in value)
    return (int(value),)  # type: ignore[call-overload]


def _imagej_planes(description: str) -> int:
    if not description.startswith("ImageJ="):
        return 1
    stated = dict(line.split("=", 1) for line in description.splitlines() if "=" in line)
    number = stated.get("images", "1").strip()
    return int(number) if number.isdecimal() else 1


def _stated_mpp(tiff: Any, description: str) -> Mpp | None:
    """Read µm/px of the first page: from OME-XML, else from the resolution tags.

    OME comes first, as its only purpose is to state it; editors write resolutions unasked.
    """
    ome = calibration.from_ome(description) if "<OME" in description else None
    if ome is not None:
        return ome
    page = tiff.pages[0]
    x_per_unit, y_per_unit = page.resolution
    unit = _LENGTH_UNITS.get(page.tags.valueof(296, default=2), "none")
    if tiff.is_imagej:  # QuPath's ImageJ export; the tag then says "none"
        unit = str((tiff.imagej_metadata or {}).get("unit", unit))
    return calibration.from_resolution(x_per_unit, y_per_unit, unit)
