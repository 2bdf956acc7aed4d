"""Loads the model in the background while the server already responds."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable

from ..errors import WsiSamError
from ..inference.segmenter import Segmenter
from .problems import ProblemError
from .schemas import ServerState

_LOOK_SECONDS = 0.2
"""How often a request that waits for the model checks whether its client is still there."""


class ModelLoader:
    """Loads the model once.

    Args:
        load: loads the model, in seconds, or minutes if it is prepared for the first time.
        on_demand: whether the first request for it starts to load it, in place of
            :func:`start_in_turn`.

    Attributes:
        is_on_demand: whether the first request for it starts to load it.
    """

    def __init__(self, load: Callable[[], Segmenter], *, on_demand: bool = False) -> None:
        self._load, self.is_on_demand = load, on_demand
        self._first = threading.Lock()
        self._segmenter: Segmenter | None = None
        self._failure: str | None = None
        self._done = threading.Event()

    def load(self) -> None:
        """Load the model now."""
        failure = "An unforeseen error kept it from loading; the server's log has it."
        try:
            self._segmenter = self._load()
        except WsiSamError as exc:
            failure = str(exc)
        finally:
            if self._segmenter is None:
                self._failure = failure
            self._done.set()

    def wait(self) -> None:
        """Wait until the model is loaded or has failed to load."""
        self._done.wait()

    @property
    def is_busy(self) -> bool:
        """Whether the model is being loaded, or will be without a request."""
        return self.state == "loading" and (not self.is_on_demand or self._first.locked())

    @property
    def state(self) -> ServerState:
        """The state of loading; a model on demand counts as loading until it is asked for."""
        if self._segmenter is not None:
            return "ready"
        return "loading" if self._failure is None else "failed"

    @property
    def failure(self) -> str | None:
        """Reason why the model could not be loaded, with a hint."""
        return self._failure

    @property
    def loaded(self) -> Segmenter | None:
        """The model, once it is loaded."""
        return self._segmenter

    def segmenter(self, wait_s: float = 0, check: Callable[[], None] = lambda: None) -> Segmenter:
        """Return the model.

        Args:
            wait_s: how long to wait for it.
            check: called while it is waited for; what it raises ends that.

        Raises:
            ProblemError: it is not there yet, or will never be.
        """
        if self.state == "loading" and self.is_on_demand and self._first.acquire(blocking=False):
            start_in_turn([self])
        end = time.monotonic() + wait_s
        while not self._done.wait(min(_LOOK_SECONDS, max(0, end - time.monotonic()))):
            check()
            if time.monotonic() >= end:
                raise _make_loading_problem(has_waited=wait_s > 0)
        if self._segmenter is None:
            raise ProblemError("failed", f"The model cannot be loaded. {self._failure}")
        return self._segmenter


def _make_loading_problem(*, has_waited: bool) -> ProblemError:
    return ProblemError(
        "loading",
        "The model is still being loaded, which takes longest at its first start here. Try "
        "again in a moment.",
        headers={"Retry-After": "0" if has_waited else "2"},
    )


def start_in_turn(
    loaders: Iterable[ModelLoader], before: Callable[[], None] = lambda: None
) -> None:
    """Start to load models, one after the other, in a thread that ends with the process.

    Args:
        before: called first in that thread.
    """

    def load() -> None:
        try:
            before()
        finally:
            for loader in loaders:
                loader.load()

    threading.Thread(target=load, name="model-loader", daemon=True).start()
