"""What PyTorch does differently on a GPU gives the same on a CPU, where it can be compared."""

from __future__ import annotations

from copy import deepcopy

import numpy as np
import pytest
import torch

from fixtures.models import Patches
from wsisam_qupath.inference.backends.torch_backend import TorchBackend
from wsisam_qupath.model.build import Networks

pytestmark = pytest.mark.slow


def test_the_layout_of_a_gpu_changes_the_embedding_by_float_noise_alone(
    lite: Networks, patches: Patches
) -> None:
    with torch.inference_mode():
        stacked = torch.from_numpy(np.stack(patches))
        usual = lite.encoder(stacked)
        last = deepcopy(lite.encoder).to(memory_format=torch.channels_last)(stacked)

    for one, other in zip(usual, last, strict=True):
        assert torch.allclose(one, other, rtol=1e-3, atol=1e-3)


def test_the_precision_of_a_gpu_points_the_embedding_where_float32_does(
    lite: Networks, patches: Patches
) -> None:
    stacked = torch.from_numpy(np.stack(patches[:1]))
    with torch.inference_mode():
        exact, _ = lite.encoder(stacked)
        with torch.autocast("cpu", torch.bfloat16):
            mixed, _ = lite.encoder(stacked)

    cosine = torch.nn.functional.cosine_similarity(exact.flatten(), mixed.float().flatten(), 0)
    assert cosine > 0.99


def test_a_cpu_computes_in_float32_whatever_is_asked(lite: Networks, patches: Patches) -> None:
    exact, short = (TorchBackend(lite, "cpu", name) for name in ("f32", "bf16"))

    one, other = (backend.encode(patches[:1]) for backend in (exact, short))

    assert (exact.precision, short.precision) == ("f32", "f32")
    assert exact.name == short.name == "PyTorch on cpu, float32"
    assert np.array_equal(one.tokens, other.tokens)
