"""Executors run prompts: in this process, in several processes, or on a dask cluster.

Each loads the model when the first prompt comes, and all return the same values.
"""

from __future__ import annotations

import pickle
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import closing, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeAlias

from ..errors import DeviceError, OptionError, SlideError, WsiSamError, escape, pip_install
from ..geometry import PatchPair
from ..options import ModelSpec, OutlineOptions
from ..prompts import Prompt
from ..prompts.planner import Planner
from ..prompts.results import SerializedResult
from ..slide import Slide
from .loading import ResolvedModel
from .segmenter import Segmenter, Tally, Turn
from .tasks import FindTask, NamedSearch, SegmentTask, find, run_task, serialize_results
from .workers import WorkerProcesses, assign_devices

Task: TypeAlias = SegmentTask | FindTask

Deliver: TypeAlias = Callable[[SerializedResult], None]

_TASK_PROMPTS = 32
"""Prompts per task: enough to outweigh opening the slide again, few enough to lose."""

_CONNECT_SECONDS = 10
"""Timeout for connecting to the scheduler, which may still be starting."""

_SILENCE_SECONDS = 5
"""Extra time, for an address that accepts the connection and then stays silent."""


@dataclass(frozen=True)
class Work:
    """Prompts on one slide.

    Attributes:
        planner: says which prompts share a patch pair.
        deliver: called from any thread, with each result that is ready before the others.
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
        """Make tasks for others of it."""
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
        """Make one task of it: what is found in one place decides what is found beside it."""
        return [FindTask(self.slide.reference, self.search, model, options)]


class Executor(Protocol):
    """Runs prompts in threads, processes or machines of its own.

    Attributes:
        images_at_once: this many images keep it busy while others are read and written.
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
    """Sends tasks away; common to processes and clusters."""

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
        self._address = address
        self._client = _connect(address)
        threads = list(self._client.nthreads().values())
        # A worker computes with the cores it was given: its node may have more.
        own = replace(_from_any_folder(model), threads=min(threads, default=None))
        super().__init__(own, options, max(1, sum(threads)))
        self._executor = self._client.get_executor(pure=False)

    def _send(self, task: Task) -> Future[Sequence[SerializedResult]]:
        # As bytes: a worker (or scheduler) that lacks this package would die of the task object
        # itself, without an error that reaches us, and then the next worker would.
        sent = self._executor.submit(pickle.loads, pickle.dumps(_Call(task)))
        outcome: Future[Sequence[SerializedResult]] = Future()
        outcome.add_done_callback(lambda _: sent.cancel())  # no effect if it is done
        sent.add_done_callback(lambda _: self._forward_result(sent, outcome))
        return outcome

    def _forward_result(
        self, sent: Future[Any], outcome: Future[Sequence[SerializedResult]]
    ) -> None:
        if not outcome.set_running_or_notify_cancel():
            return
        error = self._find_error(sent)
        if error is None:
            outcome.set_result(sent.result())
        else:
            outcome.set_exception(error)

    def _find_error(self, sent: Future[Any]) -> BaseException | None:
        """The error of a task, with a message for the user; None if it has a result."""
        from distributed import KilledWorker

        if sent.cancelled():
            return DeviceError(
                f"The dask scheduler at {self._address} has stopped. Start it, and run this again."
            )
        error = sent.exception()
        if isinstance(error, KilledWorker):
            return DeviceError(
                "Several dask workers ended at the same prompts: see their logs. If memory ran "
                "out, give the workers more."
            )
        if isinstance(error, ImportError):
            return DeviceError(
                f"A dask worker cannot run the task ({error}): install this version of "
                "wsisam-qupath there too."
            )
        return _name_worker(error) if isinstance(error, WsiSamError) else error

    def close(self) -> None:
        self._executor.shutdown(wait=False)
        self._client.close()


def _name_worker(error: WsiSamError) -> WsiSamError:
    """The same error, saying that it comes from a worker."""
    if isinstance(error, OptionError):
        return OptionError(error.option, f"on a dask worker: {error.problem}")
    hint = " Workers need the slides at the same paths as here."
    return type(error)(f"On a dask worker: {error}{hint * isinstance(error, SlideError)}")


@dataclass(frozen=True)
class _Call:
    """A task that unpickles as its own results: loading it runs it."""

    task: Task

    def __reduce__(self) -> tuple[Callable[[Task], list[SerializedResult]], tuple[Task]]:
        return _run, (self.task,)


def _run(task: Task) -> list[SerializedResult]:
    # In this module, which older versions of this package lack: their workers say so.
    return run_task(task)


def _connect(address: str) -> Any:
    """Connect to the scheduler at an address.

    Raises:
        OptionError: dask is not installed, or no scheduler answers.
    """
    try:
        import distributed  # an extra, and a second to import
    except ImportError as exc:
        raise OptionError(
            "dask", f"dask is not installed: run {pip_install('distributed')}."
        ) from exc
    client: Any = distributed.Client  # has no types
    connected: Future[Any] = Future()

    def connect() -> None:
        try:
            connected.set_result(client(address, timeout=_CONNECT_SECONDS, set_as_default=False))
        except BaseException as exc:  # noqa: BLE001 - goes to whoever waits
            connected.set_exception(exc)

    # Not in this thread: it would wait forever for a server that accepts and stays silent.
    threading.Thread(target=connect, name="dask-connect", daemon=True).start()
    try:
        return connected.result(_CONNECT_SECONDS + _SILENCE_SECONDS)
    except ImportError as exc:
        raise OptionError(
            "dask",
            f"the scheduler at {address} does not work with the version of dask here ({exc}): "
            "install the same version on both.",
        ) from exc
    # MemoryError: dask reads the first bytes of a web server's response as a length.
    except (OSError, ValueError, TypeError, MemoryError, FutureTimeoutError, TimeoutError) as exc:
        raise OptionError(
            "dask",
            f"no dask scheduler answers at {escape(address)}. Start one with `dask scheduler`, "
            "and give the address that it prints, e.g. tcp://node1:8786.",
        ) from exc


def _from_any_folder(model: ModelSpec) -> ModelSpec:
    """The same model with absolute paths, for processes in other folders."""
    adapter = model.adapter.absolute() if isinstance(model.adapter, Path) else model.adapter
    weights = None if model.weights is None else model.weights.absolute()
    return replace(model, adapter=adapter, weights=weights)


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
