"""Opens the slide of a project's image, with our own reader if that shows the same as QuPath."""

from __future__ import annotations

from collections.abc import Callable

from ...errors import ImageError, SlideError
from ...prompts import Plane
from ...qupath.files.entries import ImageEntry, Project
from ...qupath.jvm.pixels import open_through_qupath
from ...qupath.jvm.process import QuPathProcess
from ...slide import Slide, open_slide

_PLAIN = Plane()


class SlideOpener:
    """Opens slides of one project.

    Args:
        mpp: µm per level-0 pixel of slides for which neither the project nor the file states it.
        open_file: opens a slide's file, with the arguments of :func:`..slide.open_slide`.
    """

    def __init__(
        self,
        process: QuPathProcess,
        project: Project,
        mpp: float | None,
        open_file: Callable[..., Slide] = open_slide,
    ) -> None:
        self._process, self._project, self._mpp = process, project, mpp
        self._open_file = open_file

    def open(self, entry: ImageEntry, plane: Plane = _PLAIN) -> Slide:
        """Open a plane of the slide of an image.

        Raises:
            SlideError: it cannot be opened, or nothing states its µm/px.
            ImageError: QuPath shows something other than RGB.
        """
        if entry.z_count * entry.t_count > 1 or entry.with_arguments or entry.slide is None:
            return self._open_through_qupath(entry, plane)
        try:
            slide = self._open_file(entry.slide, mpp=entry.mpp, mpp_if_unstated=self._mpp)
        except SlideError as own:
            try:
                return self._open_through_qupath(entry, plane)
            except (SlideError, ImageError):
                raise own from None  # the message of the reader for most slides is the better one
        if entry.size_px not in (None, (slide.width_px, slide.height_px)):
            # QuPath shows another part of the file, such as another series.
            return self._open_through_qupath(entry, plane)
        return slide

    def is_only_here(self, slide: Slide) -> bool:
        """Tell whether only this process can open the slide, as QuPath reads it."""
        return slide.reader == "QuPath"

    def _open_through_qupath(self, entry: ImageEntry, plane: Plane) -> Slide:
        return open_through_qupath(
            self._process,
            self._project.path,
            entry,
            z=plane.z,
            t=plane.t,
            mpp=entry.mpp,
            mpp_if_unstated=self._mpp,
        )
