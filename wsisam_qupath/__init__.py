"""Promptable segmentation of whole-slide images for QuPath, with WSI-SAM.

The public API, loaded when it is first used::

    from wsisam_qupath import Box, Prompt, load_segmenter, open_slide

    segmenter = load_segmenter()
    with open_slide("slide.svs") as slide:
        for result in segmenter.segment(slide, [Prompt("gland", l0_box=Box(100, 200, 400, 500))]):
            print(result)
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .errors import WsiSamError
    from .geojson import read_prompts, to_feature, write_features
    from .geometry import Box, Mpp
    from .inference.options import SegmentOptions
    from .inference.segmenter import Segmenter
    from .inference.tasks import ModelSpec, SegmentTask, load_segmenter, run_task
    from .prompts import PathClass, Plane, Prompt
    from .prompts.results import Empty, Provenance, Result
    from .slide import Slide, open_slide

__all__ = [
    "Box",
    "Empty",
    "ModelSpec",
    "Mpp",
    "PathClass",
    "Plane",
    "Prompt",
    "Provenance",
    "Result",
    "SegmentOptions",
    "SegmentTask",
    "Segmenter",
    "Slide",
    "WsiSamError",
    "load_segmenter",
    "open_slide",
    "read_prompts",
    "run_task",
    "to_feature",
    "write_features",
]

_HOMES = {
    "inference.segmenter": ("Segmenter", "SegmentOptions"),
    "errors": ("WsiSamError",),
    "geojson": ("read_prompts", "to_feature", "write_features"),
    "geometry": ("Box", "Mpp"),
    "prompts": ("PathClass", "Plane", "Prompt"),
    "prompts.results": ("Empty", "Provenance", "Result"),
    "slide": ("Slide", "open_slide"),
    "inference.tasks": ("SegmentTask", "ModelSpec", "load_segmenter", "run_task"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> object:
    # The command line must answer --help at once: nothing heavy is imported before it is used.
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOME_OF[name]}", __name__), name)


def __dir__() -> list[str]:
    return __all__
