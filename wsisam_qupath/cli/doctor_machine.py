"""What ``doctor`` looks at below QuPath: Python, libraries, folders, and the model at work."""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import platform
import shutil
import struct
import sys
import tempfile
import warnings
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from ..errors import TORCH_EXTRA, pip_install
from ..files import CACHE_VARIABLE, cache_folder, measure_folder_bytes
from ..server.connection_file import OWN_FOLDER

_PYTHON_MIN = (3, 10)
_POINTER_BYTES = 8
_ROOM_BYTES = 200_000_000
"""Free space that is needed: a prepared model takes about 150 MB."""


@dataclass(frozen=True)
class Finding:
    """What a probe found and, where something does not work, what to do about it."""

    detail: str
    fix: str | None = None


def look_at_python() -> Finding:
    bits = 8 * struct.calcsize("P")
    found = f"{platform.python_version()}, {bits} bit, {platform.machine()}, at {sys.executable}"
    if sys.version_info[:2] < _PYTHON_MIN or bits < 8 * _POINTER_BYTES:
        wanted = ".".join(map(str, _PYTHON_MIN))
        return Finding(found, f"Install a 64-bit Python {wanted} or newer.")
    if _is_translated():
        return Finding(
            found, "Install a Python for Apple's chips (arm64): this one is for Intel's."
        )
    return Finding(found)


def _is_translated() -> bool:
    """Whether macOS runs a Python for Intel's chips on one of Apple's."""
    return (sys.platform, platform.machine()) == ("darwin", "x86_64") and "ARM64" in (
        platform.version()
    )


def look_at_computer() -> Finding:
    return Finding(f"{platform.platform()}, {os.cpu_count()} CPU cores")


def look_at_locale() -> Finding:
    names, texts = sys.getfilesystemencoding(), sys.stdout.encoding
    if names != "utf-8":
        return Finding(
            f"names of files in {names}, which lacks letters",
            "Set the environment variable PYTHONUTF8 to 1.",
        )
    return Finding(f"names of files in {names}, texts in {texts}")


def look_at_pytorch() -> Finding:
    if find_spec("torch") is None:
        return Finding("not installed; GPUs, other models than the default, and training need it")
    import torch  # takes seconds

    # The encoders need it, and a build that does not fit PyTorch's fails on import.
    importlib.import_module("torchvision")
    return Finding(f"{torch.__version__}, torchvision {importlib.metadata.version('torchvision')}")


def look_at_gpu() -> Finding:
    from ..inference.loading import has_cuda_driver  # imports NumPy

    if find_spec("torch") is None:
        if not has_cuda_driver():
            return Finding("none looked for without PyTorch")
        return Finding(
            "here is an NVIDIA GPU, but PyTorch is not installed",
            f"Run {pip_install(TORCH_EXTRA)}. Until then the CPU is used.",
        )
    import torch  # takes seconds

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        has_cuda = torch.cuda.is_available()
    if has_cuda:
        return Finding(f"{torch.cuda.get_device_name()}, the device cuda")
    if caught:
        # A driver too old for this build: PyTorch warns, and takes the CPU.
        return Finding(
            f"no CUDA: {str(caught[0].message).splitlines()[0]}",
            "Update the NVIDIA driver, or install a PyTorch made for an older CUDA. Until then "
            "the CPU is used.",
        )
    if torch.version.cuda is None and has_cuda_driver():
        return Finding(
            "here is an NVIDIA GPU, but PyTorch was made for the CPU",
            "Install PyTorch for CUDA with the command that pytorch.org/get-started/locally "
            "shows. Until then the CPU is used.",
        )
    apple = torch.backends.mps.is_available()
    return Finding("Apple's, the device mps" if apple else "none that PyTorch can use")


def look_at_openvino() -> Finding:
    from ..inference.backends.openvino_runtime import ov  # takes half a second

    core = ov.Core()
    precision = core.get_property("CPU", "INFERENCE_PRECISION_HINT").get_type_name()
    name = core.get_property("CPU", "FULL_DEVICE_NAME")
    version = importlib.metadata.version("openvino")
    return Finding(f"{version}; {name}, computes in {precision}")


def look_at_model() -> Finding:
    """Outline an object on a slide with the model that every command uses by default.

    The first time on a machine that prepares the model.
    """
    from ..inference.tasks import load_segmenter  # imports NumPy, as those below
    from ..slide import open_slide

    with tempfile.TemporaryDirectory() as folder:
        slide = Path(folder, "slide.tif")
        draw_slide(slide)
        segmenter = load_segmenter()
        with open_slide(slide) as opened:
            (result,) = segmenter.segment(opened, boxes=[(150, 150, 350, 350)])
    outlined = "" if result.polygon is not None else ", but outlined nothing on a drawn disk"
    fix = "Try the backend torch, and report this." if outlined else None
    return Finding(f"{segmenter.predictor.backend.name} encodes and decodes{outlined}", fix)


def draw_slide(path: Path) -> None:
    """Draw a dark disk on a light ground, 512 x 512 px at 0.5 µm/px."""
    import numpy as np  # 0.1 s, which `--help` need not spend

    from ..slide.pyramid import write_pyramid  # imports NumPy

    y, x = np.ogrid[:512, :512]
    pixels = np.full((512, 512, 3), 230, dtype=np.uint8)
    pixels[(x - 250) ** 2 + (y - 250) ** 2 < 90**2] = (120, 60, 130)
    write_pyramid(path, pixels, mpp=0.5)


def look_at_cache() -> Finding:
    from rich.filesize import decimal  # 0.1 s, which `--help` need not spend

    folder = cache_folder()
    try_to_write(folder)
    used = measure_folder_bytes(folder)
    free = shutil.disk_usage(folder).free
    found = f"{folder}: {decimal(used)} in use, {decimal(free)} free on the disk"
    if free < _ROOM_BYTES:
        return Finding(
            found,
            f"A prepared model takes about 150 MB: make room, or name a folder on another disk in "
            f"{CACHE_VARIABLE}.",
        )
    return Finding(found)


def look_at_folders() -> Finding:
    """Check that commands can write into their folders, or where such a folder will be made."""
    own = OWN_FOLDER.expanduser()
    folders = [own if own.is_dir() else own.parent, Path(tempfile.gettempdir())]
    for folder in folders:
        try_to_write(folder)
    return Finding(f"can be written: {', '.join(map(str, folders))}")


def try_to_write(folder: Path) -> None:
    """Write a file and remove it: on every platform the only sure way to learn if one may.

    Raises:
        OSError: it cannot be written, or its disk is full.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder) as file:
        file.write(bytes(1 << 16))
        file.flush()
        os.fsync(file.fileno())
