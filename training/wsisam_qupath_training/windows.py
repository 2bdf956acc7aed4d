"""Cut the loss to a window round each object: WSI-SAM's convolutions at 256 x 256 cost the most."""

from __future__ import annotations

from typing import NamedTuple

import torch

SIDES = (96, 128, 160, 192)
"""Of windows, mask px; the smallest one that holds all objects of a step with a margin."""

MARGIN = 12
"""Mask px round an object; more than the 2 px in which the edge of a window changes an answer."""


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
        """B or 1 x … x 256 x 256 to B x … x side x side."""
        expanded = tensor.expand(len(self.x0), *tensor.shape[1:])
        parts = [
            one[..., y : y + self.side, x : x + self.side]
            for one, x, y in zip(expanded, self.x0, self.y0, strict=True)
        ]
        return torch.stack(parts)


def windows_round(truth: torch.Tensor) -> Windows | None:
    """Windows round the objects of B x 256 x 256 masks; None where the whole mask is needed."""
    height, width = truth.shape[-2:]
    spans = [(_span(mask.any(dim=0)), _span(mask.any(dim=1))) for mask in truth > 0]
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
