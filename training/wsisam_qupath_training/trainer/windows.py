"""Cut the loss to windows, since WSI-SAM's convolutions at 256 x 256 cost most of a step."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

SIDES = (96, 128, 160, 192)
"""Sides of windows, mask px; the smallest that holds all objects of a step with a margin is
used."""

MARGIN = 12
"""Margin around an object, mask px; the edge of a window changes an answer within 2 px."""


class Windows(NamedTuple):
    """Squares of one size, one for each of B masks.

    Attributes:
        x0, y0: left and top edge of each window, mask px.
        side: side of the windows, mask px.
    """

    x0: tuple[int, ...]
    y0: tuple[int, ...]
    side: int

    def cut(self, tensor: torch.Tensor) -> torch.Tensor:
        """Cut B or 1 x 256 x 256 x … to B x side x side x …."""
        expanded = tensor.expand(len(self.x0), *tensor.shape[1:])
        parts = [
            one[y : y + self.side, x : x + self.side]
            for one, x, y in zip(expanded, self.x0, self.y0, strict=True)
        ]
        return torch.stack(parts)

    def put(self, whole: torch.Tensor, parts: torch.Tensor) -> torch.Tensor:
        """Put B x side x side into B x 256 x 256, at the places of the windows."""
        filled = whole.clone()
        for one, part, x, y in zip(filled, parts, self.x0, self.y0, strict=True):
            one[y : y + self.side, x : x + self.side] = part
        return filled


def draw_edge_windows(truth: torch.Tensor, side: int, rng: np.random.Generator) -> Windows:
    """Draw windows at random edges of B x 256 x 256 masks, or anywhere if there is none."""
    height, width = truth.shape[-2:]
    places = [_draw_edge_pixel(mask, rng) for mask in truth.numpy(force=True) > 0]
    return Windows(
        tuple(_start((x, x), side, width) for x, _ in places),
        tuple(_start((y, y), side, height) for _, y in places),
        side,
    )


def _draw_edge_pixel(mask: NDArray[np.bool_], rng: np.random.Generator) -> tuple[int, int]:
    """Draw x and y of a pixel that differs from its neighbor; any pixel if there is none."""
    edges = np.zeros_like(mask)
    edges[1:] |= mask[1:] != mask[:-1]
    edges[:, 1:] |= mask[:, 1:] != mask[:, :-1]
    found = np.flatnonzero(edges)
    chosen = int(rng.choice(found)) if len(found) else int(rng.integers(mask.size))
    return chosen % mask.shape[1], chosen // mask.shape[1]


def find_windows(truth: torch.Tensor, side: int | None = None) -> Windows | None:
    """Find windows around the objects of B x 256 x 256 masks; None if whole masks are needed.

    Args:
        side: side of the windows, mask px; None is as small as possible.
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
