"""Resolve the choice of a model into files and a device, and load it."""

from __future__ import annotations

import ctypes
import platform
import re
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, TypeAlias

from ..errors import DeviceError, OptionError, pip_install
from ..files import cache_folder
from ..model.adapter import Adapter
from ..model.bases import Base, find_base
from ..model.shipped import load_chosen_adapter
from ..model.weights import Weights, locate_weights
from ..options import ModelSpec
from .backends import Backend
from .chosen import ChosenModel
from .cores import count_usable_cores
from .predictor import Predictor

BackendName: TypeAlias = Literal["torch", "openvino"]
BACKENDS: tuple[BackendName, ...] = ("torch", "openvino")
_DEVICE = re.compile(r"auto|cpu|mps|cuda(:\d+)?", re.ASCII)


@dataclass(frozen=True)
class ResolvedModel(ChosenModel):
    """A model with files and a device that were found and checked. Nothing is loaded yet.

    Attributes:
        weights: of the base; their checksum is right.
        device: as PyTorch names it.
        threads: CPU threads to compute with; None is one per core that this process may use.
    """

    weights: Weights
    device: str
    backend: BackendName
    threads: int | None = None

    def load(self) -> Predictor:
        """Load the networks. Takes seconds, and longer the first time on a machine."""
        threads = self.threads or count_usable_cores()
        if self.backend == "openvino":
            backend = _openvino(self.base, self.weights, self.adapter, threads)
        else:
            backend = _torch(self.base, self.weights, self.adapter, self.device, threads)
        return Predictor(backend, self.base, self.adapter)


def resolve(spec: ModelSpec) -> ResolvedModel:
    """Find the base, adapter, weights, device and backend of a model, and check each of them.

    Every error that a user can make in choosing a model is found here, before any work.

    Raises:
        OptionError: an unknown base, device or backend, or a device that the backend lacks.
        DeviceError: this machine does not have the device or the backend.
        WeightsError: the base's weights are missing or damaged.
        AdapterError: the adapter is missing, damaged, or was trained for another base.
    """
    base = find_base(spec.base)
    device, backend = choose(spec.device, spec.backend)
    adapter = load_chosen_adapter(spec.adapter, base)
    weights = locate_weights(base, path=spec.weights)  # reads them whole, so the last
    return ResolvedModel(base, adapter, weights, device, backend, spec.threads)


def choose(device: str, backend: str) -> tuple[str, BackendName]:
    """Choose a device and a backend: for ``auto`` a CUDA GPU if there is one, else OpenVINO.

    Apple's GPU is used only when ``mps`` is given.

    Raises:
        OptionError, DeviceError: see :func:`resolve`.
    """
    if not _DEVICE.fullmatch(device):
        raise OptionError("device", f"{device!r} is none of auto, cpu, cuda, cuda:1 … and mps.")
    if backend not in {"auto", *BACKENDS}:
        raise OptionError("backend", f"{backend!r} is none of auto, torch and openvino.")
    if backend == "openvino" and device not in {"auto", "cpu"}:
        raise OptionError(
            "backend", f"openvino computes on the CPU only: choose torch for the device {device}."
        )
    if device == "auto":
        wanted = backend != "openvino" and has_cuda_driver() and gpu_count() > 0
        device = "cuda" if wanted else "cpu"
    if device == "cpu" and backend != "torch" and find_spec("openvino") is not None:
        return device, "openvino"
    if backend == "openvino":
        raise DeviceError(f"OpenVINO is not installed. Run {pip_install('openvino')}.")
    _require(device)
    return device, "torch"


def _require(device: str) -> None:
    """Check that this machine has a PyTorch device."""
    kind, _, index = device.partition(":")
    if kind == "cuda" and int(index or 0) >= (count := gpu_count()):
        raise DeviceError(
            f"PyTorch sees {count} CUDA devices here, so there is no {device}. Choose the device "
            "cpu, or run `wsisam-qupath doctor` to see why."
        )
    if kind == "mps" and not _has_mps():
        raise DeviceError(
            "This machine has no Apple GPU that PyTorch can use. Choose the device cpu."
        )


def gpu_count() -> int:
    """Count the CUDA devices that PyTorch can use. Imports PyTorch, which takes seconds."""
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def _has_mps() -> bool:
    import torch  # 4 s, which only this backend needs

    return torch.backends.mps.is_available()


def has_cuda_driver() -> bool:
    """Ask the driver itself: importing PyTorch for the question would take seconds."""
    library = "nvcuda.dll" if platform.system() == "Windows" else "libcuda.so.1"
    try:
        driver = ctypes.CDLL(library)
    except OSError:
        return False
    count = ctypes.c_int(0)
    return (
        driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(count)) == 0
    ) and count.value > 0


def _torch(
    base: Base, weights: Weights, adapter: Adapter | None, device: str, threads: int
) -> Backend:
    import torch

    from ..model.build import build_networks, read_state  # imports PyTorch
    from .backends.torch_backend import TorchBackend

    torch.set_num_threads(threads)
    return TorchBackend(build_networks(base, read_state(weights.path), adapter), device)


def _openvino(base: Base, weights: Weights, adapter: Adapter | None, threads: int) -> Backend:
    from .backends.openvino_backend import OpenVinoBackend  # 0.3 s

    def export(folder: Path) -> None:
        from ..model.build import build_networks, read_state  # imports PyTorch
        from .backends.openvino_export import export_networks

        export_networks(build_networks(base, read_state(weights.path), adapter), folder)

    return OpenVinoBackend(base, adapter, cache_folder() / "openvino", export, threads)
