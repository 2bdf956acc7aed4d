"""Opens the slide of a project's image, with our own reader if that shows the same as QuPath."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ...errors import ImageError, QuPathError, SlideError
from ...geometry import Box
from ...prompts import Plane
from ...qupath.files.entries import ImageEntry, Project
from ...qupath.jvm.pixels import Part, Source, open_through_qupath, sample_regions
from ...qupath.jvm.process import QuPathProcess
from ...slide import RgbArray, Slide, open_slide

_PLAIN = Plane()

_SAMPLE_PX = 64
"""Side of a region that is compared."""

_SAMPLE_PLACES = ((0.5, 0.5), (0.25, 0.25), (0.75, 0.25), (0.25, 0.75), (0.75, 0.75))
"""Centers of the regions that are compared, as shares of the slide's width and height."""

_MEAN_DIFFERENCE_MAX = 1.0
"""Largest mean difference of equal pixels, gray levels. Two JPEG decoders differ by less; another
color, place or turn by far more."""

_COMPARING_SECONDS_MAX = 120.0

_DIFFERENT = (
    "Pixels were read through QuPath, since what QuPath shows differs from what the file says"
)
_REFUSED = "Pixels were read through QuPath, since this program does not open the file by itself"


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
        self._differs: dict[str, bool] = {}
        self._notes: dict[str, str] = {}

    def open(self, entry: ImageEntry, plane: Plane = _PLAIN) -> Slide:
        """Open a plane of the slide of an image; compare its pixels with QuPath's, once per image.

        Raises:
            SlideError: it cannot be opened, or nothing states its µm/px.
            ImageError: QuPath shows something other than RGB.
        """
        return self.compare(entry, self.open_unread(entry, plane), plane)

    def open_unread(self, entry: ImageEntry, plane: Plane = _PLAIN) -> Slide:
        """Open a plane without the comparison: enough as long as no pixels are read.

        QuPath opens the slide to compare it, which takes longer than all else that is done with an
        image that has its results.

        Raises:
            SlideError, ImageError: as :meth:`open`.
        """
        if entry.z_count * entry.t_count > 1 or entry.with_arguments or entry.slide is None:
            return self._open_through_qupath(entry, plane)
        try:
            slide = self._open_file(entry.slide, mpp=entry.mpp, mpp_if_unstated=self._mpp)
        except SlideError as own:
            try:
                slide = self._open_through_qupath(entry, plane)
            except (SlideError, ImageError):
                raise own from None  # the reader that most slides are meant for says it best
            self._notes[entry.id] = _REFUSED
            return slide
        if entry.size_px not in (None, (slide.width_px, slide.height_px)):  # as another series
            slide.close()
            self._notes[entry.id] = _DIFFERENT
            return self._open_through_qupath(entry, plane)
        return slide

    def compare(self, entry: ImageEntry, slide: Slide, plane: Plane = _PLAIN) -> Slide:
        """Choose how a slide's pixels are read: by our reader, or by QuPath if that shows others.

        Raises:
            SlideError, ImageError: as :meth:`open`.
        """
        if self.is_only_here(slide):
            return slide
        if entry.id not in self._differs:
            self._differs[entry.id] = self._shows_other_pixels(entry, slide)
        if not self._differs[entry.id]:
            return slide
        self._notes[entry.id] = _DIFFERENT
        slide.close()
        return self._open_through_qupath(entry, plane)

    def note(self, entry: ImageEntry) -> str:
        """What a user should know of how an image was read; empty if there is nothing."""
        return self._notes.get(entry.id, "")

    def is_only_here(self, slide: Slide) -> bool:
        """Whether only this process can open the slide, as QuPath reads it."""
        return slide.reader == "QuPath"

    def _shows_other_pixels(self, entry: ImageEntry, slide: Slide) -> bool:
        """Whether QuPath shows other pixels; compares small regions of level 0.

        False where QuPath cannot show any: then our own reader is all there is.
        """
        parts = _samples(slide)
        source = Source(self._project.path.absolute(), entry.id, entry.slide)
        try:
            shown = self._process.run_within(_COMPARING_SECONDS_MAX, sample_regions, source, parts)
        except (ImageError, QuPathError):
            return False
        if shown is None:
            return False
        return any(
            _mean_difference(slide, part, rgb) > _MEAN_DIFFERENCE_MAX
            for part, rgb in zip(parts, shown, strict=True)
        )

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


def _samples(slide: Slide) -> list[Part]:
    width, height = min(_SAMPLE_PX, slide.width_px), min(_SAMPLE_PX, slide.height_px)
    return [
        Part(
            0,
            round((slide.width_px - width) * x_share),
            round((slide.height_px - height) * y_share),
            width,
            height,
            z=0,
            t=0,
        )
        for x_share, y_share in _SAMPLE_PLACES
    ]


def _mean_difference(slide: Slide, part: Part, shown: RgbArray) -> float:
    l0_box = Box(part.x, part.y, part.x + part.width, part.y + part.height)
    own = slide.read(l0_box, part.width, part.height)
    return float(np.abs(own.astype(np.int16) - shown).mean())
