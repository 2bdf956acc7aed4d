"""Data classes for a project and its images, as their files on disk state them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ...files import SafeFolder
from ...geometry import Mpp


@dataclass(frozen=True)
class ImageEntry:
    """One image of a project.

    Attributes:
        id: QuPath's entry id, digits; names the folder of its data.
        name: name that the project shows; several images may have the same one.
        folder: ``data/<id>``; missing until the image was first saved.
        uri: URI of the slide, as the project states it; empty if an entry holds none.
        slide: path of the slide on this computer, after remapping; None if it is no local file.
        mpp: µm per level-0 pixel as the project states it; None if it does not.
        size_px: (width, height) of level 0 as the project states it; None if it does not.
        z_count, t_count: number of z-slices and of time points of a stack.
        with_arguments: whether QuPath opens the slide with arguments of its own (a series, no
            cropping): what it shows may differ from what another reader shows.
        trouble: why the image cannot be used, one sentence with the hint; None if nothing is
            known to be wrong.
        slide_is_missing: whether `trouble` is that the slide is missing, and nothing else.
    """

    id: str
    name: str
    folder: Path
    uri: str
    slide: Path | None
    mpp: Mpp | None = None
    size_px: tuple[int, int] | None = None
    z_count: int = 1
    t_count: int = 1
    with_arguments: bool = False
    trouble: str | None = None
    slide_is_missing: bool = False

    @property
    def qpdata(self) -> Path:
        """Path of the image's objects and settings, in Java's serialization."""
        return self.folder / "data.qpdata"

    @property
    def summary(self) -> Path:
        """Path of the object counts of ``data.qpdata``, JSON; missing if it was never saved."""
        return self.folder / "summary.json"

    @property
    def files(self) -> SafeFolder:
        """Opens the image's files, and nothing outside of its project, wherever links lead."""
        return SafeFolder(self.folder.parent.parent)


@dataclass(frozen=True)
class Project:
    """A project file and its images, in its order.

    Attributes:
        path: absolute path of the ``.qpproj`` file.
        version: version of the QuPath that wrote it.
    """

    path: Path
    version: str
    images: tuple[ImageEntry, ...]

    @property
    def folder(self) -> Path:
        return self.path.parent

    @property
    def own_folder(self) -> Path:
        """Folder of this program's lock, journals and histories: ``wsisam-qupath/``."""
        return self.folder / "wsisam-qupath"

    @property
    def files(self) -> SafeFolder:
        """Opens files of the project, and nothing outside of it."""
        return SafeFolder(self.folder)
