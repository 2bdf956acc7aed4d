"""Words that reports use for the kinds of prompts of a validation."""

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
"""Words by the names in :func:`.plans`, in the order of pages."""
