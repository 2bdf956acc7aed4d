"""An existing dask cluster, and what its errors mean for a user."""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar

from ..errors import DeviceError, OptionError, SlideError, WsiSamError, escape, pip_install
from ..options import ModelSpec

_CONNECT_SECONDS = 10
"""Timeout for connecting to the scheduler, which may still be starting."""

_SILENCE_SECONDS = 5
"""Extra time, for an address that accepts the connection and then stays silent."""

T = TypeVar("T")


class DaskCluster:
    """Runs work on an existing cluster; its scheduler gives the work of a lost worker to others.

    Attributes:
        threads: number of threads of all workers together.

    Raises:
        OptionError: dask is not installed, or no scheduler answers.
    """

    def __init__(self, address: str) -> None:
        self._address = address
        self._client = _connect(address)
        threads = list(self._client.nthreads().values())
        self.threads = sum(threads)
        self._fewest_threads = min(threads, default=None)
        self._executor = self._client.get_executor(pure=False)

    def fit_model(self, model: ModelSpec) -> ModelSpec:
        """Adapt the model to the workers, which have other folders and their own cores."""
        adapter = model.adapter.absolute() if isinstance(model.adapter, Path) else model.adapter
        weights = None if model.weights is None else model.weights.absolute()
        # A worker computes with the cores it was given: its node may have more.
        return replace(
            model.on_any_machine, adapter=adapter, weights=weights, threads=self._fewest_threads
        )

    def submit(self, work: Callable[[], T]) -> Future[T]:
        """Run work on one of the workers.

        Args:
            work: callable that can be pickled, as can its result.

        Returns:
            Its result, or its error with a message for the user. Cancelling it cancels the work.
        """
        # As bytes: a worker (or scheduler) that lacks this package would die of the work itself,
        # without an error that reaches us, and then the next worker would.
        sent = self._executor.submit(pickle.loads, pickle.dumps(_Call(work)))
        outcome: Future[T] = Future()
        outcome.add_done_callback(lambda _: sent.cancel())  # no effect if it is done
        sent.add_done_callback(lambda _: self._forward_result(sent, outcome))
        return outcome

    def _forward_result(self, sent: Future[Any], outcome: Future[T]) -> None:
        if not outcome.set_running_or_notify_cancel():
            return
        error = self._find_error(sent)
        if error is None:
            outcome.set_result(sent.result())
        else:
            outcome.set_exception(error)

    def _find_error(self, sent: Future[Any]) -> BaseException | None:
        """Find the error of work, with a message for the user; None if it has a result."""
        from distributed import KilledWorker

        if sent.cancelled():
            return DeviceError(
                f"The dask scheduler at {self._address} has stopped. Start it, and run this again."
            )
        error = sent.exception()
        if isinstance(error, KilledWorker):
            return DeviceError(
                "Several dask workers ended at the same work: see their logs. If memory ran out, "
                "give the workers more."
            )
        if isinstance(error, ImportError):
            return DeviceError(
                f"A dask worker cannot run the task ({error}): install this version of "
                "wsisam-qupath there too."
            )
        return _name_worker(error) if isinstance(error, WsiSamError) else error

    def close(self) -> None:
        """Leave the cluster; work that has not begun never does."""
        self._executor.shutdown(wait=False)
        self._client.close()


def _name_worker(error: WsiSamError) -> WsiSamError:
    """Say in an error that it comes from a worker."""
    if isinstance(error, OptionError):
        return OptionError(error.option, f"on a dask worker: {error.problem}")
    hint = " Workers need the slides at the same paths as here."
    return type(error)(f"On a dask worker: {error}{hint * isinstance(error, SlideError)}")


@dataclass(frozen=True)
class _Call:
    """Work that unpickles as its own result: loading it runs it."""

    work: Callable[[], Any]

    def __reduce__(self) -> tuple[Callable[[Callable[[], Any]], Any], tuple[Callable[[], Any]]]:
        return _run, (self.work,)


def _run(work: Callable[[], T]) -> T:
    # In this module, which older versions of this package lack: their workers say so.
    return work()


def _connect(address: str) -> Any:
    """Connect to the scheduler at an address.

    Raises:
        OptionError: dask is not installed, or no scheduler answers.
    """
    try:
        # An extra, which takes a second to import, and has no types.
        distributed: Any = import_module("distributed")
    except ImportError as exc:
        raise OptionError(
            "dask", f"dask is not installed: run {pip_install('distributed')}."
        ) from exc
    try:
        distributed.utils.LoopRunner().run_sync(_greet_scheduler, distributed, address)
        return distributed.Client(address, timeout=_CONNECT_SECONDS, set_as_default=False)
    except ImportError as exc:
        raise OptionError(
            "dask",
            f"the scheduler at {address} does not work with the version of dask here ({exc}): "
            "install the same version on both.",
        ) from exc
    # MemoryError: dask reads the first bytes of a web server's response as a length.
    except (OSError, ValueError, TypeError, MemoryError, asyncio.TimeoutError) as exc:
        raise OptionError(
            "dask",
            f"no dask scheduler answers at {escape(address)}. Start one with `dask scheduler`, "
            "and give the address that it prints, e.g. tcp://node1:8786.",
        ) from exc


async def _greet_scheduler(distributed: Any, address: str) -> None:
    """Ask the scheduler at an address who it is, which raises if it is none.

    Not left to dask's client: one that fails at what is no scheduler stays half open.
    """
    secrets = distributed.Security().get_connection_args("client")
    async with distributed.rpc(
        address, timeout=_CONNECT_SECONDS, connection_args=secrets
    ) as scheduler:
        await asyncio.wait_for(scheduler.identity(), _CONNECT_SECONDS + _SILENCE_SECONDS)
