"""OpenVINO, without the usage statistics that it reports on import.

A hospital's machine must not call home: where OpenVINO finds no telemetry package, it sends nothing.
"""

import sys

sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type] - Python's own way

import openvino as ov  # noqa: E402

__all__ = ["ov"]
