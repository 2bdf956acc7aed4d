"""Slides: opened by path or URI, read at any scale, in QuPath's level-0 frame."""

from .pool import ReaderPool
from .reader import Bounds, Reader, RgbArray, Window
from .slide import Slide, SlideIdentity, SlideReference, open_slide
from .source import PixelSource

__all__ = [
    "Bounds",
    "PixelSource",
    "Reader",
    "ReaderPool",
    "RgbArray",
    "Slide",
    "SlideIdentity",
    "SlideReference",
    "Window",
    "open_slide",
]
