"""What tests run in other processes. Imports no PyTorch, so that they start fast."""

from __future__ import annotations

import shutil
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Barrier
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wsisam_qupath.backends.openvino_backend import OpenVinoBackend
from wsisam_qupath.geometry import Box
from wsisam_qupath.model.bases import find_base
from wsisam_qupath.model.card import PLAIN
from wsisam_qupath.tokens import box_tokens

HR_BOX = Box(2, 17, 110, 148)


def copy_graphs(source: Path, target: Path) -> None:
    """What an export writes, from graphs that were exported before."""
    for graph in source.iterdir():
        if graph.is_file():
            shutil.copy(graph, target / graph.name)


def answer(backend: OpenVinoBackend, patch: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The logits of lite-medsam for ``HR_BOX``."""
    embedding = backend.embed([patch], [])[0]
    return backend.decode(PLAIN, embedding, [box_tokens(HR_BOX)])[0].mask_logits


def export_together(
    barrier: Barrier, answers: Queue[NDArray[np.float32]], graphs: Path, folder: Path, patch: Path
) -> None:
    """Start a backend whose export ends when that of another process does, and answer."""

    def export(target: Path) -> None:
        copy_graphs(graphs, target)
        barrier.wait(timeout=120)

    backend = OpenVinoBackend(find_base("lite-medsam"), None, folder, export)
    answers.put(answer(backend, np.load(patch)))
