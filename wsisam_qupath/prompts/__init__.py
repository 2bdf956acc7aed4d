"""Prompts: what a user points at, how points are grouped, encoded and answered."""

from .prompt import (
    PathClass,
    Plane,
    Point,
    Prompt,
    PromptKind,
    PromptSet,
    Skipped,
    clip_to_slide,
    require_all_usable,
    require_usable,
)

__all__ = [
    "PathClass",
    "Plane",
    "Point",
    "Prompt",
    "PromptKind",
    "PromptSet",
    "Skipped",
    "clip_to_slide",
    "require_all_usable",
    "require_usable",
]
