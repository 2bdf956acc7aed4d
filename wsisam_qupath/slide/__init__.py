"""Slides: opened by path or URI, read at any scale, in QuPath's level-0 frame."""

from .reader import Bounds, Reader, RgbArray, Window
from .slide import Slide, SlideIdentity, SlideReference, open_slide

__all__ = [
    "Bounds",
    "Reader",
    "RgbArray",
    "Slide",
    "SlideIdentity",
    "SlideReference",
    "Window",
    "open_slide",
]
