"""Prompts from the boxes of another model, such as nnU-Net's in the paper's table."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import shapely

from wsisam_qupath.errors import PromptError
from wsisam_qupath.files import read_json
from wsisam_qupath.files.names import compose
from wsisam_qupath.geojson import read_prompts
from wsisam_qupath.geometry import Box

from ..dataset import AnnotatedImage, Truth

LEAST_IOU = 0.5
"""A box belongs to an object if their boxes have at least this IoU, as in object detection."""

_ENDINGS = (".geojson", ".json")


def read_boxes(path: Path, images: Sequence[AnnotatedImage]) -> Mapping[str, tuple[Box, ...]]:
    """Read the boxes of each image, by the image's name, level-0 px.

    Args:
        path: MS COCO (``images`` and ``annotations`` with ``bbox``; names of images without their
            ending are those of images), a folder with one GeoJSON an image, or one GeoJSON where
            there is one image.

    Raises:
        PromptError: it cannot be read, or is about none of the fields.
    """
    names = {image.name for image in images}
    found: Mapping[str, tuple[Box, ...]]
    if path.is_dir():
        found = {
            compose(file.stem): _read_geojson(file)
            for ending in _ENDINGS
            for file in sorted(path.glob(f"*{ending}"))
            if compose(file.stem) in names
        }
    else:
        document = read_json(path, fix="Export the boxes again as MS COCO or GeoJSON.")
        if isinstance(document, dict) and "annotations" in document:
            found = _read_coco(path, document)
        elif len(names) == 1:
            found = {next(iter(names)): _read_geojson(path)}
        else:
            raise PromptError(
                f"{path} does not say which image its boxes belong to, and there are {len(names)}. "
                "Give MS COCO, or a folder with one GeoJSON an image."
            )
    if not names & set(found):
        raise PromptError(
            f"{path} has boxes for none of the {len(names)} images. Its images must have their "
            f"names, e.g. {min(names)}."
        )
    return found


def match_boxes(truths: Sequence[Truth], boxes: Sequence[Box]) -> Mapping[str, Box]:
    """Assign each box to at most one object, the best fits first; boxes by object id.

    Objects without a box are not in it: the other model missed them.
    """
    pairs = sorted(
        (
            (box_iou(truth.l0_box, box), -t, -b)
            for t, truth in enumerate(truths)
            for b, box in enumerate(boxes)
        ),
        reverse=True,
    )
    found: dict[int, int] = {}
    for iou, t, b in pairs:
        if iou < LEAST_IOU:
            break
        if -t not in found and -b not in found.values():
            found[-t] = -b
    return {truths[t].id: boxes[b] for t, b in found.items()}


def box_iou(first: Box, second: Box) -> float:
    """Compute the IoU of two boxes, 0 to 1."""
    shared = first.intersection(second)
    if shared.width <= 0 or shared.height <= 0:
        return 0.0
    both = shared.width * shared.height
    return both / (first.width * first.height + second.width * second.height - both)


def _read_geojson(path: Path) -> tuple[Box, ...]:
    found = []
    for prompt in read_prompts(path, hr_l0_box_of=lambda prompt: prompt.l0_bounds).prompts:
        if prompt.l0_outline is not None:
            found.append(Box(*shapely.bounds(prompt.l0_outline).tolist()))
        elif prompt.l0_box is not None:
            found.append(prompt.l0_box)
    return tuple(found)


def _read_coco(path: Path, document: Any) -> Mapping[str, tuple[Box, ...]]:
    found: dict[str, list[Box]] = defaultdict(list)
    try:
        names = {
            image["id"]: compose(Path(image["file_name"]).stem) for image in document["images"]
        }
        for row in document["annotations"]:
            x, y, width, height = (float(number) for number in row["bbox"])
            found[names[row["image_id"]]].append(Box(x, y, x + width, y + height))
    except (KeyError, TypeError, ValueError) as exc:
        raise PromptError(
            f"{path} is no MS COCO with boxes ({type(exc).__name__}: {exc}). Each image needs id "
            "and file_name, each annotation image_id and bbox."
        ) from exc
    return {name: tuple(boxes) for name, boxes in found.items()}
