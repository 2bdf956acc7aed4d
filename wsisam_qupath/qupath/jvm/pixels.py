"""Reads slides that only QuPath can open: CZI or VSI (Bio-Formats), a plane of a stack.

The functions that take a :class:`Source` run in QuPath's process; :func:`open_through_qupath` and
its reader are used outside of it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from ...errors import ImageError, MissingSlideError, PixelSizeError, QuPathError, SlideError
from ...geometry import Mpp
from ...slide import Bounds, RgbArray, Slide, SlideIdentity, SlideReference, Window, calibration
from ..files.entries import ImageEntry
from .image_data import find_image, make_server_builder
from .java import translate_java_errors

if TYPE_CHECKING:
    from .process import QuPathProcess

    JavaObject: TypeAlias = Any

_OPEN_MAX = 4
"""Maximum number of image servers that QuPath's process keeps open."""

_CHECK_THE_SLIDE = "check that the slide is there, and that QuPath shows it"


@dataclass(frozen=True)
class Source:
    """The image of a project that QuPath is to open.

    Attributes:
        project: absolute path of the ``.qpproj`` file.
        entry_id: entry id of the image.
        slide: current path of its file; None for the path in the project.
    """

    project: Path
    entry_id: str
    slide: Path | None


@dataclass(frozen=True)
class ServerDescription:
    """Metadata of an image as QuPath reads them.

    Attributes:
        is_rgb: whether pixels are 8-bit RGB, not single channels.
        level_sizes_px: (width, height) of each level, the finest first.
        mpp: pixel size of level 0; None if QuPath states none, or an impossible one.
    """

    is_rgb: bool
    level_sizes_px: tuple[tuple[int, int], ...]
    mpp: Mpp | None
    z_count: int
    t_count: int


@dataclass(frozen=True)
class Part:
    """A region of one level of one plane, px of the level."""

    level: int
    x: int
    y: int
    width: int
    height: int
    z: int
    t: int


def open_through_qupath(
    process: QuPathProcess,
    project: Path,
    entry: ImageEntry,
    *,
    z: int = 0,
    t: int = 0,
    mpp: float | Mpp | None = None,
    mpp_if_unstated: float | None = None,
) -> Slide:
    """Open an image of a project as QuPath does: its reader, with the project's arguments.

    The slide can be read while the process runs. No other process can open it: `reference` states
    where its file is, but our own readers may not open it, or show it differently. `identity`
    distinguishes images and planes of one file.

    Args:
        process: reads the pixels, in turn with its other work.
        project: the ``.qpproj`` file.
        entry: the image.
        z, t: the plane, both counted from 0.
        mpp: µm per level-0 pixel, instead of what QuPath states.
        mpp_if_unstated: µm per level-0 pixel if neither `mpp` nor QuPath states it.

    Raises:
        ImageError: QuPath cannot open it, it is not RGB, or has no such plane.
        MissingSlideError: its slide is not there.
        PixelSizeError: its µm/px is not stated anywhere.
        OptionError: a µm/px is outside 0.01 to 100.
        QuPathError: QuPath itself failed.
    """
    own_mpp = None if mpp is None else calibration.override(mpp)
    spare_mpp = None if mpp_if_unstated is None else calibration.override(mpp_if_unstated)
    if entry.slide is not None and not entry.slide.exists():
        raise MissingSlideError(
            f"{entry.slide} does not exist: put the slide back, or map its old folder to the one "
            "where it is now."
        )
    source = Source(project.absolute(), entry.id, entry.slide)
    found = process.run(describe_server, source)
    _check(found, entry, z, t)
    final_mpp = own_mpp or found.mpp or spare_mpp
    if final_mpp is None:
        raise PixelSizeError(
            f"The image {entry.name} states no pixel size: set its pixel width in QuPath (Image "
            "tab) and save, or give its µm per pixel as mpp, e.g. 0.25 for a 40x scan."
        )
    location = entry.uri if entry.slide is None else str(entry.slide.absolute())
    return Slide(
        QuPathReader(process, source, found, entry.name, z, t),
        mpp=final_mpp,
        reference=SlideReference(location, own_mpp if found.mpp else final_mpp),
        identity=_identity(f"{location}#{source.project}#{entry.id}#z={z}#t={t}", entry.slide),
    )


def _check(found: ServerDescription, entry: ImageEntry, z: int, t: int) -> None:
    if not found.is_rgb:
        raise ImageError(
            f"The image {entry.name} is not 8-bit RGB, so no model here can read it: leave it out."
        )
    if not (0 <= z < found.z_count and 0 <= t < found.t_count):
        raise ImageError(
            f"The image {entry.name} has {found.z_count} z-slices and {found.t_count} time points, "
            f"hence no z {z}, t {t}: move the annotations that lie there, in QuPath."
        )


def _identity(location: str, slide: Path | None) -> SlideIdentity:
    try:
        status = None if slide is None else slide.stat()
    except OSError:  # which QuPath opened nevertheless
        status = None
    if status is None:
        return SlideIdentity(location, 0, 0)
    return SlideIdentity(location, status.st_size, status.st_mtime_ns)


class QuPathReader:
    """Reads one plane through QuPath's process; see :class:`..slide.Reader`."""

    def __init__(
        self,
        process: QuPathProcess,
        source: Source,
        found: ServerDescription,
        name: str,
        z: int,
        t: int,
    ) -> None:
        """Use :func:`open_through_qupath` instead."""
        self.name = "QuPath"
        self.level_sizes_px = found.level_sizes_px
        self.bounds = Bounds(0, 0, *found.level_sizes_px[0])
        self.stated_mpp = found.mpp
        # `read` raises SlideError itself: a crash of Java is no damage to the file.
        self.foreign_errors: tuple[type[Exception], ...] = ()
        self._process = process
        self._source = source
        self._image_name = name
        self._z, self._t = z, t

    def read(self, level: int, x: int, y: int, width: int, height: int) -> Window:
        """See :class:`..slide.Reader`. Pixels that QuPath does not have are white.

        Raises:
            SlideError: QuPath cannot read it, or its process ended.
        """
        part = Part(level, x, y, width, height, self._z, self._t)
        try:
            rgb = self._process.run(read_region, self._source, part)
        except (QuPathError, ImageError) as exc:
            raise SlideError(
                f"The image {self._image_name} cannot be read at x {x}, y {y} of level {level}. "
                f"{exc}"
            ) from exc
        return Window(rgb, x, y)

    def close(self) -> None:
        """Do nothing: QuPath's process closes the images that were not used recently."""


_servers: dict[Source, JavaObject] = {}
"""Open servers in QuPath's process, the last used last; used by only one thread there."""


def describe_server(source: Source) -> ServerDescription:
    """Open an image, unless it is open, and read its metadata.

    Raises:
        ImageError: QuPath cannot open it.
    """
    _close(source)
    server = _open_server(source)
    metadata, pixel_size = server.getMetadata(), server.getPixelCalibration()
    levels = [metadata.getLevel(level) for level in range(metadata.nLevels())]
    return ServerDescription(
        is_rgb=bool(server.isRGB()),
        level_sizes_px=tuple((int(level.getWidth()), int(level.getHeight())) for level in levels),
        # NaN where QuPath does not know it, which is not believed.
        mpp=calibration.parse_mpp(
            float(pixel_size.getPixelWidthMicrons()), float(pixel_size.getPixelHeightMicrons())
        ),
        z_count=int(server.nZSlices()),
        t_count=int(server.nTimepoints()),
    )


def read_region(source: Source, part: Part) -> RgbArray:
    """Read pixels of a level as QuPath's reader gives them, without interpolation.

    QuPath interpolates where it is asked for any other region than one of its own tiles, so the
    tiles are read and put together here. OpenSlide behind it interpolates within a tile where the
    sizes of the levels do not divide each other; our own reader of such slides is exact.

    Returns:
        HWC uint8 RGB; white where QuPath holds no pixels.

    Raises:
        ImageError: QuPath cannot read it.
    """
    server = _open_server(source)
    rgb = np.full((part.height, part.width, 3), 255, dtype=np.uint8)
    with translate_java_errors(f"Reading image {source.entry_id}", _CHECK_THE_SLIDE, ImageError):
        for tile in _tiles(server, part):
            image = server.readRegion(tile.getRegionRequest())
            if image is not None:  # as it is where the slide was never scanned
                _paste(rgb, _pixels(image), tile.getTileX() - part.x, tile.getTileY() - part.y)
    return rgb


def sample_regions(source: Source, parts: Sequence[Part]) -> list[RgbArray] | None:
    """Read a few regions as QuPath shows them; None where it shows no 8-bit RGB.

    Raises:
        ImageError: QuPath cannot open or read it.
    """
    server = _open_server(source)
    return [read_region(source, part) for part in parts] if server.isRGB() else None


def _open_server(source: Source) -> JavaObject:
    server = _servers.pop(source, None)
    if server is None:
        with translate_java_errors(
            f"Opening image {source.entry_id}", _CHECK_THE_SLIDE, ImageError
        ):
            server = _build_server(source)
        if server is None:  # as some of QuPath's readers put it
            raise ImageError(
                f"QuPath has no reader that opens image {source.entry_id}: {_CHECK_THE_SLIDE}."
            )
    _servers[source] = server
    while len(_servers) > _OPEN_MAX:
        _close(next(iter(_servers)))
    return server


def _close(source: Source) -> None:
    server = _servers.pop(source, None)
    if server is not None:
        server.close()


def _build_server(source: Source) -> JavaObject:
    # Not through QuPath's project, which would read all of its images again for each one.
    builder = make_server_builder(find_image(source.project, source.entry_id))
    return _move_server(builder, source.slide).build()


def _move_server(builder: JavaObject, slide: Path | None) -> JavaObject:
    """Change the server's location to where the slide is now."""
    import jpype  # this runs in QuPath's process only

    uris = list(builder.getURIs())
    if slide is None or len(uris) != 1:
        return builder
    moves = jpype.JClass("java.util.HashMap")()
    moves.put(uris[0], jpype.JClass("java.io.File")(str(slide)).toURI())
    return builder.updateURIs(moves)


def _tiles(server: JavaObject, part: Part) -> Iterator[JavaObject]:
    """List QuPath's tiles that overlap a region."""
    import jpype  # this runs in QuPath's process only

    downsample = float(server.getDownsampleForResolution(part.level))
    # A tile begins and ends at level-0 pixels that were rounded.
    x0, x1 = _l0_span(part.x, part.width, downsample, int(server.getWidth()))
    y0, y1 = _l0_span(part.y, part.height, downsample, int(server.getHeight()))
    request = jpype.JClass("qupath.lib.regions.RegionRequest").createInstance(
        server.getPath(), downsample, x0, y0, x1 - x0, y1 - y0, part.z, part.t
    )
    for tile in server.getTileRequestManager().getTileRequests(request):
        if tile.getLevel() != part.level:
            raise ImageError(
                f"QuPath takes levels {part.level} and {tile.getLevel()} of the image for one: "
                "export the image from QuPath as OME-TIFF."
            )
        yield tile


def _l0_span(start: int, length: int, downsample: float, l0_size: int) -> tuple[int, int]:
    low = math.floor(start * downsample) - 1
    high = math.ceil((start + length) * downsample) + 1
    return max(0, low), min(high, l0_size)


def _pixels(image: JavaObject) -> RgbArray:
    """Convert a BufferedImage of any type to HWC uint8 RGB; transparent pixels become white."""
    import jpype  # this runs in QuPath's process only

    width, height = int(image.getWidth()), int(image.getHeight())
    image_type = jpype.JClass("java.awt.image.BufferedImage")
    plain = image_type(width, height, image_type.TYPE_INT_RGB)
    canvas = plain.createGraphics()
    canvas.setColor(jpype.JClass("java.awt.Color").WHITE)
    canvas.fillRect(0, 0, width, height)
    canvas.drawImage(image, 0, 0, None)
    canvas.dispose()
    numbers = np.array(plain.getRaster().getDataBuffer().getData(), dtype=np.uint32)
    channels = [(numbers >> shift) & 0xFF for shift in (16, 8, 0)]
    return np.stack(channels, axis=-1).astype(np.uint8).reshape(height, width, 3)


def _paste(rgb: RgbArray, tile: RgbArray, x: int, y: int) -> None:
    """Paste a tile into the region; what lies outside is cut off."""
    height, width = tile.shape[:2]
    rows = slice(max(0, y), max(0, min(y + height, rgb.shape[0])))
    columns = slice(max(0, x), max(0, min(x + width, rgb.shape[1])))
    part = tile[rows.start - y : rows.stop - y, columns.start - x : columns.stop - x]
    rgb[rows, columns] = part
