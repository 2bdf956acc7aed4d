"""Encoders that ship as graphs of OpenVINO, and those that narrow matrices make of them."""

from __future__ import annotations

from pathlib import Path

from ...model.adapter import Adapter
from ...model.bases import Base
from ..ready_graphs import ENCODER, find_ready_encoder
from .openvino_runtime import ov, save_graph


def write_ready_encoder(base: Base, adapter: Adapter | None, folder: Path) -> None:
    """Write the graph of an encoder that ships, or of one that an adapter makes of it.

    So the encoder of an adapter with narrow matrices needs neither PyTorch nor a graph of its own.

    Raises:
        DeviceError: the archive is damaged.
        AdapterError: the adapter is no longer there, or has what is no number.
        OSError: the folder cannot be written.
    """
    ready = find_ready_encoder(base, adapter)
    assert ready is not None, base.name
    ready.unpack(folder)
    if adapter is not None and adapter.card.lora_rank:
        _add_low_rank(folder / f"{ENCODER}.xml", adapter)


def _add_low_rank(path: Path, adapter: Adapter) -> None:
    """Add to the weights of a graph what :func:`.merge_low_rank` adds to those of the network."""
    core = ov.Core()
    core.set_property({"ENABLE_MMAP": False})  # the files are written again
    graph = core.read_model(path)
    constants = {op.get_friendly_name(): op for op in graph.get_ops()}
    tensors = adapter.tensors(ENCODER)
    for name, up in tensors.items():
        layer, _, part = name.rpartition(".")
        if part == "up":
            plain = constants[f"self.encoder.{layer}.weight"]  # as PyTorch's tracing names it
            merged = ov.op.Constant(plain.data + up @ tensors[f"{layer}.down"])
            merged.set_friendly_name(plain.get_friendly_name())
            plain.output(0).replace(merged.output(0))
    save_graph(graph, path)
