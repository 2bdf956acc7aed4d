"""Cut the loss to windows: WSI-SAM's convolutions at 256 x 256 cost the most in training."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

SIDES = (96, 128, 160, 192)
"""Of windows, mask px; the smallest one that holds all objects of a step with a margin."""

MARGIN = 12
"""Mask px around an object; more than the 2 px in which the edge of a window changes an answer."""


class Windows(NamedTuple):
    """Squares of one size, one for each of B masks.

    Attributes:
        x0, y0: left and top, mask px.
        side: mask px.
    """

    x0: tuple[int, ...]
    y0: tuple[int, ...]
    side: int

    def cut(self, tensor: torch.Tensor) -> torch.Tensor:
        """B or 1 x 256 x 256 x … to B x side x side x …."""
        expanded = tensor.expand(len(self.x0), *tensor.shape[1:])
        parts = [
            one[y : y + self.side, x : x + self.side]
            for one, x, y in zip(expanded, self.x0, self.y0, strict=True)
        ]
        return torch.stack(parts)

    def put(self, whole: torch.Tensor, parts: torch.Tensor) -> torch.Tensor:
        """B x 256 x 256 with B x side x side in the place of the windows."""
        filled = whole.clone()
        for one, part, x, y in zip(filled, parts, self.x0, self.y0, strict=True):
            one[y : y + self.side, x : x + self.side] = part
        return filled


def draw_edge_windows(truth: torch.Tensor, side: int, rng: np.random.Generator) -> Windows:
    """Windows at random places of the edges of B x 256 x 256 masks, or where there is none."""
    height, width = truth.shape[-2:]
    places = [_draw_edge_pixel(mask, rng) for mask in truth.numpy(force=True) > 0]
    return Windows(
        tuple(_start((x, x), side, width) for x, _ in places),
        tuple(_start((y, y), side, height) for _, y in places),
        side,
    )


def _draw_edge_pixel(mask: NDArray[np.bool_], rng: np.random.Generator) -> tuple[int, int]:
    """X and y of a pixel that differs from its neighbor; any pixel of a mask without edges."""
    edges = np.zeros_like(mask)
    edges[1:] |= mask[1:] != mask[:-1]
    edges[:, 1:] |= mask[:, 1:] != mask[:, :-1]
    found = np.flatnonzero(edges)
    chosen = int(rng.choice(found)) if len(found) else int(rng.integers(mask.size))
    return chosen % mask.shape[1], chosen // mask.shape[1]


def find_windows(truth: torch.Tensor, side: int | None = None) -> Windows | None:
    """Windows around the objects of B x 256 x 256 masks; None where the whole mask is needed.

    Args:
        side: of the windows, if they need not be as small as possible; mask px.
    """
    height, width = truth.shape[-2:]
    spans = [(_span(mask.any(dim=0)), _span(mask.any(dim=1))) for mask in truth > 0]
    if side is None:
        longest = max(end - start for pair in spans for start, end in pair) + 2 * MARGIN
        side = next((side for side in SIDES if longest <= side), None)
    if side is None or side >= min(height, width):
        return None
    return Windows(
        tuple(_start(x, side, width) for x, _ in spans),
        tuple(_start(y, side, height) for _, y in spans),
        side,
    )


def _span(line: torch.Tensor) -> tuple[int, int]:
    inside = line.nonzero()
    return (int(inside[0]), int(inside[-1]) + 1) if len(inside) else (0, 0)


def _start(span: tuple[int, int], side: int, length: int) -> int:
    middle = (span[0] + span[1]) // 2
    return min(max(middle - side // 2, 0), length - side)
