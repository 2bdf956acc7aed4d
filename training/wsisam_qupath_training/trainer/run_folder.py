"""Lock the folder of a decoder: two trainings would overwrite each other's checkpoints."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from wsisam_qupath.errors import OutputError
from wsisam_qupath.files import hold_alone

from .distributed import DistributedContext


@contextmanager
def hold_folders(folders: Iterable[Path], context: DistributedContext) -> Iterator[None]:
    """Lock the folders of decoders against other trainings, for the time of the body.

    Of several processes that train together, the first one keeps them for all.

    Args:
        folders: folders to lock; made if they do not exist.

    Raises:
        OutputError: another training is writing one of them, or it cannot be made.
    """
    with ExitStack() as held:
        for folder in () if context.rank else folders:
            held.enter_context(_hold(folder))
        yield


@contextmanager
def _hold(folder: Path) -> Iterator[None]:
    busy = (
        f"Another training is writing {folder} right now: wait for it, or choose another folder "
        "for this run."
    )
    with ExitStack() as held:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            held.enter_context(hold_alone(folder / "lock", busy))
        except OSError as exc:
            raise OutputError(
                f"{folder} cannot be written ({exc.strerror or exc}). Choose another folder for "
                "this run, or free space and permissions there."
            ) from exc
        yield
