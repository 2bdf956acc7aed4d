"""µm per pixel: what files state, what of that can be believed, and what a user may say."""

from __future__ import annotations

import math

from ..errors import OptionError
from ..geometry import Mpp

STATED_MPP_MIN, STATED_MPP_MAX = 0.02, 50.0
"""µm/px that a file can be believed to state. Screen and print resolutions, which editors write
unasked, lie outside: 300 dpi is 84.7 µm/px, 96 dpi is 265, 72 dpi is 353."""

OVERRIDE_MPP_MIN, OVERRIDE_MPP_MAX = 0.01, 100.0
"""µm/px that a user may state."""

_UM_PER_UNIT = {
    "pm": 1e-6,
    "å": 1e-4,
    "nm": 1e-3,
    "µm": 1.0,
    "um": 1.0,
    "micron": 1.0,
    "microns": 1.0,
    "mm": 1e3,
    "cm": 1e4,
    "centimeter": 1e4,
    "m": 1e6,
    "in": 25400.0,
    "inch": 25400.0,
}

_MICRO_SIGNS = str.maketrans({"\N{GREEK SMALL LETTER MU}": "\N{MICRO SIGN}"})


def override(mpp: float | Mpp) -> Mpp:
    """Read the pixel size that a user states; one number counts for both axes.

    Raises:
        OptionError: not a number from 0.01 to 100.
    """
    if isinstance(mpp, Mpp):
        return Mpp(override(mpp.x).x, override(mpp.y).y)
    if not OVERRIDE_MPP_MIN <= mpp <= OVERRIDE_MPP_MAX:  # NaN fails too
        raise OptionError(
            "mpp",
            f"{mpp:g} is out of range: give µm per pixel, from {OVERRIDE_MPP_MIN:g} to "
            f"{OVERRIDE_MPP_MAX:g}, e.g. 0.25 for a 40x scan.",
        )
    return Mpp(float(mpp), float(mpp))


def parse_mpp(x_um: object, y_um: object) -> Mpp | None:
    """Parse µm/px as a header states them: numbers, or text with a decimal point or comma.

    None where neither axis can be believed; where only one can, it counts for both.
    """
    x, y = _check_plausible(x_um), _check_plausible(y_um)
    if x is None and y is None:
        return None
    return Mpp(x or y or 0.0, y or x or 0.0)


def from_resolution(x_per_unit: object, y_per_unit: object, unit: str) -> Mpp | None:
    """Convert pixels per unit to µm/px; None for a unit of no length ("none", "pixel")."""
    um_per_unit = convert_to_um(unit)
    if um_per_unit is None:
        return None
    x, y = (_number(value) for value in (x_per_unit, y_per_unit))
    return parse_mpp(um_per_unit / x if x else None, um_per_unit / y if y else None)


def from_ome(xml: str) -> Mpp | None:
    """Read µm/px of the first image of OME-XML: PhysicalSizeX and Y, µm if no unit is given."""
    from xml.etree import ElementTree  # for OME-TIFF alone

    try:
        pixels = ElementTree.fromstring(xml).find(".//{*}Pixels")
    except ElementTree.ParseError:
        return None
    if pixels is None:
        return None
    sizes: list[float | None] = []
    for axis in ("X", "Y"):
        size = _number(pixels.get(f"PhysicalSize{axis}"))
        um_per_unit = convert_to_um(pixels.get(f"PhysicalSize{axis}Unit", "µm"))
        sizes.append(size * um_per_unit if size and um_per_unit else None)
    return parse_mpp(*sizes)


def convert_to_um(unit: str) -> float | None:
    """Convert a unit of length to µm; None if it is no unit of length."""
    plain = unit.strip().replace("\\u00B5", "µ").translate(_MICRO_SIGNS)
    return _UM_PER_UNIT.get(plain.lower())


def _check_plausible(um: object) -> float | None:
    number = _number(um)
    return number if number and STATED_MPP_MIN <= number <= STATED_MPP_MAX else None


def _number(value: object) -> float | None:
    """Read a finite number, from a number or text; None for anything else."""
    try:
        number = float(str(value).strip().replace(",", "."))
    except ValueError:
        return None
    return number if math.isfinite(number) else None
