"""Features of a frozen encoder, computed once per view and kept in memory-mapped files.

One folder per set of views, named by a checksum over all that its content depends on. An
interrupted filling goes on where it stopped. The pairs of a chain share their patches: what is the
LR patch of one view is kept once, and is the HR patch of the next.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import DTypeLike, NDArray

from wsisam_qupath.errors import OutputError
from wsisam_qupath.inference.backends import Encoder
from wsisam_qupath.model.bases import Base
from wsisam_qupath.prompts.encoding import MASK_PX
from wsisam_qupath.slide import Slide

from ..dataset import AnnotatedImage
from .samples import Sample, SampleMasks, SamplingSettings, rasterize_targets, read_patch

CACHE_VERSION = 2
_TOKENS, _TOKEN_DIM = (64, 64), 256
_PACKED = MASK_PX * MASK_PX // 8
_MIB = 1 << 20
_HEADER = 4096
"""Bytes at the beginning of an array's file that hold its header; the rest may be overwritten."""

_Arrays: TypeAlias = "dict[str, np.memmap[Any, np.dtype[Any]]]"


@dataclass(frozen=True)
class CachedSample:
    """One view: float16 features of both patches, and the objects in it.

    Attributes:
        hr_tokens, lr_tokens: 4096 x 256, final tokens of the HR and the LR patch.
        hr_early, lr_early: C x 64 x 64, early features of the HR and the LR patch.
    """

    hr_tokens: NDArray[np.float16]
    hr_early: NDArray[np.float16]
    lr_tokens: NDArray[np.float16]
    lr_early: NDArray[np.float16]
    truth: SampleMasks


class FeatureCache:
    """Cached views, in the order in which they were sampled.

    Args:
        folder: folder that :func:`fill_cache` made.
        chain: number of pairs in a chain; see :class:`.SamplingSettings`.
    """

    def __init__(self, folder: Path, chain: int) -> None:
        self.folder = folder
        self._chain = chain
        self._arrays = {p.stem: np.load(p, mmap_mode="r") for p in folder.glob("*.npy")}

    def __len__(self) -> int:
        return len(self._arrays["done"])

    @property
    def usable(self) -> NDArray[np.intp]:
        """Indices of the views with an object to ask for."""
        return np.flatnonzero((self._arrays["counts"] > 0) & (self._arrays["done"] > 0))

    def sample(self, index: int) -> CachedSample:
        """Read one view; its features are memory-mapped, its masks unpacked."""
        arrays = self._arrays
        count = int(arrays["counts"][index])
        areas = _unpack(arrays["areas"][index])
        hr, lr = _locate_patches(index, self._chain)
        return CachedSample(
            arrays["tokens"][hr],
            arrays["early"][hr],
            arrays["tokens"][lr],
            arrays["early"][lr],
            SampleMasks(
                hr_masks=_unpack(arrays["hr_masks"][index, :count]),
                lr_masks=_unpack(arrays["lr_masks"][index, :count]),
                hr_objects=areas[0],
                hr_known=areas[1],
                lr_known=areas[2],
                hr_whole_px=np.array(arrays["whole_px"][index, :count], dtype=np.float64),
                is_whole=arrays["is_whole"][index, :count].astype(bool),
            ),
        )


def count_bytes(count: int, base: Base, settings: SamplingSettings) -> int:
    """Compute the disk space of the features of a number of samples."""
    return sum(
        int(np.prod(shape)) * np.dtype(dtype).itemsize
        for shape, dtype in _layout(base, settings, count).values()
    )


def cache_key(
    base: Base,
    backend: str,
    images: Sequence[AnnotatedImage],
    slides: Sequence[Slide],
    samples: Sequence[Sample],
    settings: SamplingSettings,
) -> str:
    """Checksum over the base, the backend's precision, the views, and the slides and objects."""
    digest = hashlib.sha256(f"{CACHE_VERSION}|{base.sha256}|{backend}|".encode())
    digest.update(settings.model_dump_json().encode())
    for image, slide in zip(images, slides, strict=True):
        content = (slide.identity.size_bytes, slide.identity.mtime_ns)
        digest.update(repr((content, slide.mpp, image.name)).encode())
        for truth in image.truths:
            digest.update(truth.id.encode() + truth.l0_outline.wkb)
        digest.update(b"" if image.l0_complete is None else image.l0_complete.wkb)
    for sample in samples:
        digest.update(json.dumps(asdict(sample)).encode())
    return digest.hexdigest()[:24]


def fill_cache(
    folder: Path,
    encoder: Encoder,
    base: Base,
    images: Sequence[AnnotatedImage],
    slides: Sequence[Slide],
    samples: Sequence[Sample],
    settings: SamplingSettings,
    on_view: Callable[[], None] = lambda: None,
) -> FeatureCache:
    """Encode the views that are not cached yet.

    Args:
        folder: folder of the arrays, named by :func:`cache_key`.
        on_view: called after each view.

    Raises:
        OutputError: the disk is full or cannot be written.
        SlideError: a slide's pixels cannot be read.
    """
    with _translate_os_errors(folder):
        arrays = _open_arrays(folder, base, settings, len(samples))
        # Image by image: only a few slides are open at a time.
        for index in sorted(range(len(samples)), key=lambda one: samples[one].image):
            sample = samples[index]
            if not arrays["done"][index]:
                _write(
                    arrays,
                    index,
                    encoder,
                    images[sample.image],
                    slides[sample.image],
                    sample,
                    settings,
                )
                arrays["done"][index] = 1
            on_view()
        for array in arrays.values():
            array.flush()
    return FeatureCache(folder, settings.chain)


def count_patches(count: int, chain: int) -> int:
    """Count the patches of a number of samples."""
    return _locate_patches(count - 1, chain)[1] + 1 if count else 0


def _locate_patches(index: int, chain: int) -> tuple[int, int]:
    """Find the places of the HR and the LR patch of a sample in the arrays."""
    number, level = divmod(index, chain)
    first = number * (chain + 1)
    return first + level, first + level + 1


def _layout(
    base: Base, settings: SamplingSettings, count: int
) -> dict[str, tuple[tuple[int, ...], DTypeLike]]:
    """Shape and type of each array, for a number of samples."""
    patches = count_patches(count, settings.chain)
    objects = settings.largest_objects
    return {
        "tokens": ((patches, _TOKENS[0] * _TOKENS[1], _TOKEN_DIM), np.float16),
        "early": ((patches, base.early_channels, *_TOKENS), np.float16),
        "encoded": ((patches,), np.uint8),
        "hr_masks": ((count, objects, _PACKED), np.uint8),
        "lr_masks": ((count, objects, _PACKED), np.uint8),
        "areas": ((count, 3, _PACKED), np.uint8),
        "whole_px": ((count, objects), np.float64),
        "is_whole": ((count, objects), np.uint8),
        "counts": ((count,), np.uint8),
        "done": ((count,), np.uint8),
    }


def _open_arrays(folder: Path, base: Base, settings: SamplingSettings, count: int) -> _Arrays:
    folder.mkdir(parents=True, exist_ok=True)
    return {
        name: _array(folder / f"{name}.npy", shape, dtype)
        for name, (shape, dtype) in _layout(base, settings, count).items()
    }


def _array(path: Path, shape: tuple[int, ...], dtype: DTypeLike) -> np.memmap[Any, np.dtype[Any]]:
    if path.is_file():
        return np.lib.format.open_memmap(path, mode="r+")
    # All its room is taken at once: a mapped file on a full disk would kill the process later.
    own = path.with_suffix(f".{os.getpid()}.part")
    try:
        array = np.lib.format.open_memmap(own, mode="w+", dtype=dtype, shape=shape)
        array.flush()
        del array
        _take_room(own)
        own.replace(path)
    finally:
        own.unlink(missing_ok=True)
    return np.lib.format.open_memmap(path, mode="r+")


def _take_room(path: Path) -> None:
    size = path.stat().st_size
    with path.open("r+b") as file:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, size)
            return
        block = bytes(_MIB)
        file.seek(_HEADER)
        for start in range(_HEADER, size, _MIB):
            file.write(block[: size - start])


@contextmanager
def _translate_os_errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        fix = "Make room there" if exc.errno == errno.ENOSPC else "Check that it can be written"
        raise OutputError(
            f"The features cannot be kept in {folder.parent} ({exc.strerror or exc}). {fix}, use "
            "fewer views, or choose another folder."
        ) from exc


def _write(
    arrays: _Arrays,
    index: int,
    encoder: Encoder,
    image: AnnotatedImage,
    slide: Slide,
    sample: Sample,
    settings: SamplingSettings,
) -> None:
    masks = rasterize_targets(image, sample, settings)
    count = len(masks.hr_masks)
    arrays["counts"][index] = count
    if not count:
        return
    l0_boxes = sample.pair.l0_boxes
    for patch, l0_box in zip(_locate_patches(index, settings.chain), l0_boxes, strict=True):
        if not arrays["encoded"][patch]:
            encoded = encoder.encode([read_patch(slide, sample, l0_box)])
            arrays["tokens"][patch], arrays["early"][patch] = encoded.tokens[0], encoded.early[0]
            arrays["encoded"][patch] = 1
    arrays["hr_masks"][index, :count] = _pack(masks.hr_masks)
    arrays["lr_masks"][index, :count] = _pack(masks.lr_masks)
    arrays["areas"][index] = _pack(np.stack([masks.hr_objects, masks.hr_known, masks.lr_known]))
    arrays["whole_px"][index, :count] = masks.hr_whole_px
    arrays["is_whole"][index, :count] = masks.is_whole


def _pack(masks: NDArray[np.bool_]) -> NDArray[np.uint8]:
    return np.packbits(masks.reshape(len(masks), -1), axis=1)


def _unpack(packed: NDArray[np.generic]) -> NDArray[np.bool_]:
    bits = np.unpackbits(np.asarray(packed, dtype=np.uint8), axis=1)
    return bits.reshape(-1, MASK_PX, MASK_PX).astype(bool)
