"""What a user may choose of the model and of the outlines, with every default. Values only.

Nothing heavy is imported here: the command line shows these defaults in its help.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, TypeAlias

from .errors import OptionError

DEFAULT_BASE = "lite-medsam"
"""Base model that is used by default: its weights come with a Python package, so it works
offline."""

MOST_CANDIDATES = 3

MOST_RANK = 128
"""Largest rank of matrices that are added to a layer: less than any such layer has by itself."""

MIN_SCORE = 0.75
"""Predicted IoU below which what a search finds is no object."""

AdapterChoice: TypeAlias = Path | Literal["default"] | None
"""An adapter file, the adapter that ships with this package ("default"), or none."""

PointsAs: TypeAlias = Literal["together", "each"]
"""Whether several points of one feature mark one object, or each point its own object."""

ObjectType: TypeAlias = Literal["detection", "annotation"]
"""What a result is in QuPath."""

OutlineFormat: TypeAlias = Literal["geojson", "geojson.gz", "geoparquet"]

FORMAT_ENDINGS: Mapping[OutlineFormat, str] = {
    "geojson": ".geojson",
    "geojson.gz": ".geojson.gz",
    "geoparquet": ".parquet",
}
"""Endings of the names of outline files, by format."""

GEOJSON_ENDINGS = (FORMAT_ENDINGS["geojson"], FORMAT_ENDINGS["geojson.gz"])

LABELS_ENDING = ".labels.ome.tif"
"""Ending of the names of masks of labels."""

Precision: TypeAlias = Literal["int8", "bf16", "f32"]
"""Numbers that an encoder computes in; bf16 stands for any short float that the device has."""

PRECISIONS: tuple[Precision, ...] = ("int8", "bf16", "f32")

ProgressStyle: TypeAlias = Literal["auto", "json", "quiet"]

PROGRESS_STYLE: ContextVar[ProgressStyle] = ContextVar("progress style", default="auto")
"""How commands report their progress: for people, for programs, or not at all."""


@dataclass(frozen=True)
class ModelSpec:
    """Which model runs where. :func:`.inference.loading.resolve` checks the choice.

    Attributes:
        base: name of a base model, one of :data:`.model.bases.BASES`.
        adapter: path of an adapter; "default" is the one that ships with this package for the base,
            if any.
        weights: a copy of the base's weights; None is the installed or downloaded one.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1`` … or ``mps``.
        backend: ``auto``, ``torch`` or ``openvino``.
        threads: CPU threads to compute with; None is one per core that may be used.
        precision: ``auto`` or one of :data:`PRECISIONS`; ``auto`` is int8 on a CPU that gains by
            it, else bf16, which is float32 where the device has no short floats.
        embeddings_gb: how much of what the encoder made may be kept on this disk for later runs,
            GB (10^9 bytes); 0 keeps nothing.
    """

    base: str = DEFAULT_BASE
    adapter: AdapterChoice = "default"
    weights: Path | None = None
    device: str = "auto"
    backend: str = "auto"
    threads: int | None = None
    precision: str = "auto"
    embeddings_gb: float = 0.0

    @property
    def on_any_machine(self) -> ModelSpec:
        """Adapt the choice to several machines that answer: none chooses int8 for itself."""
        return replace(self, precision="bf16") if self.precision == "auto" else self


@dataclass(frozen=True)
class OutlineOptions:
    """How prompts become outlines.

    Attributes:
        object_size_um: size of the objects that points mark, µm; None is unknown, and the patches
            then have the scale that the weights are best at.
        simplify_um: largest distance between an outline and its simplified form, µm.
        min_area_um2: smaller parts are dropped and smaller holes filled, µm².
        points_as: whether several points of one feature mark one object, or one object each.
        object_type: what the results are in QuPath.
        class_name: class of all results; None is the class of each prompt.
        candidates: largest number of answers to points, 1 to 3: a click may mean a nucleus, a gland
            or a region. The first answer does not depend on this number.

    Raises:
        OptionError: a number is out of its range, or QuPath takes no class of that name.
    """

    object_size_um: float | None = None
    simplify_um: float = 0.25
    min_area_um2: float = 10.0
    points_as: PointsAs = "together"
    object_type: ObjectType = "detection"
    class_name: str | None = None
    candidates: int = 1

    def __post_init__(self) -> None:
        size = self.object_size_um
        if size is not None and not (math.isfinite(size) and size > 0):
            raise OptionError("object_size_um", f"{size:g} is not a positive size, e.g. 10 µm.")
        for name in ("simplify_um", "min_area_um2"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise OptionError(name, f"{value:g} is out of range: give 0 or more.")
        if not 1 <= self.candidates <= MOST_CANDIDATES:
            raise OptionError(
                "candidates", f"{self.candidates} is out of range: give 1 to {MOST_CANDIDATES}."
            )
        if self.class_name is not None and not _is_class_name(self.class_name):
            raise OptionError(
                "class_name",
                "QuPath has no class of this name: give one line of text, with a word on each "
                "side of a colon.",
            )

    @property
    def outline_settings(self) -> dict[str, float | None]:
        """What changes the outline itself, by name: part of the id of every result."""
        return {
            "object_size_um": self.object_size_um,
            "simplify_um": self.simplify_um,
            "min_area_um2": self.min_area_um2,
        }


def _is_class_name(name: str) -> bool:
    return len(name.splitlines()) == 1 and all(map(str.strip, name.split(":")))
