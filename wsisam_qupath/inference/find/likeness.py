"""How much the places of a patch look like given examples, by the image encoder's features.

Features are compared as directions from the mean of the patches around the examples: what all
tissue has in common says nothing. Each example is one direction, and so is their mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

PLACES = 64
"""Number of places with features along each axis of a patch."""

Map: TypeAlias = NDArray[np.float32]
"""One number per place of a patch, 64 x 64."""

Tokens: TypeAlias = NDArray[np.float32]
"""Features of the places of a patch, 64 x 64 x 256."""

BoolMap: TypeAlias = NDArray[np.bool_]
"""One yes or no per place of a patch, 64 x 64."""

_LEAST_COVERAGE = 0.5
"""Share of a place that an example must cover for it to belong to it; a small one has the most
covered place."""

_TINY = 1e-6


@dataclass(frozen=True)
class ExampleFeatures:
    """An example on its patch.

    Attributes:
        tokens: encoder's features of the patch, 64 x 64 x 256.
        coverage: share of each place that the example covers, 0 to 1.
        in_slide: whether each place lies on the slide; what lies outside is white.
    """

    tokens: Tokens
    coverage: Map
    in_slide: BoolMap

    def mean_inside(self) -> NDArray[np.float32]:
        """The mean of the features inside the example, 256."""
        inside = self.coverage >= min(_LEAST_COVERAGE, float(self.coverage.max()))
        mean: NDArray[np.float32] = self.tokens[inside].mean(axis=0)
        return mean


@dataclass(frozen=True)
class Likeness:
    """Compares places with examples.

    Attributes:
        origin: point from which features are seen as directions, 256.
        wanted: unit directions of what is looked for, K x 256.
        unwanted: unit directions of what is not looked for, L x 256; may be empty.
    """

    origin: NDArray[np.float32]
    wanted: NDArray[np.float32]
    unwanted: NDArray[np.float32]

    @classmethod
    def learn(
        cls, examples: Sequence[ExampleFeatures], negatives: Sequence[ExampleFeatures] = ()
    ) -> Likeness:
        """Learn from at least one example."""
        seen = [one.tokens[one.in_slide] for one in (*examples, *negatives)]
        origin = np.concatenate(seen).mean(axis=0)
        return cls(origin, _find_directions(examples, origin), _find_directions(negatives, origin))

    def measure(self, tokens: Tokens) -> Map:
        """Measure the largest cosine with what is looked for, -1 to 1, of each place."""
        return self._measure(tokens, self.wanted)

    def measure_unwanted(self, tokens: Tokens) -> Map:
        """Measure the largest cosine with what is not looked for; -1 if nothing is named."""
        return self._measure(tokens, self.unwanted)

    def _measure(self, tokens: Tokens, directions: NDArray[np.float32]) -> Map:
        if not len(directions):
            return np.full(tokens.shape[:2], -1, dtype=np.float32)
        cosines: Map = (_normalize(tokens - self.origin) @ directions.T).max(axis=-1)
        return cosines


def _find_directions(
    examples: Sequence[ExampleFeatures], origin: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Find unit vectors from the origin to each example, and to the mean of all of them."""
    if not examples:
        return np.zeros((0, len(origin)), dtype=np.float32)
    each = _normalize(np.stack([one.mean_inside() - origin for one in examples]))
    return np.concatenate([each, _normalize(each.mean(axis=0, keepdims=True))])


def _normalize(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    unit: NDArray[np.float32] = vectors / (np.linalg.norm(vectors, axis=-1, keepdims=True) + _TINY)
    return unit
