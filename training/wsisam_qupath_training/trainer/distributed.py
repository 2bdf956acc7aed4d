"""The device of a run, or its place among several processes that torchrun started."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta

import torch
from torch import distributed

from wsisam_qupath.errors import DeviceError
from wsisam_qupath.inference.loading import choose

from .memory import keep_freed_memory


@dataclass(frozen=True)
class DistributedContext:
    """The device of this process, and its rank among the processes of the run."""

    device: torch.device
    rank: int = 0
    world: int = 1

    def autocast(self) -> AbstractContextManager[object]:
        """bf16 where the device computes in it; elsewhere it would be slower and less exact."""
        if self.device.type == "mps" or (self.device.type == "cpu" and not has_bf16()):
            return nullcontext()
        return torch.autocast(self.device.type, torch.bfloat16)


def has_bf16() -> bool:
    """Whether this CPU multiplies matrices in bf16."""
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


@contextmanager
def run_first_process_alone(context: DistributedContext) -> Iterator[None]:
    """Let the first of several processes run the body before the others."""
    if context.rank:
        distributed.barrier()
    yield
    if context.world > 1 and not context.rank:
        distributed.barrier()


@contextmanager
def open_context(device: str, threads: int | None) -> Iterator[DistributedContext]:
    """Open the context of this process, for the time of the body.

    Under ``torchrun`` every process takes a GPU of its own, or shares the CPU.

    Args:
        device: device name; see :func:`.load_predictor`.
        threads: number of CPU threads; None is PyTorch's default.

    Raises:
        DeviceError: this machine does not have the device.
    """
    if threads is not None:
        torch.set_num_threads(threads)
    chosen, _ = choose(device, "torch")
    with keep_freed_memory(), _flush_denormals(), _join_processes(chosen) as context:
        yield context


@contextmanager
def _flush_denormals() -> Iterator[None]:
    """Flush denormal numbers, which cost a CPU a hundred times as much and mean nothing here.

    Elsewhere in the process they may mean something: afterwards all is as it was.
    """
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


@contextmanager
def _join_processes(chosen: str) -> Iterator[DistributedContext]:
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        yield DistributedContext(torch.device(chosen))
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
        yield DistributedContext(torch.device(chosen), distributed.get_rank(), world)
    finally:
        distributed.destroy_process_group()
