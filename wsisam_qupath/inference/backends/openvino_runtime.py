"""OpenVINO, without the usage statistics that it reports on import.

A hospital's machine must not call home. OpenVINO sends nothing where it finds no telemetry package.
"""

import sys

# None in sys.modules is Python's own way to say that a module cannot be imported.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]

import openvino as ov  # noqa: E402

__all__ = ["ov"]
