"""Choose the numbers that the encoder computes with: the quickest that the chip has."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from ..errors import OptionError
from ..options import PRECISIONS, Precision

_CPU_INFO = Path("/proc/cpuinfo")

INT8_FEATURES = frozenset({"avx512_vnni", "avx_vnni"})
"""Any of these multiplies int8 faster than floats. Without them int8 gains nothing, and loses a
little accuracy."""

FAST_FLOATS = "amx_bf16"
"""Multiplies bf16 so fast that int8 gains nothing: on a Xeon with AMX an encode took 316 ms in
bf16, 333 ms in int8 and 658 ms in float32."""


def read_chip_features(cpu_info: Path = _CPU_INFO) -> frozenset[str]:
    """Read the features of the processor by their names in Linux; elsewhere none are known."""
    with suppress(OSError):
        for line in cpu_info.read_text(encoding="ascii", errors="replace").splitlines():
            name, _, values = line.partition(":")
            if name.strip() == "flags":
                return frozenset(values.split())
    return frozenset()


def choose_precision(
    wanted: str, *, backend: str, has_int8: bool, features: frozenset[str]
) -> Precision:
    """Choose the precision of the encoder.

    Args:
        wanted: ``auto`` or one of :data:`.options.PRECISIONS`; ``bf16`` also stands for the other
            short floats of a device, and for float32 where it has none.
        backend: ``openvino`` or ``torch``.
        has_int8: whether an encoder in int8 ships for the model.
        features: features of the processor; see :func:`read_chip_features`.

    Raises:
        OptionError: there is no such precision, or the model has no encoder in int8 there.
    """
    if wanted not in {"auto", *PRECISIONS}:
        raise OptionError("precision", f"{wanted!r} is none of auto, {', '.join(PRECISIONS)}.")
    can_int8 = has_int8 and backend == "openvino"
    if wanted == "int8" and not can_int8:
        raise OptionError(
            "precision",
            "int8 is there for the base lite-medsam on a CPU with OpenVINO, with adapters that "
            "keep its encoder or have that of the adapter that ships: choose bf16.",
        )
    gains = features & INT8_FEATURES and FAST_FLOATS not in features
    if wanted == "int8" or (wanted == "auto" and can_int8 and gains):
        return "int8"
    return "f32" if wanted == "f32" else "bf16"
