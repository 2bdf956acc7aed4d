"""Coordinate frames, polygons and masks."""

from .frames import Box, FloatArray, Mpp, PatchPair, find_bounding_box, unite_boxes

__all__ = ["Box", "FloatArray", "Mpp", "PatchPair", "find_bounding_box", "unite_boxes"]
