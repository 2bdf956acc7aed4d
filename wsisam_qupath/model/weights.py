"""Find the weights of a base on this machine, or download them. Every checksum is verified."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import WeightsError, pip_install, pip_reinstall
from ..files import cache_folder, compute_sha256
from .bases import Base, Bundled, Download

if TYPE_CHECKING:
    from .download import Progress


@dataclass(frozen=True)
class Weights:
    """A weights file with a verified SHA-256."""

    path: Path
    sha256: str


def find_weights_folder() -> Path:
    """Return the folder for downloaded weights; not created here."""
    return cache_folder() / "weights"


def find_expected_path(base: Base) -> Path:
    """Find the path of a base's weights, or the one that they will have once downloaded.

    Raises:
        WeightsError: the package that carries them is not installed.
    """
    source = base.source
    if isinstance(source, Download):
        return find_weights_folder() / source.file_name
    # The spec says where a package lies without importing it, and with it PyTorch.
    spec = find_spec(source.package)
    if spec is None or not spec.submodule_search_locations:
        raise WeightsError(
            f"The Python package {source.distribution}, which carries the weights of {base.name}, "
            f"is not installed. Run {pip_install(source.distribution)}."
        )
    return Path(spec.submodule_search_locations[0]) / source.relative_path


def locate_weights(
    base: Base,
    *,
    path: Path | None = None,
    download: bool = False,
    progress: Progress | None = None,
) -> Weights:
    """Locate the weights of a base: at ``path``, or in its package or the cache folder.

    Args:
        base: the base that the weights belong to.
        path: a copy of the weights somewhere else.
        download: whether missing or damaged weights are fetched; needs the network.
        progress: called while a download is under way, see :mod:`.download`.

    Raises:
        WeightsError: they are not there, cannot be read, or have another checksum.
    """
    if path is not None:
        return _verify(base, path, f"Name an unchanged copy of the weights of {base.name}.")
    if download and isinstance(base.source, Download):
        return download_weights(base, find_weights_folder(), progress=progress)
    return _verify(base, find_expected_path(base), explain_fix(base))


def explain_fix(base: Base) -> str:
    """Make the sentence that names the command to install missing or damaged weights."""
    if isinstance(base.source, Bundled):
        return f"Run {pip_reinstall(base.source.distribution)}."
    return f"Run `wsisam-qupath weights {base.name}` to download them."


def download_weights(
    base: Base, folder: Path, *, url: str | None = None, progress: Progress | None = None
) -> Weights:
    """Download the weights of a base into ``folder``, unless they are there.

    Args:
        base: the base that the weights belong to.
        folder: created if need be.
        url: a mirror to fetch them from; the checksum is the base's in any case.
        progress: called while the download is under way, see :mod:`.download`.

    Raises:
        WeightsError: they come with a package, cannot be fetched, or cannot be written.
    """
    source = base.source
    if isinstance(source, Bundled):
        raise WeightsError(
            f"The weights of {base.name} are not downloaded: they come with the Python package "
            f"{source.distribution}."
        )
    from .download import download  # requests takes 0.2 s, only needed here

    path = folder / source.file_name
    download(url or source.url, path, base.sha256, progress=progress)
    return Weights(path, base.sha256)


def _verify(base: Base, path: Path, remedy: str) -> Weights:
    try:
        found = compute_sha256(path)
    except FileNotFoundError as exc:
        raise WeightsError(
            f"The weights of {base.name} are not there: no file {path}. {remedy}"
        ) from exc
    except OSError as exc:
        raise WeightsError(f"{path} cannot be read: {exc.strerror}. {remedy}") from exc
    if found != base.sha256:
        raise WeightsError(
            f"{path} does not hold the weights of {base.name}: its SHA-256 is {found} and not "
            f"{base.sha256}. {remedy}"
        )
    return Weights(path, found)
