"""What changes an outline, beside the prompt and the model."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..errors import OptionError

MOST_CANDIDATES = 3


@dataclass(frozen=True)
class SegmentOptions:
    """What changes an outline, beside the prompt and the model.

    Attributes:
        object_size_um: how large the objects are that bare points mark, µm; None is unknown, and
            the pair has the scale that the weights are best at.
        simplify_um: how far a simplified outline may stray, µm.
        min_area_um2: parts and holes smaller than this are dropped and filled, µm².
        candidates: how many answers to points are given at most, 1 to 3: a click may mean a
            nucleus, a gland or a region. The first is the same, whatever this says.

    Raises:
        OptionError: a number is out of its range.
    """

    object_size_um: float | None = None
    simplify_um: float = 0.25
    min_area_um2: float = 10.0
    candidates: int = 1

    def __post_init__(self) -> None:
        size = self.object_size_um
        if size is not None and not (math.isfinite(size) and size > 0):
            raise OptionError(f"--object-size is {size:g} µm. Give a size above 0, e.g. 10.")
        for flag, value in (("--simplify", self.simplify_um), ("--min-area", self.min_area_um2)):
            if not (math.isfinite(value) and value >= 0):
                raise OptionError(f"{flag} is {value:g}. Give 0 or more.")
        if not 1 <= self.candidates <= MOST_CANDIDATES:
            raise OptionError(f"--candidates is {self.candidates}. Give 1 to {MOST_CANDIDATES}.")
