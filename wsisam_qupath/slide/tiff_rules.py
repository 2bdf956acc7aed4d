"""Decide how a TIFF file that no scanner's vendor made is read, or why it is not.

The measure is what QuPath shows. Where QuPath shows something else than the tags mean, where the
tags contradict each other, or where nothing says how numbers become colors, the file is refused: an
outline on other pixels than the user sees is worse than none. ``docs/formats.md`` has the table.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from ..errors import SlideError
from .budget import MIB, SEGMENT_BYTES_MAX
from .tiff_layout import TiffLayout, TiffPage, damaged

_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _PALETTE, _CMYK, _YCBCR = 0, 1, 2, 3, 5, 6
_NONE, _JPEG = 1, 7

_PHOTOMETRICS = {
    0: "WhiteIsZero", 1: "BlackIsZero", 2: "RGB", 3: "palette", 4: "transparency mask", 5: "CMYK",
    6: "YCbCr", 8: "CIE L*a*b*", 9: "ICC L*a*b*", 10: "ITU L*a*b*", 32803: "color filter array",
}  # fmt: skip

_OPENSLIDE_CODECS = frozenset({1, 5, 7, 8, 32773, 32946, 50000})
"""Compressions that OpenSlide reads: none, LZW, JPEG, Deflate (two numbers), PackBits and
Zstandard."""

_STRIP_CODECS = frozenset({1, 5, 8, 32773, 32946})
"""Compressions that ImageJ reads, through which QuPath reads strips."""

_OTHER_CODECS = frozenset({34712, 34887, 34925, 34933, 50000, 50001, 50002})
"""Compressions that imagecodecs reads: JPEG 2000, LERC, LZMA, PNG, Zstandard, WebP and JPEG XL."""

_CODEC_NAMES = {
    2: "CCITT", 3: "CCITT", 4: "CCITT", 6: "old-style JPEG", 33003: "JPEG 2000 with YCbCr colors",
    33005: "Aperio's JPEG 2000", 34892: "lossy DNG", 33007: "ALT JPEG", 34933: "PNG", 50001: "WebP",
    50002: "JPEG XL", 7: "JPEG", 34712: "JPEG 2000",
}  # fmt: skip

_WIDE_MIN = 1 << 14
"""Least maximum of 16-bit samples; below it they are taken for a camera's with fewer bits."""

_EXPORT = "Export it as a tiled 8-bit RGB TIFF without compression, or as OME-TIFF."


class Via(enum.Enum):
    """The library that decodes the pixels."""

    OPENSLIDE = "openslide"
    TIFFFILE = "tifffile"


@dataclass(frozen=True)
class Reading:
    """How a file is read.

    Attributes:
        levels: pages that show the image, the finest first.
        is_white_zero: whether larger samples are darker.
        is_wide: whether samples have 16 bits, so that their range has to be looked at.
    """

    via: Via
    levels: tuple[TiffPage, ...]
    is_white_zero: bool = False
    is_wide: bool = False


def check_sizes(layout: TiffLayout) -> None:
    """Check that all tiles and strips can be decoded within the budget, also of vendors' files.

    Raises:
        SlideError: a header states more than is ever decoded.
    """
    for page in layout.every_page():
        if page.is_tiled and page.segment_bytes > SEGMENT_BYTES_MAX:
            raise SlideError(
                f"{layout.path} states tiles of {page.segment_width_px} x "
                f"{page.segment_height_px} px, {page.segment_bytes / MIB:,.0f} MB each, more than "
                f"the {SEGMENT_BYTES_MAX // MIB} MB that are decoded at a time. If it is sound, "
                "export it with tiles of 512 x 512 px."
            )


def decide(layout: TiffLayout, *, openslide_opens: bool, as_qupath: bool = True) -> Reading:
    """Decide how to get the pixels that QuPath shows of this file.

    Args:
        openslide_opens: whether OpenSlide knows the file as a generic TIFF.
        as_qupath: whether a file is refused that QuPath shows as noise. Data sets that were never
            in QuPath have pixels all the same.

    Raises:
        SlideError: they cannot; the message says what the file is and how to export it.
    """
    page = layout.pages[0]
    _check_structure(layout, page)
    _check_images(layout, page)
    reason = next(_reasons(page), None)
    if reason is None:
        reason = _tile_reason(page) if page.is_tiled else _strip_reason(page, as_qupath)
    if reason is not None:
        raise _refusal(layout, reason)
    levels = _levels(layout, page)
    use_openslide = (
        openslide_opens
        and page.is_tiled
        and page.compression in _OPENSLIDE_CODECS
        and not _has_alpha(page)
        and not (layout.ome and _is_simple(page))
    )
    if not use_openslide and not _is_simple(page):
        raise _refusal(layout, f"it has {_kind(page)} that cannot be read here")
    if not use_openslide:
        _check_segments(layout, page)
    return Reading(
        Via.OPENSLIDE if use_openslide else Via.TIFFFILE,
        levels,
        is_white_zero=page.photometric == _WHITE_IS_ZERO,
        is_wide=page.bits == 16,
    )


def _refusal(layout: TiffLayout, reason: str) -> SlideError:
    return SlideError(f"{layout.path} cannot be read as QuPath shows it: {reason}. {_EXPORT}")


def _check_structure(layout: TiffLayout, page: TiffPage) -> None:
    """Check that the file holds what its first page says.

    Raises:
        SlideError: it does not.
    """
    is_sound = (
        page.width_px > 0
        and page.height_px > 0
        and page.segment_width_px > 0
        and page.segment_height_px > 0
        and 0 < page.end_byte <= layout.file_bytes
        and page.segment_count >= page.segments_expected
    )
    if not is_sound:
        raise damaged(layout.path)


def _check_images(layout: TiffLayout, page: TiffPage) -> None:
    """Check that the first page is the image, and the only one of its kind.

    Raises:
        SlideError: it is one of a stack, or something larger lies behind it.
    """
    others = [one for one in layout.pages[1:] if not one.is_mask]
    everything = [*others, *page.children, *(c for one in others for c in one.children)]
    larger = [one for one in everything if one.width_px * one.height_px > _area(page)]
    if larger:
        sizes = ", ".join(f"{one.width_px} x {one.height_px}" for one in (page, *larger[:3]))
        raise SlideError(
            f"{layout.path} holds several images ({sizes} px), and QuPath shows the first, which "
            "is not the largest. Export the image to segment from QuPath as OME-TIFF, alone."
        )
    alike = [one for one in others if one.size_px == page.size_px]
    planes = max(layout.imagej_planes, 1 + len(alike))
    if planes > 1 or layout.has_more_pages:
        raise SlideError(
            f"{layout.path} is a stack of {planes} planes or channels. Export the plane to segment "
            "as an RGB image."
        )
    if layout.ome:
        _check_ome(layout, page)


def _check_ome(layout: TiffLayout, page: TiffPage) -> None:
    image = layout.ome[0]
    if image.planes > 1 or image.channels > page.samples:
        raise SlideError(
            f"{layout.path} is a stack of planes or channels: its OME-XML states {image.planes} "
            f"planes of {image.channels} channels. Export the plane to segment as an RGB image."
        )
    elsewhere = [name for name in image.files if name.lower() != layout.path.name.lower()]
    if elsewhere:
        raise SlideError(
            f"{layout.path} says that its pixels are in {elsewhere[0]}. Open that file, or export "
            "the image from QuPath as one OME-TIFF."
        )
    if image.first_page != 0 or (image.width_px, image.height_px) != page.size_px:
        raise SlideError(
            f"{layout.path} states {image.width_px} x {image.height_px} px in page "
            f"{image.first_page} in its OME-XML, and holds {page.width_px} x {page.height_px} px "
            "in its first page. Export it from QuPath as OME-TIFF."
        )


def _area(page: TiffPage) -> int:
    return page.width_px * page.height_px


def _reasons(page: TiffPage) -> Iterator[str]:
    """List reasons why a file is never read, neither in tiles nor in strips."""
    if page.sample_format == 3:
        yield f"it has floating-point pixels ({page.bits} bits), which have no fixed range"
    if page.sample_format not in (1, 4):
        yield "its samples are signed or of several types, which no color is defined for"
    if page.bits not in (8, 16):
        yield f"its samples have {page.bits or 'different numbers of'} bits"
    if page.bits == 16 and page.max_sample is not None and page.max_sample < _WIDE_MIN:
        yield f"its 16-bit samples reach only to {page.max_sample} of 65535, so it would be black"
    if page.photometric is None:
        yield "it does not state what its samples mean (no PhotometricInterpretation)"
    if page.bit_order != 1:
        yield "its bits are stored in reverse order"
    if page.predictor not in (1, 2) or (page.predictor == 2 and page.compression == _NONE):
        yield f"it states predictor {page.predictor}, which its compression does not have"
    if page.photometric == _BLACK_IS_ZERO and page.samples >= 3 and not _is_shown_as_rgb(page):
        yield (
            f"it has {page.samples} samples per pixel that it says are gray, where programs show "
            "colors or the first sample alone"
        )
    if page.photometric == _WHITE_IS_ZERO and page.samples > 1:
        yield f"it has {page.samples} samples per pixel that it says are inverted gray"


def _tile_reason(page: TiffPage) -> str | None:
    """Say why tiles are not read; QuPath reads them through OpenSlide."""
    if page.orientation > 1:
        return (
            f"its tiles are stored turned (orientation {page.orientation}), and QuPath turns each "
            "of them in its place or none"
        )
    kinds: dict[int, Callable[[TiffPage], bool]] = {
        _BLACK_IS_ZERO: lambda p: p.samples == 1 and (p.bits == 8 or _has_whole_tiles(p)),
        _WHITE_IS_ZERO: lambda p: p.samples == 1 and (p.bits == 8 or _has_whole_tiles(p)),
        _RGB: lambda p: p.samples in (3, 4),
        _PALETTE: lambda p: p.samples == 1 and p.bits == 8 and p.has_color_map,
        _CMYK: lambda p: p.samples == 4 and p.bits == 8,
        _YCBCR: lambda p: p.samples == 3 and p.bits == 8 and _has_whole_chroma(p),
    }
    is_known = kinds.get(page.photometric or 0)
    if is_known is None or not is_known(page):
        return f"it has {_kind(page)}"
    if page.compression not in _OPENSLIDE_CODECS | _OTHER_CODECS:
        return f"its tiles are compressed with {_codec(page)}"
    return None


def _strip_reason(page: TiffPage, as_qupath: bool) -> str | None:
    """Say why strips are not read; QuPath reads them through ImageJ."""
    if page.compression == _JPEG:
        return _jpeg_strip_reason(page, as_qupath)
    if page.compression not in _STRIP_CODECS | _OTHER_CODECS:
        return f"its strips are compressed with {_codec(page)}"
    is_gray = page.photometric in (_BLACK_IS_ZERO, _WHITE_IS_ZERO) and page.samples == 1
    is_rgb = page.photometric == _RGB and page.samples == 3
    is_rgba = page.photometric == _RGB and page.samples == 4 and page.bits == 8
    is_rgba = is_rgba and not page.is_planar and page.compression in _STRIP_CODECS
    is_shown = is_gray or is_rgb or is_rgba or _is_shown_as_rgb(page)
    return None if is_shown else f"it has {_kind(page)} in strips"


def _jpeg_strip_reason(page: TiffPage, as_qupath: bool) -> str | None:
    if as_qupath:
        return "its strips are compressed with JPEG, which QuPath shows as noise"
    is_known = page.photometric in (_YCBCR, _RGB, _BLACK_IS_ZERO) and _is_simple(page)
    return None if is_known and page.bits == 8 else f"it has {_kind(page)} in strips"


def _is_shown_as_rgb(page: TiffPage) -> bool:
    """Whether ImageJ shows strips as RGB: all with three bytes per pixel, even gray ones."""
    return (
        not page.is_tiled
        and page.photometric == _BLACK_IS_ZERO
        and page.samples == 3
        and page.bits == 8
        and page.compression in _STRIP_CODECS
    )


def _is_simple(page: TiffPage) -> bool:
    """Whether our own reader turns the samples into colors."""
    if page.samples == 1:
        return page.photometric in (_BLACK_IS_ZERO, _WHITE_IS_ZERO)
    if _is_shown_as_rgb(page):
        return True
    if page.photometric == _YCBCR:
        return page.compression == _JPEG
    if page.compression == _JPEG and page.photometric == _RGB:
        return page.samples == 3
    return page.photometric == _RGB and page.samples in (3, 4)


def _has_whole_chroma(page: TiffPage) -> bool:
    """Whether each pixel has its own color, or JPEG decodes it; unstated is two by two."""
    return not page.is_planar and (page.compression == _JPEG or page.subsampling == (1, 1))


def _has_alpha(page: TiffPage) -> bool:
    """Whether there is transparency: mistaking its kind, OpenSlide loses colors."""
    return page.photometric == _RGB and page.samples == 4


def _has_whole_tiles(page: TiffPage) -> bool:
    """Whether no tile reaches beyond the image: there libtiff misplaces its 16-bit gray."""
    return page.width_px % page.segment_width_px == 0


def _levels(layout: TiffLayout, page: TiffPage) -> tuple[TiffPage, ...]:
    """List the page and its smaller versions, which have the same shape and kind of samples."""
    smaller = [*page.children, *(one for one in layout.pages[1:] if one.is_reduced)]
    levels = [page]
    for one in sorted(smaller, key=_area, reverse=True):
        if one.width_px < levels[-1].width_px and _shows(one, page, layout.file_bytes):
            levels.append(one)
    return tuple(levels)


def _shows(level: TiffPage, page: TiffPage, file_bytes: int) -> bool:
    fields = ("samples", "bits", "sample_format", "photometric", "is_planar", "bit_order")
    height = level.width_px * page.height_px / page.width_px
    return (
        all(getattr(level, name) == getattr(page, name) for name in fields)
        and abs(level.height_px - height) <= max(2.0, 0.01 * height)
        and 0 < level.height_px <= page.height_px
        and level.compression in _OPENSLIDE_CODECS | _OTHER_CODECS
        and level.segment_count >= level.segments_expected
        and level.end_byte <= file_bytes
    )


def _check_segments(layout: TiffLayout, page: TiffPage) -> None:
    """Check that each strip or tile can be decoded within the budget.

    Raises:
        SlideError: one is too large. Rows of a strip that is not compressed can be read alone.
    """
    is_read_by_rows = not page.is_tiled and page.compression == _NONE
    needed = max(page.stored_bytes, 0 if is_read_by_rows else page.segment_bytes)
    if not is_read_by_rows and needed > SEGMENT_BYTES_MAX:
        raise SlideError(
            f"{layout.path} is compressed in one piece of {page.segment_width_px} x "
            f"{page.segment_height_px} px ({needed / MIB:,.0f} MB), which would have to be decoded "
            "as a whole for each region. Export it as a tiled TIFF, or as OME-TIFF."
        )


def _kind(page: TiffPage) -> str:
    """Describe what the pixels are."""
    color = _PHOTOMETRICS.get(page.photometric or 0, f"kind {page.photometric}")
    planes = " in separate planes" if page.is_planar else ""
    samples = "one sample" if page.samples == 1 else f"{page.samples} samples"
    return f"{samples} of {page.bits} bits per pixel, color {color}{planes}"


def _codec(page: TiffPage) -> str:
    return _CODEC_NAMES.get(page.compression, f"a scheme that has the number {page.compression}")
