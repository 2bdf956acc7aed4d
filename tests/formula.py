"""Images whose every pixel is a function of (x, y), and what reading them must give."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tifffile
from numpy.typing import NDArray

from wsisam_qupath.geometry import Box, Mpp
from wsisam_qupath.slide import Bounds, Window

Rgb = NDArray[np.uint8]


def formula_rgb(xs: range, ys: range) -> Rgb:
    """HWC uint8 RGB that looks like noise, differs in x and y, and repeats nowhere near."""
    x, y = np.meshgrid(np.asarray(xs, dtype=np.int64), np.asarray(ys, dtype=np.int64))
    channels = (31 * x + 57 * y + x * y // 7, x * x // 3 + 91 * y, 173 * x + y * y // 5)
    return (np.stack(channels, axis=-1) % 256).astype(np.uint8)


def waves_rgb(width: int, height: int) -> Rgb:
    """Smooth: red varies along x, green along y, with periods above 100 px; blue is 0."""
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    waves = (np.sin(x / 19), np.sin(y / 23), np.full(x.shape, -1.0))
    return np.rint(np.stack(waves, axis=-1) * 127.5 + 127.5).astype(np.uint8)


def averaged(rgb: Rgb, box: Box, width: int, height: int) -> NDArray[np.float64]:
    """The box as `width` x `height` px, by the definition: overlaps with each source pixel.

    Where an axis is enlarged, by interpolation between pixel centres. White outside.
    """
    rows = _weights(rgb.shape[0], box.y0, box.y1, height)
    columns = _weights(rgb.shape[1], box.x0, box.x1, width)
    darkness: NDArray[np.float64] = np.einsum(
        "ri,ijc,kj->rkc", rows, 255.0 - rgb, columns, optimize=True
    )
    return 255 - darkness


def shift_l0_px(region: Rgb, rgb: Rgb, l0_box: Box) -> tuple[float, float]:
    """How far a region of waves lies off its place, (x, y): the best fit, level-0 px."""
    height, width = region.shape[:2]
    here = averaged(rgb, l0_box, width, height)
    shifts = []
    for channel, (dx, dy) in enumerate(((0.5, 0), (0, 0.5))):
        after, before = (
            averaged(
                rgb,
                Box(l0_box.x0 + s * dx, l0_box.y0 + s * dy, l0_box.x1 + s * dx, l0_box.y1 + s * dy),
                width,
                height,
            )[..., channel]
            for s in (1, -1)
        )
        slope = after - before
        off = region[..., channel] - here[..., channel]
        shifts.append(float((off * slope).sum() / (slope * slope).sum()))
    return shifts[0], shifts[1]


def _weights(length: int, start: float, stop: float, count: int) -> NDArray[np.float64]:
    step = (stop - start) / count
    pixels = np.arange(length)
    weights = np.zeros((count, length))
    for index in range(count):
        if step >= 1:
            low, high = start + index * step, start + (index + 1) * step
            overlap = np.minimum(high, pixels + 1) - np.maximum(low, pixels)
            weights[index] = np.maximum(overlap, 0) / step
        else:
            center = start + (index + 0.5) * step
            weights[index] = np.maximum(1 - np.abs(pixels + 0.5 - center), 0)
    return weights


class FormulaReader:
    """A reader of one level that holds no file: it computes what it is asked for.

    Bounds lie where they are told; the formula goes on outside of them.
    """

    name = "formula"
    foreign_errors: tuple[type[Exception], ...] = (KeyError,)

    def __init__(self, width: int, height: int, bounds: Bounds | None = None) -> None:
        self.level_sizes_px: tuple[tuple[int, int], ...] = ((width, height),)
        self.bounds = bounds or Bounds(0, 0, width, height)
        self.stated_mpp: Mpp | None = None
        self.window_sizes_px: list[int] = []
        self.is_closed = False

    def read(self, level: int, x: int, y: int, width: int, height: int) -> Window:  # noqa: ARG002
        self.window_sizes_px.append(width * height)
        return Window(formula_rgb(range(x, x + width), range(y, y + height)), x, y)

    def close(self) -> None:
        self.is_closed = True


def write_levels(path: Path, levels: list[Rgb], description: str | None = None) -> None:
    """A tiled TIFF of just these levels, without µm/px."""
    with tifffile.TiffWriter(path) as tiff:
        for index, level in enumerate(levels):
            tiff.write(
                level,
                tile=(64, 64),
                photometric="rgb",
                subfiletype=1 if index else 0,
                description=description,
                metadata=None,
            )


def write_aperio(path: Path, rgb: Rgb, mpp: str | None) -> None:
    """A small Aperio slide, whose header states `mpp` as it stands here."""
    stated = "" if mpp is None else f"|MPP = {mpp}"
    height, width = rgb.shape[:2]
    write_levels(path, [rgb], f"Aperio Image Library v12\n{width}x{height}|AppMag = 40{stated}")


def write_leica(path: Path, levels: list[Rgb], offset: tuple[int, int]) -> None:
    """A Leica slide at 0.5 µm/px, whose scanned area lies at `offset` px: it has bounds.

    Level 0 of the file is 2,000 x 1,500 px.
    """
    nm_per_px = 500
    dimensions = "".join(
        f'<dimension sizeX="{level.shape[1]}" sizeY="{level.shape[0]}" r="{r}" ifd="{r + 1}"/>'
        for r, level in enumerate(levels)
    )
    height, width = levels[0].shape[:2]
    macro = _leica_image(
        '<dimension sizeX="64" sizeY="64" r="0" ifd="0"/>',
        Box(0, 0, 2000 * nm_per_px, 1500 * nm_per_px),
    )
    area = _leica_image(
        dimensions,
        Box(
            offset[0] * nm_per_px,
            offset[1] * nm_per_px,
            (offset[0] + width) * nm_per_px,
            (offset[1] + height) * nm_per_px,
        ),
    )
    description = (
        '<?xml version="1.0"?><scn xmlns="http://www.leica-microsystems.com/scn/2010/10/01">'
        f'<collection sizeX="{2000 * nm_per_px}" sizeY="{1500 * nm_per_px}" sizeUnit="nm">'
        f"<barcode>MQ==</barcode>{macro}{area}</collection></scn>"
    )
    write_levels(path, [np.zeros((64, 64, 3), dtype=np.uint8), *levels], description)


def _leica_image(dimensions: str, nm_box: Box) -> str:
    return (
        '<image><creationDate>2020-01-01T00:00:00Z</creationDate><device model="x" version="1"/>'
        f'<pixels sizeX="1" sizeY="1">{dimensions}</pixels><view sizeX="{nm_box.width}" '
        f'sizeY="{nm_box.height}" offsetX="{nm_box.x0}" offsetY="{nm_box.y0}" spacingZ="0"/>'
        "<scanSettings><objectiveSettings><objective>20</objective></objectiveSettings>"
        "<illuminationSettings><numericalAperture>0.4</numericalAperture>"
        "<illuminationSource>brightfield</illuminationSource></illuminationSettings>"
        "</scanSettings></image>"
    )
