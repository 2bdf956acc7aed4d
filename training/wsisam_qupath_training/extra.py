"""The packages that training needs, which come with the extras ``train`` and ``open-data``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from wsisam_qupath.errors import DeviceError, pip_install

_EXTRA = '"wsisam-qupath[train]"'
_OPEN_DATA = '"wsisam-qupath[open-data]"'
_PACKAGES = frozenset(
    {
        *("matplotlib", "scipy", "skimage", "tensorboard", "tomli"),
        *("torch", "torchvision", "timm", "segment_anything"),
    }
)


@contextmanager
def require_extra() -> Iterator[None]:
    """Turn an import error of a package of the extra into a message for the user.

    Raises:
        DeviceError: one is.
    """
    try:
        yield
    except ModuleNotFoundError as exc:
        if exc.name is None or exc.name.partition(".")[0] not in _PACKAGES:
            raise
        raise DeviceError(
            f"Training and evaluation need the package {exc.name.partition('.')[0]}. Run "
            f"{pip_install(_EXTRA)}."
        ) from exc


@contextmanager
def require_open_data() -> Iterator[None]:
    """Translate that torch-em, or a package that it needs, is missing.

    Raises:
        DeviceError: one is.
    """
    try:
        yield
    except ModuleNotFoundError as exc:
        name = (exc.name or "torch_em").partition(".")[0]
        raise DeviceError(
            f"Downloading open data needs the package {name}. Run {pip_install(_OPEN_DATA)}."
        ) from exc
