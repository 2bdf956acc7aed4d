"""The packages that training needs, which come with the extras ``train`` and ``open-data``."""

from __future__ import annotations

from collections.abc import Container, Iterator
from contextlib import AbstractContextManager, contextmanager

from wsisam_qupath.errors import DeviceError, pip_install

_EXTRA = '"wsisam-qupath[train]"'
_OPEN_DATA = '"wsisam-qupath[open-data]"'
_PACKAGES = frozenset(
    {
        *("matplotlib", "scipy", "skimage", "tensorboard", "tomli"),
        *("torch", "torchvision", "timm", "segment_anything"),
    }
)


def require_extra() -> AbstractContextManager[None]:
    """Turn an import error of a package of the extra ``train`` into a message for the user.

    Raises:
        DeviceError: a package of the extra is missing.
    """
    return _require("Training and evaluation need", _EXTRA, _PACKAGES)


def require_open_data() -> AbstractContextManager[None]:
    """Turn an import error of torch-em, or of a package that it needs, into such a message.

    Raises:
        DeviceError: a package is missing.
    """
    return _require("Downloading open data needs", _OPEN_DATA, None)


@contextmanager
def _require(purpose: str, extra: str, packages: Container[str] | None) -> Iterator[None]:
    """Say how an extra is installed where a package is missing; None stands for any package."""
    try:
        yield
    except ModuleNotFoundError as exc:
        name = (exc.name or "").partition(".")[0]
        if packages is not None and name not in packages:
            raise
        # An error without a name gets here for open data alone.
        raise DeviceError(
            f"{purpose} the package {name or 'torch_em'}. Run {pip_install(extra)}."
        ) from exc
