"""Plots without a window; Matplotlib is imported when the first one is drawn."""

from __future__ import annotations

import io
from typing import Any

from wsisam_qupath.errors import DeviceError, pip_install


def make_figure(width_in: float, height_in: float, wanted_by: str) -> Any:
    """Make an empty figure of matplotlib.

    Args:
        width_in, height_in: size of the figure, inches.
        wanted_by: what needs matplotlib, with the verb, for the message: "plots need".

    Raises:
        DeviceError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure  # 0.3 s, and without any window
    except ImportError as exc:
        raise DeviceError(
            f"matplotlib is not installed, which {wanted_by}. Run {pip_install('matplotlib')}."
        ) from exc
    return Figure(figsize=(width_in, height_in), layout="constrained")


def encode_figure(figure: Any, dpi: int = 110) -> bytes:
    """Draw a figure and return the bytes of a PNG."""
    encoded = io.BytesIO()
    figure.savefig(encoded, format="png", dpi=dpi)
    return encoded.getvalue()
