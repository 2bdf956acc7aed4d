"""What reports call the kinds of prompts that a validation asks."""

from __future__ import annotations

from collections.abc import Mapping

KINDS: Mapping[str, str] = {
    "box": "box",
    "outline": "coarse mask",
    "1_points": "1 point",
    "3_points": "3 points",
    "10_points": "10 points",
    "box_points": "box and point",
}
"""By their names in :func:`.plans`, in the order of pages."""
