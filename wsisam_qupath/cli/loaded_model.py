"""The model of a command. Imports little, so that loading can begin before the rest is imported."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from ..inference.loading import resolve
from ..options import ModelSpec

if TYPE_CHECKING:
    from ..inference.predictor import Predictor
    from ..inference.segmenter import Segmenter
    from ..report.progress import MessageConsole


class LoadedModel:
    """The model of one slide or many, loaded when the first prompt needs it, or from now on.

    Attributes:
        resolved: what is chosen, and not loaded yet.
    """

    def __init__(self, spec: ModelSpec) -> None:
        """Check the choice.

        Raises:
            WsiSamError: see :func:`.resolve`.
        """
        self.resolved = resolve(spec)
        self._load_predictor: Callable[[], Predictor] = self.resolved.load
        self._segmenter: Segmenter | None = None
        self._loading = threading.Lock()

    def begin(self) -> None:
        """Begin to load it in a thread: of the time until :meth:`load`, a second core makes use.

        What goes wrong is raised by :meth:`load`.
        """
        thread = ThreadPoolExecutor(1, thread_name_prefix="load-model")
        self._load_predictor = thread.submit(self.resolved.load).result
        thread.shutdown(wait=False)

    def load(self, console: MessageConsole) -> Segmenter:
        """Load it, unless that was done before; called from any thread."""
        from ..inference.segmenter import Segmenter
        from ..report.progress import show_progress

        with self._loading:
            if self._segmenter is None:
                with show_progress(console, "Loading the model (the first start prepares it)"):
                    self._segmenter = Segmenter(self._load_predictor())
            return self._segmenter
