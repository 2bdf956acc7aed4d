"""OpenVINO: the backend of CPUs. From the second start on, PyTorch is not imported at all.

The graphs of the default model ship with this package; those of others are exported by PyTorch.
They are kept in the cache folder, named after the checksums they were made from, with OpenVINO's
compiled form of them beside. Both can be deleted at any time.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from itertools import chain
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from ...errors import DeviceError
from ...model.adapter import Adapter
from ...model.bases import Base
from ...model.card import PLAIN, PLAIN_CARD
from ...options import Precision
from ...prompts.encoding import EncodedPrompt, MaskArray, place_in_patches
from ..ready_graphs import list_sources
from . import (
    Embedding,
    Encoded,
    EncodedPatch,
    ImageArray,
    PatchSource,
    Prediction,
    pack_predictions,
)
from .openvino_runtime import ov

FEATURE_GRAPHS = ("features", "lr-features")
"""Graphs of what a WSI-SAM decoder computes from the image of each patch alone, HR first."""

_COMPILING_S_MAX = 120.0
"""Longest wait for another process that compiles, seconds: it takes a few, so a longer one
hangs."""

_UNUSED_SECONDS_MAX = 30 * 86400.0

Export: TypeAlias = Callable[[Path], None]
FloatTensor: TypeAlias = NDArray[np.float32]


class OpenVinoBackend:
    """Runs a base on the CPU, in bf16 where the chip has it, or with its encoder in int8.

    Args:
        base, adapter: the model to run.
        folder: folder that the graphs are kept in.
        export: writes all graphs of the base and the adapter into a folder; called when they are
            not there yet.
        threads: how many threads compute; None is as many as there are cores.
        precision: for "int8" the exported encoder must be one in int8.

    Raises:
        DeviceError: the graphs cannot be kept or compiled.
    """

    def __init__(
        self,
        base: Base,
        adapter: Adapter | None,
        folder: Path,
        export: Export,
        threads: int | None = None,
        precision: Precision = "bf16",
    ) -> None:
        self._precision: Precision = precision
        self._cards = adapter.card.decoders if adapter else {PLAIN: PLAIN_CARD}
        self._size_px = base.size_px
        graphs = graph_folder(folder, base, adapter, in_int8=precision == "int8")
        self._graphs = _Graphs(graphs, export, threads, in_f32=precision == "f32")

    @property
    def name(self) -> str:
        """See :class:`.Backend`."""
        floats = self._graphs.precision
        return f"OpenVINO on CPU, {f'int8 and {floats}' * (self._precision == 'int8') or floats}"

    @property
    def precision(self) -> Precision:
        """See :class:`.Backend`."""
        return self._precision

    @property
    def pairs_at_once(self) -> int:
        """One: a CPU gains nothing from larger batches (measured), and answers come sooner."""
        return 1

    def encode(self, patches: Sequence[ImageArray]) -> Encoded:
        """See :class:`.Backend`."""
        parts = [self._graphs.run("encoder", [patch[None]]) for patch in patches]
        tokens, early = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
        return Encoded(tokens, early)

    def embed(self, pairs: Sequence[Sequence[PatchSource]]) -> list[Embedding]:
        """See :class:`.Backend`."""
        return [self._embed_pair(*pair) for pair in pairs]

    def take(self, encoded: Encoded) -> EncodedPatch:
        """See :class:`.Backend`."""
        return EncodedPatch(*encoded)

    def decode(
        self, decoder: str, embedding: Embedding, prompts: Sequence[EncodedPrompt]
    ) -> list[tuple[Prediction, ...]]:
        """See :class:`.Backend`."""
        return [self._run_decoder(decoder, embedding, prompt) for prompt in prompts]

    def read_tokens(self, patch: EncodedPatch) -> FloatTensor:
        """See :class:`.Backend`."""
        tokens: FloatTensor = patch.tokens[0]
        return tokens

    def _embed_pair(self, *sources: PatchSource) -> Embedding:
        patches = tuple(map(self._encode_patch, sources))
        features = {
            name: tuple(
                self._graphs.run(f"{name}.{graph}", list(patch))[0]
                for graph, patch in zip(FEATURE_GRAPHS[: card.patches], patches, strict=False)
            )
            for name, card in self._cards.items()
            if card.fuses_features and card.patches <= len(patches)
        }
        arrays = [*chain(*patches), *chain(*features.values())]
        return Embedding(patches, features, sum(array.nbytes for array in arrays))

    def _encode_patch(self, source: PatchSource) -> EncodedPatch:
        if isinstance(source, EncodedPatch):
            return source
        return EncodedPatch(*self._graphs.run("encoder", [source[None]]))

    def _run_decoder(
        self, decoder: str, embedding: Embedding, prompt: EncodedPrompt
    ) -> tuple[Prediction, ...]:
        card = self._cards[decoder]
        count = card.count_patches(fits_hr=prompt.fits_hr)
        masks = (prompt.mask_input, prompt.lr_mask_input)
        images = [
            self._apply_mask_prompt(decoder, patch.tokens, mask)
            for patch, mask in zip(embedding.patches[:count], masks, strict=False)
        ]
        if card.fuses_features:
            images += embedding.features[decoder]
            return pack_predictions(*self._answer(decoder, images, prompt, prompt.point_coords))
        placed = place_in_patches(prompt.point_coords, self._size_px)
        answers = [
            self._answer(decoder, [image], prompt, coords)
            for image, coords in zip(images, placed, strict=False)
        ]
        logits, ious = (np.concatenate(parts) for parts in zip(*answers, strict=True))
        return pack_predictions(logits, ious)

    def _answer(
        self,
        decoder: str,
        images: Sequence[FloatTensor],
        prompt: EncodedPrompt,
        point_coords: FloatTensor,
    ) -> tuple[FloatTensor, FloatTensor]:
        """Compute masks and predicted IoUs of one prompt: R x 256 x 256 and R."""
        logits, ious = self._graphs.run(
            f"{decoder}.decoder", [*images, point_coords[None], prompt.point_labels[None]]
        )
        return logits[0], ious[0]

    def _apply_mask_prompt(
        self, decoder: str, embedding: FloatTensor, mask: MaskArray | None
    ) -> FloatTensor:
        # SAM adds a mask prompt to the embedding, so that one decoder graph answers all prompts.
        if mask is None:
            return embedding
        return embedding + self._graphs.run(f"{decoder}.mask", [mask[None]])[0]


class _Graphs:
    """Exported graphs in a folder, each compiled when it is first run."""

    def __init__(self, folder: Path, export: Export, threads: int | None, *, in_f32: bool) -> None:
        self._folder = folder
        self._export = export
        self._core = ov.Core()
        self._requests: dict[str, ov.InferRequest] = {}
        if not folder.is_dir():
            _export_whole(folder, export)
            remove_unused(folder.parent, keep=folder)
        with suppress(OSError):  # so that nobody takes them for unused
            os.utime(folder)
        # Pinned, the threads of all processes would crowd on the first cores, others idle.
        self._core.set_property("CPU", {"ENABLE_CPU_PINNING": False})
        if threads is not None:
            self._core.set_property("CPU", {"INFERENCE_NUM_THREADS": threads})
        if in_f32:
            self._core.set_property("CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        # Else OpenVINO takes what it compiled for other floats, and crashes or answers with NaN.
        # Not before the export, as it creates this folder at once. It mends what is in there.
        floats = self._core.get_property("CPU", "INFERENCE_PRECISION_HINT").to_string()
        self._core.set_property({"CACHE_DIR": str(folder / f"compiled-{floats}")})
        self._request("encoder")

    @property
    def precision(self) -> str:
        """The floats that the graphs compute in, as OpenVINO names them."""
        model = self._request("encoder").get_compiled_model()
        return str(model.get_property("INFERENCE_PRECISION_HINT").to_string())

    def run(self, name: str, inputs: Sequence[NDArray[Any]]) -> list[FloatTensor]:
        """Run a graph."""
        request = self._request(name)
        # Sharing spares copies of 4 to 8 MB each; the arrays outlive the call.
        request.infer(
            [ov.Tensor(np.ascontiguousarray(array), shared_memory=True) for array in inputs]
        )
        return [np.array(tensor.data) for tensor in request.output_tensors]

    def _request(self, name: str) -> ov.InferRequest:
        if name not in self._requests:
            self._requests[name] = self._repair(name).create_infer_request()
        return self._requests[name]

    def _repair(self, name: str) -> ov.CompiledModel:
        try:
            return self._compile(name)
        except RuntimeError:  # damaged or missing: all graphs are exported again
            _export_whole(self._folder, self._export)
        try:
            return self._compile(name)
        except RuntimeError as exc:
            raise DeviceError(
                f"OpenVINO cannot use the model's graphs in {self._folder}, even after "
                "exporting them again. Delete that folder, or choose the backend torch."
            ) from exc

    def _compile(self, name: str) -> ov.CompiledModel:
        # Never reshaped to a fixed number of prompt tokens: in bf16, OpenVINO 2026.4 answers
        # garbage where the transformer's tokens are then 8, as for WSI-SAM and a box.
        # By its path, so that a graph with a compiled form beside it is not read at all.
        with _lock_folder(self._folder):
            path = self._folder / f"{name}.xml"
            return self._core.compile_model(path, "CPU", {"PERFORMANCE_HINT": "LATENCY"})


def graph_folder(
    folder: Path, base: Base, adapter: Adapter | None, *, in_int8: bool = False
) -> Path:
    """Find the folder of the graphs of a base and an adapter, by their checksums.

    Args:
        in_int8: whether the encoder is the int8 one.
    """
    version, *checksums = list_sources(base, adapter)
    made_from = [version, ov.__version__, *checksums, *["int8"] * in_int8]
    return folder / hashlib.sha256("|".join(made_from).encode()).hexdigest()[:16]


def remove_unused(folder: Path, *, keep: Path) -> None:
    """Remove graphs that nobody has used for a month, as of older versions: 120 MB each.

    Args:
        keep: graphs that were just made.
    """
    for graphs in folder.iterdir():
        with suppress(OSError):
            is_old = time.time() - graphs.stat().st_mtime > _UNUSED_SECONDS_MAX
            if is_old and graphs != keep and graphs.is_dir():
                shutil.rmtree(graphs, ignore_errors=True)


@contextmanager
def _lock_folder(folder: Path) -> Iterator[None]:
    """Let one process compile at a time: if two keep the same graph at once, OpenVINO fails one.

    Where no lock can be had, they take their chance: who fails makes the graphs again.
    """
    lock = FileLock(folder / "lock", timeout=_COMPILING_S_MAX)
    with ExitStack() as held:
        with suppress(OSError, NotImplementedError):  # Timeout is an OSError
            held.enter_context(lock)
        yield


def _export_whole(folder: Path, export: Export) -> None:
    """Export into a private folder, then rename it: no other process sees half of it."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, ignore_cleanup_errors=True) as own:
            made = Path(own) / "graphs"
            made.mkdir()
            export(made)
            try:
                made.replace(folder)
            except OSError:
                if not folder.is_dir():
                    raise
                _replace_each(made, folder)
    except OSError as exc:
        raise DeviceError(
            f"The model's graphs cannot be kept in {folder.parent} ({exc.strerror or exc}). Make "
            "room there, or name another folder with the variable WSISAM_QUPATH_CACHE."
        ) from exc


def _replace_each(made: Path, folder: Path) -> None:
    """Replace graphs that are damaged, or that another process has just made alike."""
    for graph in made.iterdir():
        with suppress(PermissionError):  # Windows keeps what is in use, which is sound
            graph.replace(folder / graph.name)
