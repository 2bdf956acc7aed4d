"""Ground truth of a step or a validation, as tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from ..sampling.samples import SampleMasks

_AREA_SCALES = np.array([1.0, 0.25])
"""Area in mask px of the HR and of the LR patch, per HR mask px: LR pixels are twice as long."""


class TargetMasks(NamedTuple):
    """Ground truth over the R patches that are read.

    Attributes:
        truth: B x R x 256 x 256 masks of the objects, 0 or 1.
        known: 1 or B x R x 256 x 256, where the annotation is known, 0 or 1.
        whole_px: B x R areas of the whole objects, mask px of each patch.
    """

    truth: torch.Tensor
    known: torch.Tensor
    whole_px: torch.Tensor


def make_targets(
    masks: SampleMasks,
    objects: Sequence[int] | NDArray[np.intp],
    patch_count: int,
    device: torch.device,
) -> TargetMasks:
    """Make targets of some objects of a sample over its first patches, float32, on the device."""
    truth = np.stack([masks.hr_masks[objects], masks.lr_masks[objects]], axis=1)
    known = np.stack([masks.hr_known, masks.lr_known])[None]
    whole_px = masks.hr_whole_px[objects][:, None] * _AREA_SCALES
    return TargetMasks(
        *(
            torch.from_numpy(array[:, :patch_count].astype(np.float32)).to(device)
            for array in (truth, known, whole_px)
        )
    )
