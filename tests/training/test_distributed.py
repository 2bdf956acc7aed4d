"""Where a training run computes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from wsisam_qupath_training.trainer.distributed import DistributedContext, open_context


def test_tiny_numbers_are_zero_for_the_time_of_a_run_alone() -> None:
    tiny = np.float64(5e-324)

    with open_context("cpu", threads=None) as context:
        during = tiny * 1.0

    assert (context.device.type, context.rank, context.world) == ("cpu", 0, 1)
    assert during == 0
    assert tiny * 1.0 == tiny


@pytest.mark.parametrize(
    ("avx512_bf16", "amx"), [(False, False), (True, False), (False, True), (True, True)]
)
def test_a_cpu_computes_in_bf16_only_where_it_has_instructions_for_it(
    monkeypatch: pytest.MonkeyPatch, avx512_bf16: bool, amx: bool
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512_bf16)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    matrix = torch.eye(4)

    with DistributedContext(torch.device("cpu")).autocast():
        product = matrix @ matrix

    assert product.dtype == (torch.bfloat16 if avx512_bf16 or amx else torch.float32)
