"""OpenVINO, without the usage statistics that it reports on import, and without its converter.

A hospital's machine must not call home. OpenVINO sends nothing where it finds no telemetry package.
The converter takes a quarter of the import, and only :mod:`.openvino_export` needs it.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

_CONVERTER = "openvino.tools.ovc"

# None in sys.modules is Python's own way to say that a module cannot be imported.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
_is_left_out = _CONVERTER not in sys.modules
if _is_left_out:
    sys.modules[_CONVERTER] = None  # type: ignore[assignment]

import openvino as ov  # noqa: E402

if _is_left_out:
    del sys.modules[_CONVERTER]

__all__ = ["convert", "ov", "save_graph"]


def convert(traced: Any, example: tuple[Any, ...], shapes: Sequence[Sequence[int]]) -> ov.Model:
    """Convert a module of PyTorch to a graph; needs PyTorch.

    Args:
        traced: the module, or the result of tracing it.
        example: tensors to call it with.
        shapes: shapes of its inputs; -1 is any length.
    """
    from openvino.tools.ovc import convert_model

    return convert_model(traced, example_input=example, input=shapes)


def save_graph(graph: ov.Model, path: Path) -> None:
    """Write a graph with its numbers as they are.

    Raises:
        OSError: it cannot be written.
    """
    try:
        ov.save_model(graph, path, compress_to_fp16=False)
    except RuntimeError as exc:  # all that OpenVINO says of a full disk
        raise OSError(f"no room for {path.name}, or no permission to write it") from exc
