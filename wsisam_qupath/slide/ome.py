"""What OME-XML says of the images of a file: their sizes, planes, and where their pixels are."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

XML_CHARACTERS_MAX = 64 << 20
"""Longest OME-XML that is read, characters; with annotations of every cell it has some 10 MB."""


@dataclass(frozen=True)
class OmeImage:
    """One image, or series, of a file.

    Attributes:
        planes: number of z-slices times that of time points.
        channels: numbers per pixel, over all planes that make up the image.
        first_page: index of the page that its pixels begin in.
        files: names of the files that hold its pixels, unless they are stated to be this file.
    """

    width_px: int
    height_px: int
    planes: int
    channels: int
    first_page: int
    files: frozenset[str]


def parse_ome_images(xml: str) -> tuple[OmeImage, ...]:
    """Parse the images in the order of the document; none if it cannot be read."""
    from xml.etree import ElementTree  # for OME-TIFF alone

    if len(xml) > XML_CHARACTERS_MAX:
        return ()
    try:
        root = ElementTree.fromstring(xml)
        own = root.get("UUID")
        return tuple(_image(pixels, own) for pixels in root.iterfind(".//{*}Image/{*}Pixels"))
    except (ElementTree.ParseError, ValueError):
        return ()


def _image(pixels: Element, own_uuid: str | None) -> OmeImage:
    sizes = {axis: int(pixels.get(f"Size{axis}", "1")) for axis in "XYZCT"}
    data = pixels.find("{*}TiffData")
    return OmeImage(
        width_px=sizes["X"],
        height_px=sizes["Y"],
        planes=sizes["Z"] * sizes["T"],
        channels=sizes["C"],
        first_page=0 if data is None else int(data.get("IFD", "0")),
        files=frozenset(_files(pixels, own_uuid)),
    )


def _files(pixels: Element, own_uuid: str | None) -> Iterator[str]:
    """List the files that hold the pixels; a file that was renamed still has the same UUID."""
    for uuid in pixels.iterfind("{*}TiffData/{*}UUID"):
        name = uuid.get("FileName")
        if name is not None and (own_uuid is None or (uuid.text or "").strip() != own_uuid.strip()):
            yield name
