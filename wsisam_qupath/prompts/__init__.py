"""Prompts: what a user marks, and how prompts are grouped, planned, encoded and answered."""

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
