"""Open data sets as torch-em's loaders leave them in a folder: where files lie, what numbers mean.

Layouts are those of the loaders of torch-em 0.10.9. Numbers of masks are those that the loaders
or the authors of a set name; the pixel sizes are those that the sources state.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeAlias

from wsisam_qupath.errors import PromptError
from wsisam_qupath.files import read_json

from .groups import GroupOf, group_by_pattern

ANY: tuple[int, ...] = ()
"""Stands for every number of a mask but 0."""

Groups: TypeAlias = Callable[[Path], GroupOf]
"""Finds out, in the folder of a set, how the patient follows from an image's name."""


@dataclass(frozen=True)
class OpenSet:
    """What is known about one open data set.

    Attributes:
        images: where its images lie, as patterns below the folder.
        mask_of: the mask of an image, by its path.
        classes: the numbers of each class of objects; a connected region of them is an object.
        source, license: as its authors say.
        groups: patients, or slides where the patient is not known; one where not even these are.
        unknown: numbers of what nobody annotated.
        mpp: µm/px of all images; None where the source does not state it, or slides do.
        has_slides: its images are slides that state their µm/px, and come one by one.
        smallest_um: regions that are smaller than a circle of this diameter are crumbs of a mask.
        keeps_parts: a download that was stopped goes on with the files that are there.
    """

    images: tuple[str, ...]
    mask_of: Callable[[Path], Path]
    classes: Mapping[str, tuple[int, ...]]
    source: str
    license: str
    groups: Groups
    unknown: tuple[int, ...] = ()
    mpp: float | None = None
    has_slides: bool = False
    smallest_um: float = 20.0
    keeps_parts: bool = False


def _by_pattern(pattern: str) -> Groups:
    return lambda _: group_by_pattern(pattern)


def _one_group(folder: Path) -> GroupOf:
    return lambda _: folder.name


def _ocelot_patients(folder: Path) -> GroupOf:
    """Read the patients of OCELOT's images from its table; all are one group without it.

    A patient is the first 12 letters of the name that TCGA gives the slide.

    Raises:
        PromptError: the table of the slides is damaged.
    """
    file = folder / _OCELOT / "metadata.json"
    if not file.is_file():
        return _one_group(folder)
    fix = "Remove the folder, so that it is downloaded again."
    rows: Any = read_json(file, fix=fix)
    try:
        patients = {name: str(row["slide_name"])[:12] for name, row in rows["sample_pairs"].items()}
    except (TypeError, KeyError, AttributeError) as exc:
        raise PromptError(f"{file} is no table of OCELOT's images. {fix}") from exc
    return lambda name: patients.get(name, name)


def _slide_mask(image: Path) -> Path:
    return image.with_name(f"{image.stem}_mask.tif")


def _gleason_mask(image: Path) -> Path:
    """Find the mask of an image; of array 80, which two pathologists annotated, the first one's."""
    folder, first = "Gleason_masks_train", "mask"
    if image.stem.startswith("ZT80_"):
        folder, first = "Gleason_masks_test_pathologist1", "mask1"
    return image.parent.with_name(folder) / f"{first}_{image.stem}.png"


def _hashi_mask(image: Path) -> Path:
    """Find the mask of an image: it has the same name, except at two of the four hospitals."""
    ending = {"hup": "_annotation_mask.png", "cinj": ".png"}.get(image.parents[1].name)
    name = image.name if ending is None else image.name.removesuffix("_idx5.png") + ending
    return image.parent.with_name("masks") / name


def _ocelot_mask(image: Path) -> Path:
    part, root = image.parents[1].name, image.parents[3]
    return root / "annotations" / part / "tissue" / f"{image.stem}.png"


_OCELOT = "ocelot2023_v1.0.1"
_CAMELYON = "https://doi.org/10.1093/gigascience/giy065"

OPEN_SETS: Mapping[str, OpenSet] = MappingProxyType(
    {
        "camelyon16": OpenSet(
            images=("raw/CAMELYON16/*.tif",),
            mask_of=_slide_mask,
            classes={"metastasis": (1,)},  # 2 is what was cut out of one
            source=_CAMELYON,
            license="CC0",
            groups=lambda _: str,
            has_slides=True,
            smallest_um=50.0,
        ),
        "camelyon17": OpenSet(
            images=("raw/CAMELYON17/*.tif",),
            mask_of=_slide_mask,
            classes={"metastasis": (1,)},
            source=_CAMELYON,
            license="CC0",
            groups=_by_pattern(r"^(patient_\d+)_node_\d+$"),
            has_slides=True,
            smallest_um=50.0,
        ),
        "crc_epithelium": OpenSet(
            images=("HE/**/*.jpg",),
            mask_of=lambda image: image.with_suffix(".png"),
            classes={"epithelium": ANY},
            source="https://doi.org/10.18710/DIGQGQ",
            license="CC0-1.0",
            groups=_one_group,
            keeps_parts=True,
        ),
        "gleason2019": OpenSet(
            images=("ZT*/*.jpg",),
            mask_of=_gleason_mask,
            classes={f"Gleason pattern {number + 2}": (number,) for number in (1, 2, 3)},
            source="https://doi.org/10.7910/DVN/OCYCMP",
            license="as its page says",
            groups=_by_pattern(r"^(ZT\d+)_"),  # the array; its patients are not told
            unknown=(4,),
            mpp=0.23,  # 40x, https://doi.org/10.1038/s41598-018-30535-1
            smallest_um=50.0,
        ),
        "hashi": OpenSet(
            images=tuple(f"{cohort}/images/*.png" for cohort in ("hup", "cwru", "cinj", "tcga")),
            mask_of=_hashi_mask,
            classes={"invasive cancer": ANY},
            source="https://doi.org/10.5061/dryad.1g2nt41",
            license="CC0-1.0",
            groups=_by_pattern(r"^(TCGA-\w{2}-\w{4})"),
            smallest_um=100.0,
            keeps_parts=True,
        ),
        "ocelot": OpenSet(
            images=(f"{_OCELOT}/images/*/tissue/*.jpg",),
            mask_of=_ocelot_mask,
            classes={"cancer area": (2,)},
            source="https://zenodo.org/records/8417503",
            license="CC BY-NC 4.0",
            groups=_ocelot_patients,
            unknown=(255,),
            mpp=0.778,  # its metadata.json: 0.7775 to 0.7779
            smallest_um=30.0,
        ),
        "tevg": OpenSet(
            images=("fold_1/*/img/*.jpg",),
            mask_of=lambda image: image.parent.with_name("mask") / f"{image.stem}.png",
            classes={
                "arteriole": (1, 2, 3),
                "arteriole lumen": (1,),
                "venule": (4, 5),
                "venule lumen": (4,),
                "capillary": (6, 7),
                "capillary lumen": (6,),
                "nerve trunk": (9,),
            },
            source="https://doi.org/10.5281/zenodo.10838384",
            license="CC-BY-4.0",
            groups=_by_pattern(r"^(\d+)_"),  # the slide; its sheep is not told
            smallest_um=4.0,
        ),
        "tiger": OpenSet(
            images=("roi-level-annotations/*/images/*.png",),
            mask_of=lambda image: image.parent.with_name("masks") / image.name,
            classes={
                "invasive tumor": (1,),
                "in-situ tumor": (3,),
                "healthy gland": (4,),
                "necrosis": (5,),
            },
            source="https://doi.org/10.5281/zenodo.6014422",
            license="CC BY-NC 4.0; images of TCGA as TCGA says",
            groups=_by_pattern(r"^(TCGA-\w{2}-\w{4}|[^_\[]+)"),
            unknown=(0,),
            mpp=0.5,  # https://tiger.grand-challenge.org/Data/
        ),
    }
)
"""The open data sets that can be read, by the names of torch-em's loaders."""
