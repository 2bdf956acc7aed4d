"""Runs ``export``: writes a project's annotations into a folder that training reads."""

from __future__ import annotations

import os
import time
from collections import defaultdict, deque
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from ...errors import ImageError, ProjectError, SlideError
from ...geojson import write_features
from ...geojson.manifest import REGION_CLASS, ExportedImage, Manifest, file_names, write_manifest
from ...geometry import Mpp
from ...prompts import Skipped
from ...qupath.files.entries import ImageEntry, Project
from ...qupath.files.integrity import check_count, check_data
from ...qupath.files.reading import read_project
from ...qupath.jvm.objects import read_image
from ...qupath.jvm.process import QuPathProcess
from ...qupath.values import ImageContents
from ...report.progress import count_noun, name_cases, name_some, show_progress, stderr_console
from ...slide import calibration, open_slide
from ...slide.uri import path_from_location
from ..qupath_processes import find_running_qupath
from .folder import check_out, replace_whole
from .truth import UNREVIEWED, select_truth

_AHEAD = 2
"""Number of images that QuPath reads while one is written."""


@dataclass(frozen=True)
class ExportRequest:
    """The options of ``export``, under the names that they have on the command line.

    Attributes:
        project: the ``.qpproj`` file or its folder.
        out: folder to write; it replaces an earlier export as a whole.
        remap: (OLD, NEW) beginnings of the paths of slides that were moved.
        mpp: pixel size of slides for which neither the project nor the file states it, µm/px.
        is_kept: whether a user wants the folder, and is told of it.
    """

    project: Path
    out: Path
    remap: tuple[tuple[str, str], ...] = ()
    mpp: float | None = None
    is_kept: bool = True


@dataclass(frozen=True)
class Exported:
    """The result of ``export``: counts of images and objects.

    Attributes:
        folder: folder with the manifest.
        failed: images that could not be read, by name and reason; they are not in the manifest.
        warnings: what training will ask about, by image.
        is_kept: whether a user wants the folder.
    """

    folder: Path
    manifest: Manifest
    failed: tuple[Skipped, ...] = ()
    warnings: tuple[Skipped, ...] = ()
    seconds: float = 0.0
    is_kept: bool = True

    @property
    def is_complete(self) -> bool:
        """Tell whether every image could be read."""
        return not self.failed


def run_export(request: ExportRequest) -> Exported:
    """Export the project; the folder appears complete, or stays as it was.

    Raises:
        ProjectError: the project cannot be read, or none of its images can.
        OutputError: something else is where the export is to go, or it cannot be written.
        OptionError: ``mpp`` or ``remap`` cannot be used.
        QuPathError: there is no QuPath, or it failed.
    """
    console = stderr_console()
    start = time.perf_counter()
    mpp = None if request.mpp is None else calibration.override(request.mpp)
    out = Path(os.path.abspath(request.out.expanduser()))  # noqa: PTH100 - links stay links
    check_out(out)
    project = read_project(request.project, remap=request.remap)
    if not project.images:
        raise ProjectError(f"{project.path} holds no images: add some in QuPath.")
    _warn_of_qupath(project, console)
    with replace_whole(out) as folder:
        writer = _Writer(project, folder, mpp)
        with QuPathProcess() as qupath:
            writer.write(qupath, console)
    exported = Exported(
        out,
        Manifest(tuple(writer.images)),
        tuple(writer.failed),
        tuple(writer.warnings),
        time.perf_counter() - start,
        request.is_kept,
    )
    _tell(exported, console)
    return exported


def summary(exported: Exported) -> str:
    """Describe what was written and what was not, in a few sentences."""
    manifest = exported.manifest
    objects = sum(image.objects for image in manifest.images)
    regions = sum(image.regions for image in manifest.images)
    classes = ", ".join(f"{name} {count}" for name, count in manifest.classes.items())
    place = f" in {exported.folder}" if exported.is_kept else ""
    lines = [
        f"{count_noun(objects, 'object')}{f' ({classes})' if classes else ''} and "
        f"{count_noun(regions, 'region')} of {count_noun(len(manifest.images), 'image')}{place}, "
        f"in {exported.seconds:.1f} s."
    ]
    left_out = dict(manifest.left_out)
    unreviewed = left_out.pop(UNREVIEWED, 0)
    if left_out:
        reasons = ", ".join(f"{count} {reason}" for reason, count in left_out.items())
        lines.append(f"Not exported: {reasons}.")
    if objects and not regions:
        lines.append(
            f"No area of class {REGION_CLASS} marks where every object is annotated: training "
            "takes each outline as exact, and everything outside of it as not that object."
        )
    if unreviewed:
        lines.append(
            f"Not exported: {count_noun(unreviewed, 'result')} that no user has reviewed. In "
            "QuPath, turn correct detections into annotations, lock correct annotations, save, and "
            "export again."
        )
    return "\n".join(lines)


class _Writer:
    """Writes the files of the export and counts them."""

    def __init__(self, project: Project, folder: Path, mpp: Mpp | None) -> None:
        self.images: list[ExportedImage] = []
        self.failed: list[Skipped] = []
        self.warnings: list[Skipped] = []
        self._project = project
        self._folder = folder
        self._mpp = mpp
        self._names = file_names([(image.id, image.name) for image in project.images])

    def write(self, qupath: QuPathProcess, console: Console) -> None:
        """Write the files of all images and the manifest.

        Raises:
            ProjectError: none of them can be read.
            OutputError: a file cannot be written.
        """
        entries = self._project.images
        with show_progress(console, "Exporting images", len(entries)) as progress:
            for reading in _read_images(qupath, self._project):
                try:
                    self._write(reading)
                except ImageError as exc:
                    self.failed.append(Skipped(reading.entry.name, str(exc)))
                progress.advance()
        if not self.images:
            raise ProjectError(
                f"None of {count_noun(len(entries), 'image')} of {self._project.path} can be "
                f"exported. {self.failed[0].id}: {self.failed[0].reason}"
            )
        write_manifest(self._folder, Manifest(tuple(self.images)))

    def _write(self, reading: _Reading) -> None:
        """Write the file of one image.

        Raises:
            ImageError: it cannot be read.
        """
        entry, truth = reading.entry, select_truth(reading.result())
        size_px, mpp = self._measures(entry)
        file = self._names[entry.id]
        write_features(self._folder / file, truth.features)
        self.images.append(
            ExportedImage(
                id=entry.id,
                name=entry.name,
                file=file,
                uri=_uri(entry),
                width=size_px[0] if size_px else None,
                height=size_px[1] if size_px else None,
                mpp_x=mpp.x if mpp else None,
                mpp_y=mpp.y if mpp else None,
                classes=truth.classes,
                objects=truth.objects,
                regions=truth.regions,
                left_out=truth.left_out,
            )
        )

    def _measures(self, entry: ImageEntry) -> tuple[tuple[int, int] | None, Mpp | None]:
        """Determine size and µm/px of level 0: from the project, else the slide, else the user."""
        size_px, mpp = entry.size_px, entry.mpp
        if entry.slide is None:
            self.warnings.append(Skipped(entry.name, str(entry.trouble)))
        elif (size_px is None or mpp is None) and not entry.with_arguments:
            slide_size_px, slide_mpp = _read_size_and_mpp(entry.slide)
            size_px, mpp = size_px or slide_size_px, mpp or slide_mpp
        mpp = mpp or self._mpp
        if mpp is None:
            reason = (
                "nothing states its µm per pixel: set it in QuPath (Image tab, pixel width and "
                "height), or give it as mpp"
            )
            self.warnings.append(Skipped(entry.name, reason))
        if size_px is None:
            self.warnings.append(Skipped(entry.name, "nothing states its width and height"))
        return size_px, mpp


@dataclass(frozen=True)
class _Reading:
    """An image that QuPath is reading.

    Attributes:
        stated: number of objects that ``summary.json`` states.
    """

    entry: ImageEntry
    stated: int | None
    coming: Future[ImageContents]

    def result(self) -> ImageContents:
        """Wait for the objects of the image.

        Raises:
            ImageError: they are damaged.
        """
        contents = self.coming.result()
        check_count(self.entry, self.stated, contents.n_objects)
        return contents


def _read_images(qupath: QuPathProcess, project: Project) -> Iterator[_Reading]:
    """Read all images in their order; the next one is read while one is written."""
    waiting: deque[_Reading] = deque()
    for entry in project.images:
        waiting.append(_begin_reading(qupath, project, entry))
        if len(waiting) > _AHEAD:
            yield waiting.popleft()
    yield from waiting


def _begin_reading(qupath: QuPathProcess, project: Project, entry: ImageEntry) -> _Reading:
    try:
        # Without its slide, an image still has its annotations.
        if entry.trouble is not None and not entry.slide_is_missing:
            raise ImageError(entry.trouble)
        # Before QuPath sees it, which may read a damaged file for ever.
        stated = check_data(entry)
    except ImageError as exc:
        refused: Future[ImageContents] = Future()
        refused.set_exception(exc)
        return _Reading(entry, None, refused)
    return _Reading(entry, stated, qupath.submit(read_image, project.path, entry.id))


def _uri(entry: ImageEntry) -> str:
    """Give the slide's URI: as the project states it, or where the slide was found."""
    if entry.slide is None or entry.slide == _parse_path(entry.uri):
        return entry.uri
    return entry.slide.as_uri()


def _parse_path(uri: str) -> Path | None:
    """Parse a URI as a local path; None if it is no file of this computer."""
    try:
        return Path(path_from_location(uri, windows=os.name == "nt"))
    except SlideError:
        return None


def _read_size_and_mpp(slide: Path) -> tuple[tuple[int, int] | None, Mpp | None]:
    """Read size and µm/px from the slide; None for what it does not state."""
    # More than any file can be believed to state, so that it tells whether this one does.
    unstated = calibration.override(calibration.OVERRIDE_MPP_MAX)
    try:
        with open_slide(slide, mpp_if_unstated=unstated.x) as opened:
            size_px = (opened.width_px, opened.height_px)
            return size_px, None if opened.mpp == unstated else opened.mpp
    except SlideError:
        return None, None


def _warn_of_qupath(project: Project, console: Console) -> None:
    running = find_running_qupath(project.path)
    if running is not None:
        console.print(
            f"QuPath is running (process {running.pid}): what is not saved there is not exported.",
            markup=False,
        )


def _tell(exported: Exported, console: Console) -> None:
    name_cases(console, "Failed:", exported.failed)
    names_of: defaultdict[str, list[str]] = defaultdict(list)
    for warning in exported.warnings:
        names_of[warning.reason].append(warning.id)
    name_cases(console, "Note:", [Skipped(name_some(n), reason) for reason, n in names_of.items()])
    console.print(summary(exported), markup=False)
