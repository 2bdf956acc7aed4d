"""Open the project of a job, and check what the server may read and write of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PurePath

from ...errors import ProjectError, SlideError, escape
from ...files import SafeFolder
from ...project.access import choose_images
from ...qupath.files.entries import ImageEntry, Project
from ...qupath.files.locations import parse_moves
from ...qupath.files.reading import SUFFIX, read_project
from ..access import FileAccess, is_there
from ..config import ServerConfig
from ..job_schemas import JobRequest
from ..problems import ProblemError, make_invalid_problem
from ..slides import locate

_PATH_MAX = 200
_OWN_FOLDERS = ("data", "classifiers", "wsisam-qupath")


class JobAccess:
    """Opens projects for clients.

    Args:
        config: configuration; see :attr:`.ServerConfig.slides`; projects lie in the same folders.

    Attributes:
        files: files that may be opened.
    """

    def __init__(self, config: ServerConfig) -> None:
        self.files = FileAccess(config)
        self._maps = config.maps
        self._moves = parse_moves(config.maps, "maps")

    def open(self, request: JobRequest) -> tuple[Project, list[ImageEntry]]:
        """Open the project of a job and choose its images.

        An image with a slide or data that may not be touched is in trouble; the others are
        done all the same.

        Raises:
            ProblemError: the project may not be touched, is not there, cannot be read, or has no
                such images.
        """
        path = self._project_path(request.project)
        try:
            project = read_project(path, remap=self._maps, within=self._folder_of(path))
            self._check_folders(project)
            entries = choose_images(project, request.images or ())
        except ProjectError as exc:
            raise make_invalid_problem("project", str(exc)) from exc
        if self.files.is_free:  # to look at thousands of links takes its time on a network drive
            return project, entries
        return project, [self._check_entry(entry) for entry in entries]

    def _project_path(self, location: str) -> Path:
        """Find the existing file of a project, named by it or by its folder.

        A link that stands for the file is not followed, for QuPath keeps the data beside the link;
        links that lead to its folder are.
        """
        try:
            path = locate(location, self._moves)
        except SlideError as exc:
            raise _make_outside_problem(location) from exc
        is_file = path.suffix.lower() == SUFFIX
        folder = self._find_allowed(path.parent if is_file else path)
        if folder is None:
            raise _make_outside_problem(location)
        real = folder / path.name if is_file else folder
        for file in [real] if is_file else _projects_in(real):
            if self._find_allowed(file) is None:
                raise _make_outside_problem(location)
        if not is_there(real):
            raise ProblemError(
                "not-found",
                f"There is no project {escape(str(real), _PATH_MAX)} where the server runs. "
                "Check where it is now, or map its folder when the server is started.",
            )
        return real

    def _find_allowed(self, path: PurePath) -> Path | None:
        return self.files.find_allowed(path)

    def _folder_of(self, project: Path) -> SafeFolder | None:
        try:
            return self.files.folder_of(project)
        except OSError as exc:  # it was moved since
            raise _make_outside_problem(str(project)) from exc

    def _check_folders(self, project: Project) -> None:
        """Check that no folder of a project is a link to somewhere else."""
        if not all(self._find_allowed(project.folder / name) for name in _OWN_FOLDERS):
            raise _make_outside_problem(str(project.path))

    def _check_entry(self, entry: ImageEntry) -> ImageEntry:
        """Check an image; if the server may not use it, its ``trouble`` says so."""
        if entry.trouble is not None or entry.slide is None:
            return entry
        own = (entry.folder, entry.qpdata, entry.summary)
        if self._find_allowed(entry.slide) and all(map(self._find_allowed, own)):
            return entry
        slide = escape(str(entry.slide), _PATH_MAX)
        return replace(
            entry,
            trouble=f"Its slide {slide} or its data are not in a folder that this server may read: "
            "add the folder to the server's slides when it is started, or leave the image out.",
        )


def _projects_in(folder: Path) -> Sequence[Path]:
    try:
        return [path for path in folder.iterdir() if path.suffix.lower() == SUFFIX]
    except (OSError, ValueError):  # whoever reads it says why
        return []


def _make_outside_problem(location: str) -> ProblemError:
    return ProblemError(
        "slide-outside",
        f"The project {escape(location, _PATH_MAX)} is not in a folder that this server may "
        "read. Add its folder to the server's slides when it is started, and map the folder if it "
        "has another name there.",
    )
