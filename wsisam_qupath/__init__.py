"""Promptable segmentation of whole-slide images for QuPath, with WSI-SAM.

The public Python API; each name is imported when it is first used::

    import wsisam_qupath as ws

    segmenter = ws.load_segmenter()
    with ws.open_slide("slide.svs") as slide:
        for result in segmenter.segment(slide, boxes=[(4960, 5960, 5250, 6400)]):
            print(result.polygon, result.predicted_iou)
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.2.0"

if TYPE_CHECKING:
    from .errors import WsiSamError
    from .geojson import read_prompts, to_feature, write_features
    from .geometry import Box, Mpp
    from .inference.find import Search, find_objects
    from .inference.segmenter import Segmenter
    from .inference.tasks import SegmentTask, load_segmenter, run_task
    from .options import ModelSpec, OutlineOptions
    from .project.batch.command import segment_project
    from .prompts import PathClass, Plane, Prompt, PromptSet
    from .prompts.results import Empty, Provenance, Result
    from .slide import Slide, open_slide

__all__ = [
    "Box",
    "Empty",
    "ModelSpec",
    "Mpp",
    "OutlineOptions",
    "PathClass",
    "Plane",
    "Prompt",
    "PromptSet",
    "Provenance",
    "Result",
    "Search",
    "SegmentTask",
    "Segmenter",
    "Slide",
    "WsiSamError",
    "__version__",
    "find_objects",
    "load_segmenter",
    "open_slide",
    "read_prompts",
    "run_task",
    "segment_project",
    "to_feature",
    "write_features",
]

_MODULES = {
    "errors": ("WsiSamError",),
    "geojson": ("read_prompts", "to_feature", "write_features"),
    "geometry": ("Box", "Mpp"),
    "inference.find": ("Search", "find_objects"),
    "inference.segmenter": ("Segmenter",),
    "inference.tasks": ("SegmentTask", "load_segmenter", "run_task"),
    "options": ("ModelSpec", "OutlineOptions"),
    "project.batch.command": ("segment_project",),
    "prompts": ("PathClass", "Plane", "Prompt", "PromptSet"),
    "prompts.results": ("Empty", "Provenance", "Result"),
    "slide": ("Slide", "open_slide"),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> object:
    # Importing the package must stay cheap: the command line does it before it prints --help.
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_MODULE_OF[name]}", __name__), name)


def __dir__() -> list[str]:
    return __all__
