"""Which backend and device a user gets."""

from __future__ import annotations

import re

import pytest
import torch

from wsisam_qupath.errors import DeviceError, OptionError
from wsisam_qupath.inference.loading import choose


@pytest.mark.parametrize(
    ("device", "backend", "chosen"),
    [
        ("cpu", "auto", ("cpu", "openvino")),
        ("cpu", "openvino", ("cpu", "openvino")),
        ("auto", "openvino", ("cpu", "openvino")),
        ("cpu", "torch", ("cpu", "torch")),
    ],
)
def test_a_cpu_gets_openvino_unless_pytorch_is_asked_for(
    device: str, backend: str, chosen: tuple[str, str]
) -> None:
    assert choose(device, backend) == chosen


@pytest.mark.parametrize(
    ("device", "backend", "message"),
    [
        ("gpu", "auto", "device: 'gpu' is none of auto, cpu, cuda, cuda:1 … and mps."),
        ("cuda:x", "auto", "device: 'cuda:x' is none of"),
        ("cuda:", "auto", "device: 'cuda:' is none of"),
        ("cpu:1", "torch", "device: 'cpu:1' is none of"),
        ("", "auto", "device: '' is none of"),
        ("cpu", "onnx", "backend: 'onnx' is none of auto, torch and openvino."),
        (
            "cuda",
            "openvino",
            "backend: openvino computes on the CPU only: choose torch for the device cuda.",
        ),
        (
            "mps",
            "openvino",
            "backend: openvino computes on the CPU only: choose torch for the device mps.",
        ),
    ],
)
def test_what_there_is_not_is_an_error_of_the_option(
    device: str, backend: str, message: str
) -> None:
    with pytest.raises(OptionError, match=re.escape(message)):
        choose(device, backend)


def test_a_gpu_that_is_not_there_is_an_error_of_the_device() -> None:
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    device = f"cuda:{count}"

    with pytest.raises(
        DeviceError, match=f"sees {count} CUDA devices here, so there is no {device}"
    ):
        choose(device, "auto")


@pytest.mark.skipif(torch.backends.mps.is_available(), reason="this machine has an Apple GPU")
def test_an_apple_gpu_that_is_not_there_is_an_error_of_the_device() -> None:
    with pytest.raises(DeviceError, match="no Apple GPU"):
        choose("mps", "auto")


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")
def test_without_a_gpu_auto_is_openvino_on_the_cpu() -> None:
    assert choose("auto", "auto") == ("cpu", "openvino")
    assert choose("auto", "torch") == ("cpu", "torch")
