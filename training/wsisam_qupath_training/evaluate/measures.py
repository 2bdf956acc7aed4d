"""Means with confidence intervals over patients, correlation, and calibration."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

SAMPLES = 2000
"""Number of bootstrap samples per interval."""

_BINS = 10


@dataclass(frozen=True)
class Estimate:
    """A mean over objects, and the 95% interval that drawing other patients would give.

    Attributes:
        low, high: bounds of the interval; None where there is one patient, since nothing can then
            be said about others.
        objects, groups: number of objects that the mean is over, and of their patients.
    """

    mean: float
    low: float | None
    high: float | None
    objects: int
    groups: int


def estimate(values: Sequence[float], groups: Sequence[Hashable], *, seed: int = 0) -> Estimate:
    """Compute the mean over objects, with a percentile bootstrap over whole groups.

    Args:
        values: one number per object, at least one.
        groups: the patient or slide of each value.
    """
    names = {group: index for index, group in enumerate(dict.fromkeys(groups))}
    index = np.array([names[group] for group in groups])
    sums = np.bincount(index, np.asarray(values, dtype=np.float64), len(names))
    counts = np.bincount(index, minlength=len(names))
    mean = float(sums.sum() / counts.sum())
    if len(names) == 1:
        return Estimate(mean, None, None, len(values), 1)
    drawn = np.random.default_rng(seed).integers(len(names), size=(SAMPLES, len(names)))
    means = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    low, high = np.percentile(means, (2.5, 97.5)).tolist()
    return Estimate(mean, low, high, len(values), len(names))


def correlation(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Compute Pearson's r of pairs of finite numbers; None where one of them does not vary."""
    x, y = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    finite = np.isfinite(x) & np.isfinite(y)
    x, y = x[finite], y[finite]
    if len(x) < 2 or min(np.ptp(x), np.ptp(y)) < 1e-12:
        return None
    return float(np.corrcoef(x, y)[0, 1])


def calibration_error(predicted: Sequence[float], true: Sequence[float]) -> float | None:
    """Expected calibration error (Guo et al. 2017) of pairs of finite numbers from 0 to 1.

    The pairs are put into ten bins by what was predicted; the error is the mean over all pairs of
    the distance between the means of their bin. None where there is no pair.
    """
    x, y = np.asarray(predicted, dtype=np.float64), np.asarray(true, dtype=np.float64)
    finite = np.isfinite(x) & np.isfinite(y)
    x, y = x[finite], y[finite]
    if not len(x):
        return None
    bins = np.clip((x * _BINS).astype(int), 0, _BINS - 1)
    errors = np.bincount(bins, x - y, _BINS)
    return float(np.abs(errors).sum() / len(x))
