"""Where a run computes: one device, or one of several processes that torchrun started."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
from torch import distributed

from wsisam_qupath.errors import DeviceError
from wsisam_qupath.loading import choose

from .loop import Place


@contextmanager
def first_alone(place: Place) -> Iterator[None]:
    """The first of several processes runs the body before the others do."""
    if place.rank:
        distributed.barrier()
    yield
    if place.world > 1 and not place.rank:
        distributed.barrier()


@contextmanager
def place_of(device: str, threads: int | None) -> Iterator[Place]:
    """The place of this process, for the time of the body.

    Under ``torchrun`` every process takes a GPU of its own, or shares the CPU.

    Args:
        device: see :func:`.load_predictor`.
        threads: CPU threads; None is as many as PyTorch takes by itself.

    Raises:
        DeviceError: this machine does not have the device.
    """
    if threads is not None:
        torch.set_num_threads(threads)
    chosen, _ = choose(device, "torch")
    with _without_denormals(), _place(chosen) as place:
        yield place


@contextmanager
def _without_denormals() -> Iterator[None]:
    """Numbers too small for the format cost a CPU a hundred times as much, and mean nothing here.

    Elsewhere in the process they may mean something: afterwards all is as it was.
    """
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


@contextmanager
def _place(chosen: str) -> Iterator[Place]:
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        yield Place(torch.device(chosen))
        return
    local = int(os.environ.get("LOCAL_RANK", "0"))
    if chosen.startswith("cuda"):
        if local >= torch.cuda.device_count():
            raise DeviceError(
                f"torchrun started {local + 1} processes or more, and there are "
                f"{torch.cuda.device_count()} GPUs. Start one process a GPU."
            )
        chosen = f"cuda:{local}"
        torch.cuda.set_device(local)
    kind = "nccl" if chosen.startswith("cuda") else "gloo"
    # The others wait while the first process encodes the views, which may take hours on a CPU.
    distributed.init_process_group(kind, timeout=timedelta(days=1))
    try:
        yield Place(torch.device(chosen), distributed.get_rank(), world)
    finally:
        distributed.destroy_process_group()
