"""Choose a device and a backend, and load a base with an adapter into it."""

from __future__ import annotations

import ctypes
import platform
import re
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, TypeAlias

from ..errors import DeviceError, OptionError
from ..files import cache_folder
from ..model.adapter import Adapter, read_adapter
from ..model.bases import Base, find_base
from ..model.weights import Weights, locate_weights
from .backends import Backend
from .predictor import Predictor

BackendName: TypeAlias = Literal["torch", "openvino"]
BACKENDS: tuple[BackendName, ...] = ("torch", "openvino")
_DEVICE = re.compile(r"auto|cpu|mps|cuda(:\d+)?", re.ASCII)


def load_predictor(
    base: str | Base = "lite-medsam",
    *,
    adapter: Path | Adapter | None = None,
    weights: Path | None = None,
    device: str = "auto",
    backend: str = "auto",
    threads: int | None = None,
) -> Predictor:
    """Load a base, with an adapter or without.

    Args:
        base: a name in :data:`.bases.BASES`, or a base of one's own.
        adapter: a ``.safetensors`` file made for it, or what :func:`.read_adapter` read.
        weights: a copy of the base's weights, in place of the bundled or downloaded ones.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1`` … or ``mps``.
        backend: ``auto``, ``torch`` or ``openvino``.
        threads: CPU threads to compute with; None is as many as there are cores.

    Raises:
        OptionError: an unknown base, device or backend, or a pair that does not go together.
        DeviceError: this machine does not have it.
        WeightsError, AdapterError: see there.
    """
    chosen = find_base(base) if isinstance(base, str) else base
    device, backend = choose(device, backend)
    located = locate_weights(chosen, path=weights)
    read = read_adapter(adapter, chosen) if isinstance(adapter, Path) else adapter
    if backend == "openvino":
        return Predictor(_openvino(chosen, located, read, threads), chosen, read)
    return Predictor(_torch(chosen, located, read, device, threads), chosen, read)


def choose(device: str, backend: str) -> tuple[str, BackendName]:
    """Resolve ``auto``: a CUDA GPU if there is one, else OpenVINO on the CPU.

    Apple's GPU is used when it is asked for (``mps``).

    Raises:
        OptionError, DeviceError: see :func:`load_predictor`.
    """
    if not _DEVICE.fullmatch(device):
        raise OptionError(f"There is no device {device!r}. Use auto, cpu, cuda, cuda:1 … or mps.")
    if backend not in {"auto", *BACKENDS}:
        raise OptionError(f"There is no backend {backend!r}. Use auto, torch or openvino.")
    if backend == "openvino" and device not in {"auto", "cpu"}:
        raise OptionError(f"OpenVINO runs on the CPU here. Use --backend torch with {device}.")
    if device == "auto":
        wanted = backend != "openvino" and _has_cuda_driver() and gpu_count() > 0
        device = "cuda" if wanted else "cpu"
    if device == "cpu" and backend != "torch" and find_spec("openvino") is not None:
        return device, "openvino"
    if backend == "openvino":
        raise DeviceError("OpenVINO is not installed. Run `pip install openvino`.")
    _require(device)
    return device, "torch"


def _require(device: str) -> None:
    """A PyTorch device must really be there."""
    kind, _, index = device.partition(":")
    if kind == "cuda" and int(index or 0) >= (count := gpu_count()):
        raise DeviceError(
            f"PyTorch sees {count} CUDA devices here, so there is no {device}. Use --device "
            "cpu, or run `wsisam-qupath doctor` to see why."
        )
    if kind == "mps" and not _has_mps():
        raise DeviceError("This machine has no Apple GPU that PyTorch can use. Use --device cpu.")


def gpu_count() -> int:
    """How many CUDA devices PyTorch can use. Imports it, which takes seconds."""
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def _has_mps() -> bool:
    import torch  # 4 s, which only this backend needs

    return torch.backends.mps.is_available()


def _has_cuda_driver() -> bool:
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
    base: Base, weights: Weights, adapter: Adapter | None, device: str, threads: int | None
) -> Backend:
    import torch

    from ..model.build import build_networks, read_state  # imports PyTorch
    from .backends.torch_backend import TorchBackend

    if threads is not None:
        torch.set_num_threads(threads)
    return TorchBackend(build_networks(base, read_state(weights.path), adapter), device)


def _openvino(
    base: Base, weights: Weights, adapter: Adapter | None, threads: int | None
) -> Backend:
    from .backends.openvino_backend import OpenVinoBackend  # 0.3 s

    def export(folder: Path) -> None:
        from ..model.build import build_networks, read_state  # imports PyTorch
        from .backends.openvino_export import export_networks

        export_networks(build_networks(base, read_state(weights.path), adapter), folder)

    return OpenVinoBackend(base, adapter, cache_folder() / "openvino", export, threads)
