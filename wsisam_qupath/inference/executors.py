"""Executors run prompts: in this process, in several processes, or on a dask cluster.

Each loads the model when the first prompt comes, and all return the same values.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol, TypeAlias

from ..geometry import PatchPair
from ..options import ModelSpec, OutlineOptions
from ..prompts import Prompt
from ..prompts.planner import Planner
from ..prompts.results import SerializedResult
from ..slide import Slide
from .dask_cluster import DaskCluster
from .loading import ResolvedModel
from .segmenter import Segmenter, Turn
from .tally import Tally
from .tasks import FindTask, NamedSearch, SegmentTask, find, run_task, serialize_results
from .workers import WorkerProcesses, assign_devices

Task: TypeAlias = SegmentTask | FindTask

Deliver: TypeAlias = Callable[[SerializedResult], None]

_TASK_PROMPTS = 32
"""Prompts per task: enough to outweigh opening the slide again, few enough to lose."""


@dataclass(frozen=True)
class Work:
    """Prompts on one slide.

    Attributes:
        planner: says which prompts share a patch pair.
        deliver: called from any thread with each result that is ready before the others.
    """

    slide: Slide
    prompts: tuple[Prompt, ...]
    planner: Planner
    deliver: Deliver

    def predict(
        self, segmenter: Segmenter, options: OutlineOptions, turn: Turn = nullcontext
    ) -> Generator[SerializedResult, None, None]:
        """Answer the prompts here; see :meth:`.Segmenter.segment`."""
        results = segmenter.segment(self.slide, self.prompts, options, turn=turn)
        return serialize_results(results, options.object_type)

    def split(self, model: ModelSpec, options: OutlineOptions) -> list[Task]:
        """Make tasks of the prompts, for other processes."""
        packs = _pack_prompts(self.prompts, self.planner)
        return [SegmentTask(self.slide.reference, some, model, options) for some in packs]


@dataclass(frozen=True)
class SearchWork:
    """A search on one slide.

    Attributes:
        deliver: see :class:`Work`.
    """

    slide: Slide
    search: NamedSearch
    deliver: Deliver

    def predict(
        self, segmenter: Segmenter, options: OutlineOptions, turn: Turn = nullcontext
    ) -> Generator[SerializedResult, None, None]:
        """Search here; see :func:`.tasks.find`."""
        return find(segmenter, self.slide, self.search, options, turn=turn)

    def split(self, model: ModelSpec, options: OutlineOptions) -> list[Task]:
        """Make one task of the search: each find decides what may be found beside it."""
        return [FindTask(self.slide.reference, self.search, model, options)]


MakeWork: TypeAlias = Callable[[Slide], Work | SearchWork]
"""Makes the work on a plane of an image, given its slide."""


class Executor(Protocol):
    """Runs prompts in threads, processes or machines of its own.

    Attributes:
        images_at_once: how many images keep it busy while others are read and written.
    """

    images_at_once: int

    def submit(self, work: Work | SearchWork) -> list[Future[Sequence[SerializedResult]]]:
        """Start to run prompts, or a search.

        Returns:
            Futures of the results that are not delivered one by one.
        """
        ...

    def close(self) -> None:
        """Stop at once; prompts without a result stay without."""
        ...


class LocalExecutor:
    """One model in this process; results are delivered one by one."""

    images_at_once = 2

    def __init__(self, model: ResolvedModel, options: OutlineOptions) -> None:
        self._model, self._options = model, options
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="local-executor")
        self._closed = threading.Event()
        self._segmenter: Segmenter | None = None

    @property
    def tally(self) -> Tally | None:
        """What has been done so far; None before the first prompt."""
        return self._segmenter.tally if self._segmenter else None

    def submit(self, work: Work | SearchWork) -> list[Future[Sequence[SerializedResult]]]:
        return [self._thread.submit(self._predict, work)]

    def _predict(self, work: Work | SearchWork) -> Sequence[SerializedResult]:
        if self._segmenter is None:
            self._segmenter = Segmenter(self._model.load())
        with closing(work.predict(self._segmenter, self._options)) as results:
            for one in results:
                if self._closed.is_set():
                    break
                work.deliver(one)
        return ()

    def close(self) -> None:
        self._closed.set()
        self._thread.shutdown(cancel_futures=True)


class _TaskExecutor(ABC):
    """Sends tasks to other processes: the common part of processes and clusters."""

    def __init__(self, model: ModelSpec, options: OutlineOptions, workers: int) -> None:
        self._model, self._options = model, options
        self.images_at_once = 2 + 2 * workers

    def submit(self, work: Work | SearchWork) -> list[Future[Sequence[SerializedResult]]]:
        return [self._send(task) for task in work.split(self._model, self._options)]

    @abstractmethod
    def _send(self, task: Task) -> Future[Sequence[SerializedResult]]:
        """Run a task somewhere else."""


class ProcessExecutor(_TaskExecutor):
    """Several processes on this machine, each with its own model and, if there is one, GPU."""

    def __init__(self, model: ModelSpec, options: OutlineOptions, workers: int) -> None:
        super().__init__(model, options, workers)
        self._models = assign_devices(model, workers)
        self._workers = WorkerProcesses(workers)

    def _send(self, task: Task) -> Future[Sequence[SerializedResult]]:
        return self._workers.submit(
            lambda number: partial(run_task, replace(task, model=self._models[number])),
            f"the same prompts on {task.slide.location}",
        )

    def close(self) -> None:
        self._workers.close()


class DaskExecutor(_TaskExecutor):
    """An existing dask cluster; its scheduler gives the tasks of a lost worker to others.

    Raises:
        OptionError: dask is not installed, or no scheduler answers.
    """

    def __init__(self, model: ModelSpec, options: OutlineOptions, address: str) -> None:
        self._cluster = DaskCluster(address)
        super().__init__(self._cluster.fit_model(model), options, max(1, self._cluster.threads))

    def _send(self, task: Task) -> Future[Sequence[SerializedResult]]:
        return self._cluster.submit(partial(run_task, task))

    def close(self) -> None:
        self._cluster.close()


def _pack_prompts(prompts: Sequence[Prompt], planner: Planner) -> Iterator[tuple[Prompt, ...]]:
    """Split prompts into packs; prompts of one patch pair stay together."""
    by_pair: dict[PatchPair, list[Prompt]] = {}
    for prompt in prompts:
        by_pair.setdefault(planner.pair(prompt), []).append(prompt)
    pack: list[Prompt] = []
    for members in by_pair.values():
        if pack and len(pack) + len(members) > _TASK_PROMPTS:
            yield tuple(pack)
            pack = []
        pack += members
    if pack:
        yield tuple(pack)
