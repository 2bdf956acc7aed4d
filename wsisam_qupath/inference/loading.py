"""Resolve the choice of a model into files and a device, and load it."""

from __future__ import annotations

import ctypes
import math
import platform
import re
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

from ..errors import TORCH_EXTRA, DeviceError, OptionError, pip_install
from ..files import cache_folder
from ..model.bases import find_base
from ..model.shipped import load_chosen_adapter
from ..model.weights import Weights, locate_weights
from ..options import ModelSpec
from .backends import Backend
from .chosen import ChosenModel
from .cores import count_usable_cores
from .precision import choose_precision, read_chip_features
from .predictor import Predictor
from .ready_graphs import (
    ENCODER,
    ReadyGraphs,
    find_int8_encoder,
    find_ready_encoder,
    find_ready_graphs,
)

if TYPE_CHECKING:
    from ..model.build import Networks
    from .stored_patches import StoredPatches

BackendName: TypeAlias = Literal["torch", "openvino"]
BACKENDS: tuple[BackendName, ...] = ("torch", "openvino")
_DEVICE = re.compile(r"auto|cpu|mps|cuda(:\d+)?", re.ASCII)
_PYTORCH = ("torch", "torchvision", "timm", "segment_anything")


@dataclass(frozen=True)
class ResolvedModel(ChosenModel):
    """A model with its files and device, which were found and checked. Nothing is loaded yet.

    Attributes:
        weights: weights of the base with a verified checksum. None if ``graphs`` do without.
        graphs: graphs of decoders that ship with this package, if they are this model's.
        int8_encoder: graph of the encoder in int8; None in other precisions.
        device: PyTorch's name of the device.
        threads: CPU threads that compute; None is one per core that this process may use.
        embeddings_gb: see :class:`.ModelSpec`.
    """

    weights: Weights | None
    graphs: ReadyGraphs | None
    device: str
    backend: BackendName
    int8_encoder: ReadyGraphs | None = None
    threads: int | None = None
    embeddings_gb: float = 0.0

    def load(self, graphs_folder: Path | None = None) -> Predictor:
        """Load the networks. Takes seconds, and longer the first time on a machine.

        Args:
            graphs_folder: folder for the graphs that OpenVINO runs, for a model that is not used
                for long; None is the user's cache.
        """
        threads = self.threads or count_usable_cores()
        if self.backend == "openvino":
            folder = graphs_folder or cache_folder() / "openvino"
            backend = self._load_openvino(threads, folder)
        else:
            backend = self._load_torch(threads)
        return Predictor(backend, self.base, self.adapter, self._open_store(backend))

    def _open_store(self, backend: Backend) -> StoredPatches | None:
        if not self.embeddings_gb:
            return None
        from .embedding_store import FOLDER, GB, EmbeddingStore
        from .stored_patches import StoredPatches

        store = EmbeddingStore(cache_folder() / FOLDER, int(self.embeddings_gb * GB))
        return StoredPatches(store, backend, self.base, self.adapter)

    def _load_torch(self, threads: int) -> Backend:
        import torch

        from .backends.torch_backend import TorchBackend

        torch.set_num_threads(threads)
        return TorchBackend(self._build_networks(), self.device, self.precision)

    def _load_openvino(self, threads: int, folder: Path) -> Backend:
        from .backends.openvino_backend import OpenVinoBackend  # 0.3 s

        return OpenVinoBackend(
            self.base, self.adapter, folder, self._write_graphs, threads, self.precision
        )

    def _write_graphs(self, folder: Path) -> None:
        from .backends.openvino_encoder import write_ready_encoder

        has_ready = find_ready_encoder(self.base, self.adapter) is not None
        if self.graphs is not None:
            self.graphs.unpack(folder)
        else:
            self._export_graphs(folder, with_encoder=not (has_ready or self.int8_encoder))
        if self.int8_encoder is not None:
            self.int8_encoder.unpack(folder)
        elif has_ready:
            write_ready_encoder(self.base, self.adapter, folder)

    def _export_graphs(self, folder: Path, *, with_encoder: bool) -> None:
        from .backends.openvino_export import export_decoders, export_encoder  # imports PyTorch

        networks = self._build_networks()
        export_decoders(networks, folder)
        if with_encoder:
            export_encoder(networks, folder / f"{ENCODER}.xml")

    def _build_networks(self) -> Networks:
        from ..model.build import build_networks, read_state  # imports PyTorch

        assert self.weights is not None, self.base.name
        return build_networks(self.base, read_state(self.weights.path), self.adapter)


def resolve(spec: ModelSpec) -> ResolvedModel:
    """Find the base, adapter, weights, device and backend of a model, and check each of them.

    Every error that a user can make in choosing a model is found here, before any work.

    Raises:
        OptionError: an unknown base, device, backend or precision, or one that the others lack.
        DeviceError: this machine does not have the device or the backend.
        WeightsError: the base's weights are missing or damaged.
        AdapterError: the adapter is missing, damaged, or was trained for another base.
    """
    base = find_base(spec.base)
    device, backend = choose(spec.device, spec.backend)
    adapter = load_chosen_adapter(spec.adapter, base)
    if not (math.isfinite(spec.embeddings_gb) and spec.embeddings_gb >= 0):
        raise OptionError("embeddings_gb", f"{spec.embeddings_gb:g} is no size: give 0 or more GB.")
    int8_encoder = find_int8_encoder(base, adapter)
    precision = choose_precision(
        spec.precision,
        backend=backend,
        has_int8=int8_encoder is not None,
        features=read_chip_features(),
    )
    graphs = None
    if backend == "openvino" and spec.weights is None:
        graphs = find_ready_graphs(base, adapter)
    weights = None
    if graphs is None:
        check_pytorch()
        weights = locate_weights(base, path=spec.weights)  # reads them whole, so the last
    return ResolvedModel(
        base,
        adapter,
        weights,
        graphs,
        device,
        backend,
        int8_encoder if precision == "int8" else None,
        spec.threads,
        spec.embeddings_gb,
        precision=precision,
    )


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


def check_pytorch() -> None:
    """Check that PyTorch and the packages around it are there, without importing them.

    Raises:
        DeviceError: one is missing.
    """
    missing = [name for name in _PYTORCH if find_spec(name) is None]
    if missing:
        raise DeviceError(
            f"This needs PyTorch, and the package {missing[0]} is not installed: without PyTorch, "
            "only the default base with its own adapter runs, on the CPU. Run "
            f"{pip_install(TORCH_EXTRA)}."
        )


def _require(device: str) -> None:
    """Check that this machine has a PyTorch device."""
    check_pytorch()
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
    if find_spec("torch") is None:
        return 0
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def _has_mps() -> bool:
    import torch  # 4 s, which only this backend needs

    return torch.backends.mps.is_available()


def has_cuda_driver() -> bool:
    """Ask the driver for a CUDA device: importing PyTorch for the question would take seconds."""
    library = "nvcuda.dll" if platform.system() == "Windows" else "libcuda.so.1"
    try:
        driver = ctypes.CDLL(library)
    except OSError:
        return False
    count = ctypes.c_int(0)
    return (
        driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(count)) == 0
    ) and count.value > 0
