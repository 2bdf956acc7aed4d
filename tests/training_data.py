"""Annotated images by formula, in every format that training reads."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from PIL import Image
from shapely.geometry import MultiPolygon, Point, Polygon, box, mapping
from shapely.geometry.base import BaseGeometry

from wsisam_qupath.geojson import write_features
from wsisam_qupath.manifest import ExportedImage, Manifest, write_manifest
from wsisam_qupath.pyramid import write_pyramid
from wsisam_qupath_training.fields import Dataset, Field
from wsisam_qupath_training.sources.reading import DatasetOptions, read_dataset

WIDTH_PX, HEIGHT_PX = 320, 240
MPP = 0.5


def ellipse(x: float, y: float, x_radius: float, y_radius: float) -> Polygon:
    """With its centre and radii, px."""
    return shapely.affinity.scale(Point(x, y).buffer(1, 32), x_radius, y_radius, origin=(x, y))


OUTLINES = (ellipse(80, 70, 40, 30), ellipse(220, 80, 35, 45), ellipse(150, 180, 60, 35))
"""Three objects that do not touch."""

BOW_TIE = Polygon([(10, 10), (60, 60), (60, 10), (10, 60)])
"""Crosses itself; its two halves have 1250 px in all."""

REGION = box(20, 20, 300, 230)
"""Holds all three."""


def inside_of(outline: BaseGeometry, width: int = WIDTH_PX, height: int = HEIGHT_PX) -> Any:
    """H x W bool: the pixels whose centres lie within."""
    y, x = np.mgrid[:height, :width] + 0.5
    return shapely.contains_xy(outline, x, y)


def tissue_of(
    outlines: Sequence[BaseGeometry], width: int = WIDTH_PX, height: int = HEIGHT_PX
) -> NDArray[np.uint8]:
    """Stained objects on paler tissue with a fine grain, HWC uint8 RGB; nothing is random."""
    y, x = np.mgrid[:height, :width]
    grain = 12 * np.sin(0.9 * x + 0.4 * y) + 8 * np.cos(0.31 * x - 0.77 * y)
    rgb = np.array([225.0, 190.0, 215.0]) + grain[..., None]
    for outline in outlines:
        rgb[inside_of(outline, width, height)] -= (85, 110, 60)
    painted: NDArray[np.uint8] = np.clip(np.rint(rgb), 0, 255).astype(np.uint8)
    return painted


def labels_of(outlines: Sequence[BaseGeometry]) -> NDArray[np.uint8]:
    """H x W: 0 is background, k the k-th outline."""
    labels = np.zeros((HEIGHT_PX, WIDTH_PX), dtype=np.uint8)
    for number, outline in enumerate(outlines, start=1):
        labels[inside_of(outline)] = number
    return labels


def drawn(geometry: BaseGeometry, class_name: str | None = "Gland", **more: Any) -> dict[str, Any]:
    """An annotation as QuPath writes it."""
    properties: dict[str, Any] = {"objectType": "annotation", **more}
    if class_name is not None:
        properties["classification"] = {"name": class_name, "color": [0, 200, 0]}
    return {"type": "Feature", "geometry": mapping(geometry), "properties": properties}


def write_slide(path: Path, outlines: Sequence[BaseGeometry] = OUTLINES) -> Path:
    """The tissue as a slide that states its µm/px (.tif), or as a picture that does not."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rgb = tissue_of(outlines)
    if path.suffix == ".tif":
        write_pyramid(path, rgb, mpp=MPP)
    else:
        Image.fromarray(rgb).save(path)
    return path


def write_geojson(path: Path, features: Sequence[Mapping[str, Any]]) -> Path:
    document = {"type": "FeatureCollection", "features": list(features)}
    path.write_text(json.dumps(document), encoding="utf-8")
    return path


@dataclass(frozen=True)
class MadeField:
    """Files of one annotated image, beside each other.

    Attributes:
        image: ``NAME.tif``, with µm/px; or ``NAME.png``, without.
        mask: ``NAME_instances.png``.
        geojson: ``NAME.geojson``.
        outlines: the truth, level-0 px.
    """

    image: Path
    mask: Path
    geojson: Path
    outlines: tuple[Polygon | MultiPolygon, ...]


def make_field(
    folder: Path,
    name: str = "a",
    *,
    outlines: Sequence[Polygon | MultiPolygon] = OUTLINES,
    class_name: str = "Gland",
    ending: str = ".tif",
) -> MadeField:
    """An image with its label mask and its GeoJSON."""
    image = write_slide(folder / f"{name}{ending}", outlines)
    mask = folder / f"{name}_instances.png"
    Image.fromarray(labels_of(outlines)).save(mask)
    features = [drawn(outline, class_name) for outline in outlines]
    geojson = write_geojson(folder / f"{name}.geojson", features)
    return MadeField(image, mask, geojson, tuple(outlines))


def make_export(
    folder: Path,
    images: Mapping[str, Sequence[Mapping[str, Any]]],
    *,
    slides: Path,
    mpp: float | None = MPP,
) -> Path:
    """An export of images by the names of their slides, which lie in a folder (or should).

    Args:
        images: what is drawn on each, see :func:`drawn`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for number, (name, features) in enumerate(images.items(), start=1):
        write_features(folder / f"{name}.geojson", [dict(one) for one in features])
        uri = (slides / name).absolute().as_uri()
        classes = {"Gland": len(features)}
        rows.append(
            ExportedImage(
                str(number), name, f"{name}.geojson", uri, WIDTH_PX, HEIGHT_PX, mpp, mpp,
                classes, len(features), 0, {},
            )
        )  # fmt: skip
    write_manifest(folder, Manifest(tuple(rows)))
    return folder


def glands(outlines: Sequence[BaseGeometry] = OUTLINES) -> list[dict[str, Any]]:
    """The objects as annotations of class Gland."""
    return [drawn(outline) for outline in outlines]


def overlap(one: BaseGeometry, other: BaseGeometry) -> float:
    """Intersection over union."""
    return float(one.intersection(other).area / one.union(other).area)


def read(path: Path, **options: Any) -> Dataset:
    return read_dataset(path, options=DatasetOptions(**options)).dataset


def reasons(dataset: Dataset) -> list[str]:
    return [f"{case.id}: {case.reason}" for case in dataset.damaged]


def assert_drawn(field: Field, outlines: Sequence[BaseGeometry], at_least: float = 0.999) -> None:
    """Whether a field's objects are these, in this order."""
    assert len(field.truths) == len(outlines)
    for truth, outline in zip(field.truths, outlines, strict=True):
        assert truth.l0_outline.is_valid
        assert overlap(truth.l0_outline, outline) >= at_least
