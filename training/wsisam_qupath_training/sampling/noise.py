"""Noise of training prompts: inexact boxes and coarse masks."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt, gaussian_filter

Mask = NDArray[np.bool_]
Rng = np.random.Generator
BoxNoise = Literal["normal", "uniform"]


def find_tight_box(mask: Mask) -> NDArray[np.float64]:
    """Corners of the box around a mask that is not empty, 2 x 2 (x, y), mask px."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    corners = [[columns[0], rows[0]], [columns[-1] + 1, rows[-1] + 1]]
    return np.array(corners, dtype=np.float64)


def add_box_noise(
    mask: Mask, noise: float, rng: Rng, kind: BoxNoise = "normal"
) -> NDArray[np.float64]:
    """Make the box around a mask with noise; its area is never zero.

    Args:
        noise: of ``normal``, each edge moves by N(0, noise) of its side. Of ``uniform``, the
            center moves by up to that share of half a side, and the side grows or shrinks by up to
            that share of itself, as in the published utilities of WSI-SAM and HQ-SAM.
    """
    corners = find_tight_box(mask)
    sides = corners[1] - corners[0]
    if kind == "uniform":
        center = corners.mean(axis=0) + rng.uniform(-noise, noise, 2) * sides / 2
        half = sides * (1 + rng.uniform(-noise, noise, 2)) / 2
        return np.stack([center - half, center + half])
    moved = corners + np.clip(rng.normal(0, noise, (2, 2)), -0.4, 0.4) * sides
    return np.sort(moved, axis=0)


def bend_edge(mask: Mask, noise: float, rng: Rng) -> Mask:
    """Redraw a mask as by hand: its edge strays smoothly.

    The noise is smooth over a fifth of the object's size; its amplitude is drawn for each mask,
    uniformly up to twice ``noise``.
    """
    size = np.sqrt(mask.sum())
    smoothness = max(1.0, 0.2 * size)
    wave = gaussian_filter(rng.normal(size=mask.shape), smoothness)
    wave *= rng.uniform(0, 2 * noise) * size / max(float(wave.std()), 1e-9)
    coarse: Mask = _depth(mask) + wave > 0
    return coarse if coarse.any() else mask


def roughen_edge(mask: Mask, band_px: float, rng: Rng) -> Mask:
    """Add Gaussian noise to each pixel of a mask's boundary region (WSI-SAM, section 3.1).

    N(0, 1) is added to the mask, 0 or 1, where the boundary is near, and what exceeds a half is
    inside.

    Args:
        band_px: how far the boundary region reaches to either side, mask px.
    """
    in_band = np.abs(_depth(mask)) <= band_px
    noisy: Mask = mask + rng.normal(size=mask.shape) * in_band > 0.5
    return noisy if noisy.any() else mask


def _depth(mask: Mask) -> NDArray[np.float64]:
    """Distance of each pixel to the nearest one on the other side, negative outside."""
    if mask.all():
        return np.full(mask.shape, np.inf)
    depth: NDArray[np.float64] = distance_transform_edt(mask) - distance_transform_edt(~mask)
    return depth
